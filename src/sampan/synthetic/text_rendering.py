"""Words as pictures: the fonts that the package carries, and lines of text set in them with measured boxes.

What is measured is ink, not the font's own line height: a block of lines that fits into a box lies in it with every
accent and descender. Pillow's basic layout is used, which needs no library that a platform may lack.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

from PIL import Image, ImageDraw, ImageFont

_LINE_GAP = 0.32  # between the ink of two lines, of a capital's height
_MEASURED_AT_PX = 100  # large enough that the size which fits is guessed to a pixel or two


@dataclass(frozen=True)
class PackedFont:
    """A font of the package.

    Args:
        style: What a person would call its letters.
        is_held_out: No training picture is drawn with it.
        has_plain_capitals: A word in capitals reads as well as any other. Those of scripts are made to begin a word.
    """

    file: str
    style: str
    is_held_out: bool = False
    has_plain_capitals: bool = True


FONTS = {
    "open-sans": PackedFont("OpenSans.ttf", "sans-serif"),
    "bodoni-moda": PackedFont("BodoniModa.ttf", "serif"),
    "zilla-slab": PackedFont("ZillaSlab.ttf", "slab serif"),
    "jetbrains-mono": PackedFont("JetBrainsMono.ttf", "monospaced"),
    "pacifico": PackedFont("Pacifico.ttf", "brush script", has_plain_capitals=False),
    "patrick-hand": PackedFont("PatrickHand.ttf", "handwritten"),
    "oswald": PackedFont("Oswald.ttf", "narrow"),
    "archivo-black": PackedFont("ArchivoBlack.ttf", "heavy"),
    "saira-stencil": PackedFont("SairaStencilOne.ttf", "stencil"),
    "grenze-gotisch": PackedFont("GrenzeGotisch.ttf", "blackletter", has_plain_capitals=False),
    "courier-prime": PackedFont("CourierPrime.ttf", "monospaced", is_held_out=True),
    "eb-garamond": PackedFont("EBGaramond.ttf", "serif", is_held_out=True),
}
TRAIN_FONTS = tuple(name for name, font in FONTS.items() if not font.is_held_out)
HELD_OUT_FONTS = tuple(name for name, font in FONTS.items() if font.is_held_out)
# Latin-1 and Latin Extended-A without the few signs that one of the fonts lacks
ALPHABET = frozenset(
    {chr(code) for code in (*range(0x20, 0x7F), *range(0xA1, 0x180))} - set("\xadµĲĳĸŉſ") | set("ȘșȚț–—’“”€")
)


@dataclass(frozen=True)
class TextLine:
    """A line where it stands in its block.

    Args:
        left_px, baseline_px: Where the pen starts.
        box: Its ink: left, top, right, bottom, in px.
    """

    text: str
    left_px: float
    baseline_px: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class TextBlock:
    """Lines of one size, one below the other, their ink centred on each other; (0, 0) is the block's upper left corner."""

    font: str
    size_px: int
    lines: tuple[TextLine, ...]
    width_px: float
    height_px: float

    @property
    def capital_px(self) -> float:
        """Height of a capital H: how large the letters look."""
        return capital_px(self.font, self.size_px)

    def draw(self, drawing: Any, left_px: float, top_px: float, fill: Any) -> None:
        """Draw on an ImageDraw, the block's corner at (left_px, top_px)."""
        for line in self.lines:
            place = (left_px + line.left_px, top_px + line.baseline_px)
            drawing.text(place, line.text, fill=fill, font=face(self.font, self.size_px), anchor="ls")


@lru_cache(maxsize=1024)
def face(font: str, size_px: int) -> Any:
    """Return a font of FONTS at a size, as Pillow draws with it."""
    return ImageFont.truetype(io.BytesIO(_content(font)), size_px, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=len(FONTS))
def _content(font: str) -> bytes:
    return (resources.files("sampan.synthetic") / "fonts" / FONTS[font].file).read_bytes()


def sha256() -> str:
    """Return one digest of all fonts: other fonts make other pictures."""
    return hashlib.sha256(b"".join(map(_content, FONTS))).hexdigest()


def ink_box(text: str, font: str, size_px: int) -> tuple[float, float, float, float]:
    """Return the ink of a line in px: left, top, right, bottom, from the pen's start on the baseline, y downward."""
    return face(font, size_px).getbbox(text, anchor="ls")


@lru_cache(maxsize=1024)
def capital_px(font: str, size_px: int) -> float:
    """Return the height of a capital H."""
    return -ink_box("H", font, size_px)[1]


def fit(lines: Sequence[str], font: str, width_px: float, height_px: float, most_px: float) -> TextBlock:
    """Set lines as large as a box allows.

    Args:
        width_px, height_px: Of the box; the block is no larger, unless letters of 1 px would be.
        most_px: Greatest height of a capital.
    """
    large = set_lines(lines, font, _MEASURED_AT_PX)
    scale = min(width_px / large.width_px, height_px / large.height_px, most_px / large.capital_px)
    size_px = max(1, round(scale * _MEASURED_AT_PX))
    block = set_lines(lines, font, size_px)
    # hints and whole pixels: a size that should fit by proportion may be a pixel too wide
    while size_px > 1 and (block.width_px > width_px or block.height_px > height_px or block.capital_px > most_px):
        size_px -= 1
        block = set_lines(lines, font, size_px)
    return block


def set_lines(lines: Sequence[str], font: str, size_px: int) -> TextBlock:
    """Set lines at a size. A line is at least as high as a capital, so that small letters stand as in a text."""
    capital = capital_px(font, size_px)
    boxes = [ink_box(line, font, size_px) for line in lines]
    width = max(right - left for left, _, right, _ in boxes)
    placed: list[TextLine] = []
    top = 0.0
    for text, (left, ascent, right, descent) in zip(lines, boxes, strict=True):
        baseline = top + max(-ascent, capital)
        start = (width - (right - left)) / 2 - left
        ink = (start + left, baseline + ascent, start + right, baseline + descent)
        placed.append(TextLine(text, start, baseline, ink))
        top = baseline + max(descent, 0) + _LINE_GAP * capital
    return TextBlock(font, size_px, tuple(placed), width, top - _LINE_GAP * capital)


def picture(text: str, font: str, size_px: int) -> Image.Image:
    """Return a line as a grey picture, white on black, cut to its ink."""
    block = set_lines([text], font, size_px)
    left, top, right, bottom = block.lines[0].box
    image = Image.new("L", (max(1, round(right - left)), max(1, round(bottom - top))))
    block.draw(ImageDraw.Draw(image), -left, -top, 255)
    return image
