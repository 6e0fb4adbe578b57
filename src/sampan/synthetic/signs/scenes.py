"""What a sign stands in front of: simple scenery, drawn without any letters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from sampan.synthetic.signs.colors import RGB, mix
from sampan.synthetic.signs.drawing import Canvas

Kind = TypeVar("Kind")
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def one_of(random: np.random.Generator, options: Sequence[Kind]) -> Kind:
    """Return one of several things."""
    return options[int(random.integers(len(options)))]


def field(canvas: Canvas, random: np.random.Generator) -> None:
    """Draw a meadow under a blue sky, with a cloud or two."""
    _sky(canvas, random)
    far, near = (118, 176, 92), (96, 158, 70)
    x = float(random.uniform(0.1, 0.9))
    canvas.ellipse((x - 0.7, 0.6, x + 0.5, 1.4), far)
    canvas.ellipse((-0.5, 0.74, 1.5, 1.6), near)


def mountains(canvas: Canvas, random: np.random.Generator) -> None:
    """Draw snowy mountains behind a meadow."""
    _sky(canvas, random)
    for x in (0.18, 0.55, 0.88):
        x, top = x + float(random.uniform(-0.06, 0.06)), float(random.uniform(0.3, 0.45))
        canvas.polygon([(x - 0.35, 0.8), (x, top), (x + 0.35, 0.8)], (112, 124, 146))
        canvas.polygon([(x - 0.07, top + 0.1), (x, top), (x + 0.07, top + 0.1)], (240, 244, 250))
    canvas.rectangle((0, 0.76, 1, 1), (104, 160, 84))


def beach(canvas: Canvas, random: np.random.Generator) -> None:
    """Draw sand, sea and sun."""
    canvas.rectangle((0, 0, 1, 1), (176, 222, 244))
    x = float(random.uniform(0.12, 0.88))
    canvas.disc(x, 0.13, 0.07, (255, 224, 112))
    canvas.rectangle((0, 0.5, 1, 0.7), (64, 148, 188))
    for y in (0.55, 0.6, 0.65):
        canvas.line([(0, y), (1, y)], (96, 172, 206), 0.008)
    canvas.rectangle((0, 0.68, 1, 1), (234, 212, 160))


def street(canvas: Canvas, random: np.random.Generator) -> None:
    """Draw houses along a street."""
    canvas.rectangle((0, 0, 1, 1), (204, 226, 240))
    fronts = ((206, 150, 120), (222, 196, 150), (160, 172, 186), (190, 128, 128), (168, 188, 156))
    left = -float(random.uniform(0, 0.15))
    while left < 1:
        width, top = float(random.uniform(0.2, 0.32)), float(random.uniform(0.2, 0.5))
        front = one_of(random, fronts)
        canvas.rectangle((left, top, left + width, 0.9), front)
        for x in np.arange(left + 0.05, left + width - 0.06, 0.09):
            for y in np.arange(top + 0.05, 0.78, 0.13):
                canvas.rectangle((float(x), float(y), float(x) + 0.045, float(y) + 0.07), mix(front, _BLACK, 0.35))
        left += width
    canvas.rectangle((0, 0.86, 1, 1), (120, 122, 126))
    canvas.rectangle((0, 0.85, 1, 0.875), (176, 176, 174))


def bricks(canvas: Canvas, random: np.random.Generator) -> None:
    """Draw a brick wall."""
    _courses(canvas, random, (170, 92, 70), (206, 190, 176))


def dark_bricks(canvas: Canvas, random: np.random.Generator, color: RGB) -> None:
    """Draw a brick wall in a colour of night."""
    _courses(canvas, random, color, mix(color, _WHITE, 0.07))


def planks(canvas: Canvas, random: np.random.Generator) -> None:
    """Draw a wall of wooden planks."""
    base = one_of(random, ((178, 134, 88), (156, 112, 72), (196, 160, 116)))
    for row in range(8):
        shade = mix(base, _BLACK, float(random.uniform(0, 0.14)))
        canvas.rectangle((0, row / 8, 1, (row + 1) / 8), shade)
        canvas.line([(0, row / 8), (1, row / 8)], mix(base, _BLACK, 0.4), 0.008)
        x = float(random.uniform(0.05, 0.95))
        canvas.line([(x, row / 8), (x, (row + 1) / 8)], mix(base, _BLACK, 0.4), 0.006)


def plaster(canvas: Canvas, random: np.random.Generator) -> None:
    """Draw a plain wall with a few cracks."""
    base = one_of(random, ((226, 220, 206), (200, 214, 220), (222, 200, 180), (206, 216, 196)))
    canvas.rectangle((0, 0, 1, 1), base)
    for _ in range(3):
        x, y = (float(random.uniform(0, 1)) for _ in range(2))
        steps = [(x + float(random.uniform(-0.06, 0.06)), y + k * 0.05) for k in range(4)]
        canvas.line(steps, mix(base, _BLACK, 0.18), 0.005)


def room(canvas: Canvas, random: np.random.Generator) -> None:
    """Draw the wall and the floor of a room."""
    wall = one_of(random, ((214, 222, 228), (232, 222, 200), (206, 220, 204), (228, 208, 208)))
    canvas.rectangle((0, 0, 1, 1), wall)
    for x in np.arange(0.05, 1, 0.1):
        canvas.line([(float(x), 0), (float(x), 0.86)], mix(wall, _BLACK, 0.05), 0.01)
    canvas.rectangle((0, 0.9, 1, 1), (160, 120, 84))
    canvas.rectangle((0, 0.87, 1, 0.905), mix(wall, _WHITE, 0.6))


def table(canvas: Canvas, random: np.random.Generator) -> None:
    """Draw the top of a wooden table, seen from above."""
    base = one_of(random, ((190, 146, 100), (150, 106, 70), (210, 178, 134)))
    canvas.rectangle((0, 0, 1, 1), base)
    for _ in range(9):
        y, bend = float(random.uniform(0, 1)), float(random.uniform(-0.03, 0.03))
        canvas.line([(0, y), (0.5, y + bend), (1, y)], mix(base, _BLACK, 0.12), 0.006)


def plain(canvas: Canvas, random: np.random.Generator) -> None:
    """Draw one pale colour."""
    canvas.rectangle((0, 0, 1, 1), _pale(random))


def dots(canvas: Canvas, random: np.random.Generator) -> None:
    """Draw a pale ground with dots."""
    ground = _pale(random)
    canvas.rectangle((0, 0, 1, 1), ground)
    for row in range(8):
        for column in range(8):
            canvas.disc((column + 0.25 + 0.5 * (row % 2)) / 8, (row + 0.5) / 8, 0.022, mix(ground, _BLACK, 0.13))


def stripes(canvas: Canvas, random: np.random.Generator) -> None:
    """Draw a pale ground with upright stripes."""
    ground = _pale(random)
    canvas.rectangle((0, 0, 1, 1), ground)
    for column in range(0, 10, 2):
        canvas.rectangle((column / 10, 0, (column + 1) / 10, 1), mix(ground, _BLACK, 0.09))


# name: how to draw it, and what a caption says of it
SCENES: dict[str, tuple[Callable[[Canvas, np.random.Generator], None], tuple[str, ...]]] = {
    "field": (field, ("in a green field under a blue sky", "on a meadow")),
    "mountains": (mountains, ("in front of snowy mountains", "with mountains behind it")),
    "beach": (beach, ("on a beach", "at the seaside")),
    "street": (street, ("in a street with houses", "in a town")),
    "bricks": (bricks, ("on a brick wall", "in front of red bricks")),
    "planks": (planks, ("on a wall of wooden planks", "in front of wooden boards")),
    "plaster": (plaster, ("on a plain wall", "on an old plastered wall")),
    "room": (room, ("in a room", "indoors, on the wall of a room")),
    "table": (table, ("on a wooden table", "seen from above on a wooden table")),
    "plain": (plain, ("on a plain background", "with nothing behind it")),
    "dots": (dots, ("on a dotted background", "with a pattern of dots behind it")),
    "stripes": (stripes, ("on a striped background", "with stripes behind it")),
}


def _sky(canvas: Canvas, random: np.random.Generator) -> None:
    sky = one_of(random, ((150, 204, 240), (178, 218, 242), (132, 190, 232)))
    canvas.rectangle((0, 0, 1, 1), sky)
    for _ in range(2):
        x, y = float(random.uniform(0.05, 0.95)), float(random.uniform(0.04, 0.2))
        for shift, radius in ((-0.06, 0.035), (0, 0.05), (0.06, 0.035)):
            canvas.disc(x + shift, y, radius, (246, 250, 253))


def _courses(canvas: Canvas, random: np.random.Generator, brick: RGB, joint: RGB) -> None:
    canvas.rectangle((0, 0, 1, 1), joint)
    for row in range(12):
        for column in range(-1, 6):
            left, top = (column + 0.5 * (row % 2)) / 5.5, row / 12
            shade = mix(brick, _BLACK, float(random.uniform(0, 0.16)))
            canvas.rectangle((left + 0.006, top + 0.006, left + 0.174, top + 0.076), shade)


def _pale(random: np.random.Generator) -> RGB:
    return one_of(
        random, ((240, 236, 226), (216, 232, 242), (242, 220, 222), (222, 238, 214), (236, 224, 244), (250, 236, 196))
    )
