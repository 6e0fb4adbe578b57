"""Which of several pictures shows the words of a prompt best: read by OCR, not looked at by a person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from sampan.metrics.ocr import TextReader, score_words
from sampan.models.text import glyph_texts


def scorer(reader: TextReader) -> Callable[[Sequence[Any], str], list[float]]:
    """Return what scores pictures (H, W, 3) by a prompt: words that are right, and then how near the others come."""

    def score(pictures: Sequence[Any], prompt: str) -> list[float]:
        wanted = glyph_texts(prompt)
        readings = reader.read([Image.fromarray(pixels) for pixels in pictures])
        scores = [score_words(wanted, reading.words) for reading in readings]
        return [(s.right + s.similarity / max(1, s.total)) / (s.total + 1) for s in scores]

    return score
