"""The glyph encoder: the bytes of a word must find the picture of that word among others.

Words are those of the captions' quotes and made-up ones, drawn with Pillow's own font. Source of the recipe:
Glyph-ByT5 (Liu et al. 2024), contrast of text with rendered glyphs, in small.
"""

from __future__ import annotations

import string
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sampan.losses.contrast import contrast_loss
from sampan.models import positions
from sampan.models.text import glyph_batch, glyph_texts
from sampan.samplers import noise
from sampan.train.heads import GlyphWithHeads
from sampan.train.stages import Context, Stage, caption_texts

_LETTERS = string.ascii_letters + string.digits
_HEIGHT_PX, _WIDTH_PX = 32, 128


def make(context: Context) -> Stage:
    """Return the stage."""
    settings, config, seed = context.settings, context.config, context.seed
    quoted = [t for caption in caption_texts(context.samples) for t in glyph_texts(caption) if 0 < len(t) <= 12]

    def draw(step: int, micro: int) -> tuple[np.ndarray, ...]:
        random = noise.generator(seed, "glyph/words", step, micro)
        words: dict[str, None] = {}
        while len(words) < settings.micro_batch_size:
            if quoted and random.random() < 0.5:
                words[quoted[int(random.integers(len(quoted)))]] = None
                if random.random() < 0.5:
                    continue
            length = int(random.integers(1, 9))
            words["".join(_LETTERS[i] for i in random.integers(0, len(_LETTERS), length))] = None
        chosen = list(words)[: settings.micro_batch_size]
        ids, mask = glyph_batch(chosen)
        # the pad that an even number of strings begins with belongs to prompts, not to words
        ids, mask = (ids[:, 1:], mask[:, 1:]) if len(chosen) % 2 == 0 else (ids, mask)
        glyph = config.glyph
        buckets = positions.relative_buckets(
            ids.shape[1], glyph.relative_attention_num_buckets, glyph.relative_attention_max_distance
        )
        pictures = np.stack([_rendered(word, int(random.integers(16, 25))) for word in chosen])
        rows = np.arange(len(chosen))
        return ids, mask, buckets, pictures[:, None], rows, np.ones(len(chosen), np.float32)

    def loss(
        module: Any, ids: Any, mask: Any, buckets: Any, pictures: Any, rows: Any, weights: Any
    ) -> tuple[Any, dict[str, Any]]:
        return contrast_loss(
            module.spell(ids, mask, buckets), module.read(pictures), rows, weights, settings.temperature
        ), {}

    return Stage(GlyphWithHeads(config), draw, loss, prefix="part.")


def _rendered(word: str, size_px: int) -> np.ndarray:
    """Return (32, 128) in [-1, 1]: the word in white on black, made to fit."""
    font = _font(size_px)
    left, top, right, bottom = font.getbbox(word)
    image = Image.new("L", (max(1, int(right - left) + 4), _HEIGHT_PX))
    ImageDraw.Draw(image).text((2 - left, (_HEIGHT_PX - bottom - top) / 2), word, fill=255, font=font)
    if image.width > _WIDTH_PX:
        image = image.resize((_WIDTH_PX, _HEIGHT_PX), Image.Resampling.BILINEAR)
    canvas = Image.new("L", (_WIDTH_PX, _HEIGHT_PX))
    canvas.paste(image, (0, 0))
    return np.asarray(canvas, np.float32) / 127.5 - 1


@lru_cache(maxsize=16)
def _font(size_px: int) -> Any:
    return ImageFont.load_default(size_px)
