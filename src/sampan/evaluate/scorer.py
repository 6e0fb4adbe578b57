"""A picture held against a question: which words are right, which colours, which emoji is nearest, is the edit done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from sampan.evaluate.case import Box, EvalCase
from sampan.metrics import color, nearest
from sampan.metrics.likeness import ssim
from sampan.metrics.ocr import Reading, WordScore, score_words, words_of
from sampan.synthetic import emoji
from sampan.synthetic.signs.colors import RGB

TOP_STRIP: Box = (0.0, 0.0, 1.0, 0.06)  # of an emoji's picture: nothing but background
_BACKGROUNDS = emoji.COLORS | {"white": (255, 255, 255)}
STILL_READ = 0.8  # an edit that is not about the word leaves it at least this like
KEPT_SSIM = 0.7  # and what it does not change at least this like
PLACED = 0.7  # letters stand where they should if their box and the true one overlap by this share of both
_NOT_PLATE, _FEWEST_PX = 48, 8  # of 255, and how many pixels letters have at least
_CHANGED = 8  # of 255: a channel that differs by more between before and after is of the change
_AROUND_PX = 11  # around it, where windows of the comparison reach into it


@dataclass(frozen=True)
class CaseScore:
    """What is right of what was asked; None is what was not asked for.

    Args:
        words: How many words are right, and how like the others are.
        colors: Whether each colour that the prompt names is right.
        placed: Whether letters stand where they do on the true picture, and lines that were read in their order.
        rank: How many candidates are nearer than the emoji meant.
        changed: Whether what was to change has changed.
        kept: Whether the rest has stayed.
        kept_ssim: Structural similarity to the true picture outside the changed part, where there is such a part.
    """

    words: WordScore | None = None
    colors: tuple[bool, ...] = ()
    placed: bool | None = None
    rank: int | None = None
    changed: bool | None = None
    kept: bool | None = None
    kept_ssim: float | None = None

    @property
    def done(self) -> bool | None:
        """Whether the edit is done: the change made and the rest kept."""
        return None if self.changed is None else bool(self.changed and self.kept)

    @property
    def points(self) -> float:
        """One number to put pictures in order by, in [0, 1]."""
        parts = [float(right) for right in self.colors]
        if self.words and self.words.total:
            parts += [self.words.right / self.words.total, self.words.similarity / self.words.total]
        if self.rank is not None:
            parts += [1 / (1 + self.rank)] * 2
        if self.changed is not None:
            parts += [float(self.done or False)] * 2
        return sum(parts) / len(parts) if parts else 0.0


class Scorer:
    """Holds pictures against cases.

    Args:
        glyphs: The emoji to choose among, by file stem.
    """

    def __init__(self, glyphs: Mapping[str, Image.Image]):
        self.stems, self.glyphs = list(glyphs), list(glyphs.values())
        self._known: dict[tuple[RGB, int], NDArray[np.float64]] = {}

    def score(self, case: EvalCase, image: Image.Image, reading: Reading | None) -> CaseScore:
        """Return what is right of a picture of any size.

        Args:
            reading: What was read in it, where the case asks for words.
        """
        if case.truth is not None and image.size != case.truth.size:
            image = image.resize(case.truth.size, Image.Resampling.LANCZOS)
        words = None
        if case.words is not None:
            assert reading is not None, "what has words is read"
            words = score_words(case.words, reading.words)
        plate, ink = color.plate_and_ink(image, case.box) if case.plate or case.ink else (None, None)
        if case.edit:
            return self._score_edit(case, image, words, plate == case.plate, ink == case.ink)
        colors = [seen == named for seen, named in ((plate, case.plate), (ink, case.ink)) if named]
        if case.background:
            largest = next(iter(color.named_shares(image, TOP_STRIP, _BACKGROUNDS)))
            colors.append(largest == case.background)
        return CaseScore(words, tuple(colors), _is_placed(case, image, reading), self._rank(case, image))

    def _score_edit(
        self, case: EvalCase, image: Image.Image, words: WordScore | None, plate_right: bool, ink_right: bool
    ) -> CaseScore:
        assert words is not None and words.total and case.truth is not None, "edits are of signs with words"
        still_read = words.similarity / words.total >= STILL_READ
        changed = {"plate": plate_right, "ink": ink_right, "word": words.right == words.total}[case.edit or ""]
        rest = {
            "plate": (ink_right, still_read),
            "ink": (plate_right, still_read),
            "word": (plate_right, ink_right),
        }[case.edit or ""]
        similar = ssim(image, case.truth, unchanged_pixels(case.references[0], case.truth))
        kept = all(rest) and (similar is None or similar >= KEPT_SSIM)
        return CaseScore(words, (plate_right, ink_right), _is_placed(case, image, None), None, changed, kept, similar)

    def _rank(self, case: EvalCase, image: Image.Image) -> int | None:
        if case.emoji is None:
            return None
        left, top, right, bottom = (
            round(value * side) for value, side in zip(case.emoji_box, (*image.size, *image.size), strict=True)
        )
        return nearest.rank(
            image.crop((left, top, right, bottom)),
            self._candidates(case.backdrop, right - left),
            self.stems.index(case.emoji),
        )

    def _candidates(self, backdrop: RGB, size_px: int) -> NDArray[np.float64]:
        key = (backdrop, size_px)
        if key not in self._known:
            self._known[key] = nearest.of_all([emoji.compose(glyph, size_px, backdrop) for glyph in self.glyphs])
        return self._known[key]


def letters_box(image: Image.Image) -> Box | None:
    """Return the box (left, top, right, bottom, in pixels) around what is not the plate's colour; None on a bare plate.

    The plate's colour is the median of the border; a hundredth of the pixels on each side may be strays.
    """
    pixels = np.asarray(image.convert("RGB"), int)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    rows, columns = np.nonzero(np.abs(pixels - np.median(border, axis=0)).max(-1) > _NOT_PLATE)
    if len(rows) < _FEWEST_PX:
        return None
    (top, bottom), (left, right) = np.quantile(rows, (0.01, 0.99)), np.quantile(columns, (0.01, 0.99))
    return float(left), float(top), float(right) + 1, float(bottom) + 1


def overlap(first: Box, second: Box) -> float:
    """Return the area that two boxes share over the area that they cover."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (first, second)]
    return shared / (sum(areas) - shared)


def _is_placed(case: EvalCase, image: Image.Image, reading: Reading | None) -> bool | None:
    if not case.on_plate or case.truth is None or (wanted := letters_box(case.truth)) is None:
        return None
    box = letters_box(image)
    there = box is not None and overlap(box, wanted) >= PLACED
    return there and is_in_order(case.words or (), reading.words if reading else ())


def is_in_order(wanted: Sequence[str], read: Sequence[str]) -> bool:
    """Say whether those words of the prompt that were read stand in its order; one that was not read does not matter."""
    words = words_of(read)
    places = [words.index(word) for word in words_of(wanted) if word in words]
    return places == sorted(places)


def unchanged_pixels(before: Image.Image, after: Image.Image) -> NDArray[np.bool_]:
    """Return the pixels (height, width) that an edit leaves alone, with some room around those that it changes."""
    difference = np.abs(np.asarray(before.convert("RGB"), int) - np.asarray(after.convert("RGB"), int)).max(-1)
    mask = Image.fromarray(((difference > _CHANGED) * 255).astype(np.uint8))
    return np.asarray(mask.filter(ImageFilter.MaxFilter(_AROUND_PX))) == 0
