"""A picture set out of a colour-emoji font: its glyphs as pictures, their names in three languages as captions.

It gives a training something real to begin with, needs no network and no system library, and is the same everywhere: an
image folder with metadata.jsonl. Edits, where asked for, are rows with a reference: the emoji on white, an instruction
such as "make the background blue", and the emoji on blue.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sampan.errors import DataError
from sampan.extras import require
from sampan.synthetic.color_font import ColorFont
from sampan.synthetic.emoji_names import LANGUAGES, Emoji, catalogue
from sampan.synthetic.picture_set import PictureSet, PictureSetSummary, Row, check_range, write_set

COLORS = {
    "red": (214, 40, 40),
    "orange": (247, 127, 0),
    "yellow": (255, 214, 10),
    "green": (43, 147, 72),
    "blue": (29, 99, 220),
    "purple": (114, 9, 183),
    "pink": (255, 143, 199),
    "black": (17, 17, 17),
}
_WHITE = (255, 255, 255)
_SIZES_PX = (16, 1024)
_MARGIN = 1 / 16  # of the picture's side, around the box that the font draws in
# a glyph of which more than this share is nearly the colour of its background would hardly be seen
_MAX_HIDDEN_SHARE = 0.25
_NEAR = 80  # distance of two colours, the largest of the three channels, out of 255


_FAILED = "the emoji pictures cannot be made"


def write(
    directory: str | Path,
    *,
    count: int | None = None,
    size_px: int = 128,
    languages: Sequence[str] = ("en", "pt", "zh"),
    edits: int = 0,
    font: Path | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> PictureSetSummary:
    """Write the pictures and their captions into a folder, which appears complete or not at all.

    Args:
        directory: New or empty, or written by this command and unchanged since; then it is replaced, or left alone
            where it already is what is asked for.
        count: How many emoji, the most ordinary first; without it, all that the font draws.
        size_px: Side of the pictures; the packed font's bitmaps have 128 px, so that larger ones are softer.
        languages: Of the captions, out of `en`, `pt`, `zh`; the first one is `text`.
        edits: Coloured backgrounds for each emoji, each a picture of its own and the target of an edit; at most 8.
        font: A colour font with bitmaps; without it, the packed one.
        seed: Chooses the colours.

    Raises:
        DataError: An argument out of range, a font or folder that cannot be used, or the extra `data` not installed.
    """
    check_range(_FAILED, "edits", edits, 0, len(COLORS))
    check_range(_FAILED, "size_px", size_px, *_SIZES_PX)
    if count is not None:
        check_range(_FAILED, "count", count, 1)
    glyphs, names = font_and_names(_FAILED, font, languages)
    recipe = {
        "count": count,
        "size_px": size_px,
        "languages": list(languages),
        "edits": edits,
        "seed": seed,
        "font_sha256": glyphs.sha256,
    }

    def fill(pictures: PictureSet) -> dict[str, int]:
        drawn, num_left_out = _choose(names, glyphs, count)
        for done, emoji in enumerate(drawn, start=1):
            _write_emoji(pictures, emoji, glyphs.drawn(emoji.text), size_px, edits, seed)
            if progress:
                progress(done, len(drawn))
        return {"num_emoji": len(drawn), "num_left_out": num_left_out, **pictures.counts}

    return write_set(directory, "emoji", recipe, fill)


def font_and_names(failed: str, font: Path | None, languages: Sequence[str]) -> tuple[ColorFont, list[Emoji]]:
    """Return a colour font (None is the packed one) and the emoji there are, with their names.

    Raises:
        DataError: The font cannot be used, a language is not known, or the extra `data` is not installed, which is said
            to have `failed`.
    """
    require("data", "emoji", "uharfbuzz", failed=failed, error=DataError)
    names = catalogue(languages)
    return ColorFont(font), names


def compose(glyph: Image.Image, size_px: int, background: tuple[int, int, int]) -> Image.Image:
    """Return an RGBA glyph on a square RGB background: its box scaled to fit within the margin, what it draws centred.

    The box, not the drawing, sets the scale, so that a small square stays smaller than a large one.
    """
    scale = size_px * (1 - 2 * _MARGIN) / max(glyph.size)
    width, height = (max(1, round(side * scale)) for side in glyph.size)
    # Pillow weighs colours by their opacity here, so that no dark rim appears
    scaled = glyph.resize((width, height), Image.Resampling.LANCZOS)
    left, top, right, bottom = scaled.getchannel("A").getbbox() or (0, 0, width, height)
    canvas = Image.new("RGBA", (size_px, size_px), (*background, 255))
    drawing = scaled.crop((left, top, right, bottom))
    canvas.alpha_composite(drawing, ((size_px - drawing.width) // 2, (size_px - drawing.height) // 2))
    return canvas.convert("RGB")


def hidden_share(glyph: Image.Image, color: tuple[int, int, int]) -> float:
    """Return the share, in [0, 1], of an RGBA glyph's solid pixels that are nearly of a colour."""
    pixels = np.asarray(glyph.resize((32, 32), Image.Resampling.NEAREST), np.int16)  # a share needs no more
    solid = pixels[pixels[..., 3] >= 128][:, :3]
    if not len(solid):
        return 1.0
    return float((np.abs(solid - np.array(color, np.int16)).max(axis=1) < _NEAR).mean())


def is_seen(glyph: Image.Image, color: tuple[int, int, int]) -> bool:
    """Say whether an RGBA glyph can be seen on a colour."""
    return hidden_share(glyph, color) <= _MAX_HIDDEN_SHARE


def _choose(names: list[Emoji], glyphs: ColorFont, count: int | None) -> tuple[list[Emoji], int]:
    """Return the first `count` emoji that the font draws, and how many were passed over because it does not."""
    drawn: list[Emoji] = []
    num_left_out = 0
    for emoji in names:
        if len(drawn) == count:
            break
        if glyphs.picture(emoji.text) is None:
            num_left_out += 1
        else:
            drawn.append(emoji)
    if len(drawn) < (count or 1):
        raise DataError(
            _FAILED,
            f"{count or 'some'} are wanted, and the font draws {len(drawn)} of {len(names)}",
            "ask for fewer, or name another font",
        )
    return drawn, num_left_out


def _write_emoji(pictures: PictureSet, emoji: Emoji, glyph: Image.Image, size_px: int, edits: int, seed: int) -> None:
    """Write the pictures of an emoji and its rows: plain, then for each colour plain and as an edit."""
    white = pictures.save(emoji.stem, compose(glyph, size_px, _WHITE))
    pictures.rows.append(_row(white, emoji.names, emoji))
    for color in colors_of(glyph, emoji, seed)[:edits] if edits else ():
        target = pictures.save(f"{emoji.stem}-{color}", compose(glyph, size_px, COLORS[color]))
        described = {language: LANGUAGES[language].describe(name, color) for language, name in emoji.names.items()}
        instructed = {language: LANGUAGES[language].instruct(color) for language in emoji.names}
        pictures.rows.append(_row(target, described, emoji))
        pictures.rows.append(_row(target, instructed, emoji) | {"references": [white]})


def colors_of(glyph: Image.Image, emoji: Emoji, seed: int) -> list[str]:
    """Return all colours in an order of this emoji's own, those that would hide it last."""
    # a digest, not a random generator: the same on every machine and whatever else is chosen before
    lots = {color: hashlib.sha256(f"{seed} {emoji.stem} {color}".encode()).digest() for color in COLORS}
    hides = {color: not is_seen(glyph, rgb) for color, rgb in COLORS.items()}
    return sorted(COLORS, key=lambda color: (hides[color], lots[color]))


def _row(file_name: str, texts: dict[str, str], emoji: Emoji) -> Row:
    return {"file_name": file_name, "text": next(iter(texts.values())), "texts": texts, "emoji": emoji.text}
