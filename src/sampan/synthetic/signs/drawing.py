"""A square picture that is drawn in shares of its side, twice as fine as it will be, with letters set into boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFilter

from sampan.synthetic import text_rendering
from sampan.synthetic.signs.colors import RGB

FINER = 2
# A placard is lettered as a letter board is: each letter in the middle of a cell, eight cells across.
CELLS = 8
CELL_HEIGHT = 0.25  # of the side: room for a capital with an accent above it and a tail below
CELL_CAPITAL = 0.155  # a capital's greatest height
_BASELINE = 0.8  # of a cell's height, from above
_BOLDER = 256  # parts of the side: by one of them strokes grow on either side
_CELL_SHARE = 0.92  # of a cell's width that a letter may take
Box = tuple[float, float, float, float]  # left, top, right, bottom, in shares of the side
Points = Sequence[tuple[float, float]]


class Canvas:
    """A picture under way. Colours are RGB; a layer also has places with nothing on them."""

    def __init__(self, side_px: int, fill: RGB | None = (255, 255, 255)):
        self.side_px = side_px
        self.image = Image.new("RGBA" if fill is None else "RGB", (side_px, side_px), fill or (0, 0, 0, 0))
        self.drawing = ImageDraw.Draw(self.image)

    def layer(self) -> Canvas:
        """Return an empty picture of the same size, to be laid over this one."""
        return Canvas(self.side_px, None)

    def lay(self, layer: Canvas, angle: float = 0.0) -> None:
        """Lay a layer over the picture, turned about the middle by an angle in degrees, against the clock."""
        over = layer.image.rotate(angle, Image.Resampling.BILINEAR) if angle else layer.image
        self.image.paste(over, (0, 0), over)

    def rectangle(
        self, box: Box, fill: RGB | None, radius: float = 0.0, edge: RGB | None = None, width: float = 0.0
    ) -> None:
        """Draw a rectangle, with rounded corners where it has a radius, and its edge on the inside."""
        place = [value * self.side_px for value in box]
        line = max(1, round(width * self.side_px))
        if radius:
            self.drawing.rounded_rectangle(place, radius * self.side_px, fill, edge, line)
        else:
            self.drawing.rectangle(place, fill, edge, line)

    def ellipse(self, box: Box, fill: RGB | None, edge: RGB | None = None, width: float = 0.0) -> None:
        """Draw an ellipse within a box."""
        line = max(1, round(width * self.side_px))
        self.drawing.ellipse([value * self.side_px for value in box], fill, edge, line)

    def disc(self, x: float, y: float, radius: float, fill: RGB) -> None:
        """Draw a filled circle."""
        self.ellipse((x - radius, y - radius, x + radius, y + radius), fill)

    def polygon(self, points: Points, fill: RGB) -> None:
        """Draw a filled polygon."""
        self.drawing.polygon([(x * self.side_px, y * self.side_px) for x, y in points], fill)

    def line(self, points: Points, fill: RGB, width: float) -> None:
        """Draw a line through points."""
        places = [(x * self.side_px, y * self.side_px) for x, y in points]
        self.drawing.line(places, fill, max(1, round(width * self.side_px)), joint="curve")

    def write(self, lines: Sequence[str], font: str, box: Box, most: float, fill: RGB) -> None:
        """Write lines as large as a box allows, in its middle; `most` is a capital's greatest height."""
        block, left, top = self._set(lines, font, box, most)
        block.draw(self.drawing, left, top, fill)

    def write_cells(self, line: str, font: str, rows: tuple[float, float], fill: RGB) -> None:
        """Write a line letter by letter, each in the middle of its cell; `rows`: where cells begin and end, from above."""
        top, height = rows[0] * self.side_px, (rows[1] - rows[0]) * self.side_px
        width = self.side_px / CELLS
        size_px = _cell_size(font, round(CELL_CAPITAL * self.side_px), round(_CELL_SHARE * width))
        left = cells_box(len(line))[0] * self.side_px
        for place, letter in enumerate(line):
            ink_left, _, ink_right, _ = text_rendering.ink_box(letter, font, size_px)
            x = left + (place + 0.5) * width - (ink_left + ink_right) / 2
            face, foot = text_rendering.face(font, size_px), round(top + _BASELINE * height)
            bolder = self.side_px // _BOLDER
            self.drawing.text((round(x), foot), letter, fill, face, "ls", stroke_width=bolder, stroke_fill=fill)

    def glow(self, lines: Sequence[str], font: str, box: Box, most: float, fill: RGB, strength: float) -> None:
        """Shine around what `write` would write there."""
        block, left, top = self._set(lines, font, box, most)
        mask = Image.new("L", self.image.size)
        block.draw(ImageDraw.Draw(mask), left, top, 255)
        small = mask.reduce(4).filter(ImageFilter.GaussianBlur(self.side_px / 4 / 32))
        light = small.resize(mask.size, Image.Resampling.BILINEAR).point(lambda value: value * strength)
        self.image.paste(fill, (0, 0), light)

    def write_around(
        self, text: str, font: str, centre: tuple[float, float], radius: float, box: Box, most: float, fill: RGB
    ) -> None:
        """Write a line on a circle, letter by letter, its middle at the top.

        Args:
            radius: Of the circle that the baseline bends to.
            box: Only its width and height are used: of the line before it is bent.
        """
        block, _, _ = self._set([text], font, box, most)
        face, radius_px = text_rendering.face(font, block.size_px), radius * self.side_px
        widths = [face.getlength(letter) for letter in text]
        at = -sum(widths) / 2
        for letter, width in zip(text, widths, strict=True):
            turn = (at + width / 2) / radius_px
            at += width
            left, top, right, bottom = text_rendering.ink_box(letter, font, block.size_px)
            if right <= left:
                continue
            half = math.ceil(max(right, -top, bottom, width)) + 2  # the letter's foot is the middle of a square
            mask = Image.new("L", (2 * half, 2 * half))
            ImageDraw.Draw(mask).text((half - width / 2, half), letter, 255, face, anchor="ls")
            mask = mask.rotate(-math.degrees(turn), Image.Resampling.BICUBIC)
            x = centre[0] * self.side_px + radius_px * math.sin(turn)
            y = centre[1] * self.side_px - radius_px * math.cos(turn)
            self.image.paste(fill, (round(x) - half, round(y) - half), mask)

    def _set(
        self, lines: Sequence[str], font: str, box: Box, most: float
    ) -> tuple[text_rendering.TextBlock, float, float]:
        left, top, right, bottom = (value * self.side_px for value in box)
        block = text_rendering.fit(lines, font, right - left, bottom - top, most * self.side_px)
        return block, (left + right - block.width_px) / 2, (top + bottom - block.height_px) / 2

    def finish(self) -> Image.Image:
        """Return the picture at its own size."""
        return self.image.reduce(FINER)


def cells_box(num_letters: int) -> tuple[float, float]:
    """Return where a line of cells begins and ends, in shares of the side: whole cells, an odd one left over to the right."""
    first = max(0, CELLS - num_letters) // 2
    return first / CELLS, min(1.0, (first + num_letters) / CELLS)


@lru_cache(maxsize=256)
def _cell_size(font: str, capital_px: int, width_px: int) -> int:
    """Return the size at which a capital is as high as allowed and the widest letter fits into a cell."""
    size_px = 1
    while (
        text_rendering.capital_px(font, size_px + 1) <= capital_px
        and (box := text_rendering.ink_box("W", font, size_px + 1))[2] - box[0] <= width_px
    ):
        size_px += 1
    return size_px
