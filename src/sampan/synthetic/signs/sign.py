"""What a sign is: all that a picture of one shows, as a value. Two signs that are equal are the same picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sampan.synthetic import text_rendering
from sampan.synthetic.signs.colors import COLORS, readable_on
from sampan.synthetic.signs.drawing import Box, Canvas

LEAST_CAPITAL = 0.07  # of the picture's side: 9 px of 128
_MEASURED_AT_PX = 256


@dataclass(frozen=True)
class Sign:
    """A sign.

    Args:
        layout: Name in LAYOUTS of `sampan.synthetic.signs.layouts`.
        plate, ink: Names in COLORS: of what is written on, and of the letters.
        font: Name in text_rendering.FONTS.
        lines: What is written, from above.
        scene: Name in SCENES: what it stands in front of.
        is_mirrored: It points or leans the other way.
        variant: Key of everything else that differs from picture to picture.
    """

    layout: str
    plate: str
    ink: str
    font: str
    lines: tuple[str, ...]
    scene: str
    is_mirrored: bool
    variant: int


@dataclass(frozen=True)
class TextPlace:
    """Where lines are written: as large as the box allows, a capital at most `most` high, in shares of the side."""

    lines: Sequence[str]
    box: Box
    most: float = 0.3


def write_all(canvas: Canvas, sign: Sign, places: Sequence[TextPlace]) -> None:
    """Write a sign's letters where they stand."""
    for place in places:
        canvas.write(place.lines, sign.font, place.box, place.most, COLORS[sign.ink])


@dataclass(frozen=True)
class SignLayout:
    """A kind of sign.

    Args:
        paint: Draws the sign, without its letters, over its scenery.
        places: Says where its letters stand.
        nouns: What it is called; the colour goes where `{plate}` is, or `{a_plate}` with an article before it.
        thing: What an instruction calls that which has the plate's colour.
        plates, inks: Colours it comes in; letters are of those among `inks` that can be read on the plate.
        write: Writes its letters where they stand; None where `paint` has done so, on a layer that it turned.
        most_letters: In a line.
        capitals: It is written in capitals only.
        asked_in_any_case: A caption may quote its words in small letters too; they are drawn in capitals all the same.
        shares_colors: Training shows it in all of its colours; only words and fonts are kept for the test.
        name: What it is called in a word or two, where that is not `thing`.
    """

    paint: Callable[[Canvas, Sign, np.random.Generator], None]
    places: Callable[[Sign], list[TextPlace]]
    nouns: tuple[str, ...]
    thing: str
    scenes: tuple[str, ...]
    plates: tuple[str, ...] = tuple(COLORS)
    inks: tuple[str, ...] = tuple(COLORS)
    write: Callable[[Canvas, Sign, Sequence[TextPlace]], None] | None = write_all
    num_lines: tuple[int, int] = (1, 2)
    most_letters: int = 10
    capitals: bool = False
    asked_in_any_case: bool = False
    shares_colors: bool = False
    name: str = ""

    def compositions(self) -> list[tuple[str, str]]:
        """Return all pairs of colours it comes in: plate and letters."""
        return [(plate, ink) for plate in self.plates for ink in readable_on(plate) if ink in self.inks]


def in_box(
    left: float, top: float, right: float, bottom: float, most: float = 0.3
) -> Callable[[Sign], list[TextPlace]]:
    """Return the places of a layout that writes all of its lines in one box."""
    return lambda sign: [TextPlace(sign.lines, (left, top, right, bottom), most)]


def least_capital(sign: Sign, layout: SignLayout) -> float:
    """Return the height of a capital where the letters are smallest, as a share of the side; the same at every size."""
    heights = []
    for place in layout.places(sign):
        left, top, right, bottom = (value * _MEASURED_AT_PX for value in place.box)
        block = text_rendering.fit(place.lines, sign.font, right - left, bottom - top, place.most * _MEASURED_AT_PX)
        heights.append(block.capital_px / _MEASURED_AT_PX)
    return min(heights)
