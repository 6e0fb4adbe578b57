"""Colours of plates and letters, and which of them can be read on each other."""

from __future__ import annotations

from functools import lru_cache

RGB = tuple[int, int, int]

COLORS: dict[str, RGB] = {
    "white": (250, 250, 247),
    "cream": (248, 236, 205),
    "grey": (203, 207, 211),
    "yellow": (255, 212, 32),
    "orange": (244, 128, 26),
    "red": (196, 30, 38),
    "pink": (255, 172, 200),
    "purple": (96, 36, 142),
    "light blue": (168, 214, 246),
    "blue": (26, 82, 184),
    "navy": (18, 30, 74),
    "teal": (0, 104, 110),
    "light green": (184, 230, 158),
    "green": (18, 106, 58),
    "brown": (104, 62, 32),
    "dark grey": (56, 60, 68),
    "black": (16, 16, 18),
}
DARK = ("red", "purple", "blue", "navy", "teal", "green", "brown", "dark grey", "black")
LEAST_CONTRAST = 4.5  # WCAG 2.2, success criterion 1.4.3, level AA


def luminance(color: RGB) -> float:
    """Return the relative luminance, in [0, 1], of an sRGB colour. Source: WCAG 2.2, definition of the term."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: RGB, other: RGB) -> float:
    """Return the contrast ratio of two colours, from 1 to 21. Source: WCAG 2.2, definition of the term."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@lru_cache(maxsize=len(COLORS))
def readable_on(plate: str) -> tuple[str, ...]:
    """Return the names of the colours in which letters can be read on a plate."""
    return tuple(name for name in COLORS if contrast(COLORS[name], COLORS[plate]) >= LEAST_CONTRAST)


def mix(one: RGB, other: RGB, share: float) -> RGB:
    """Return a colour between two: 0 is the one, 1 the other."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue
