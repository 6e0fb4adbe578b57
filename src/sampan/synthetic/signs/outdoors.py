"""Signs that stand or hang outside: boards, road signs, fronts of shops, neon."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from sampan.synthetic.signs import scenes
from sampan.synthetic.signs.colors import COLORS, DARK, mix
from sampan.synthetic.signs.drawing import CELL_CAPITAL, CELL_HEIGHT, CELLS, Box, Canvas, cells_box
from sampan.synthetic.signs.scenes import one_of
from sampan.synthetic.signs.sign import Sign, SignLayout, TextPlace, in_box, write_all

_STEEL, _WOOD, _IRON = (128, 134, 142), (122, 84, 50), (44, 44, 48)
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_OUTSIDE = ("field", "mountains", "beach", "street")
_WALLS = ("bricks", "planks", "plaster")
_NIGHT = ("black", "navy", "dark grey", "purple", "brown", "teal")
_SHINING = ("white", "yellow", "orange", "pink", "light blue", "light green")


def _board(canvas: Canvas, sign: Sign, random: np.random.Generator) -> None:
    post = one_of(random, (_WOOD, _STEEL, (92, 64, 40)))
    for x in (0.22, 0.74):
        canvas.rectangle((x, 0.5, x + 0.05, 0.96), post)
    _plate(canvas, sign, (0.06, 0.16, 0.94, 0.64), radius=0.02)


def _placard(canvas: Canvas, sign: Sign, random: np.random.Generator) -> None:
    canvas.rectangle((0, 0, 1, 1), COLORS[sign.plate])  # no rim, no scenery: nothing but the words


def _write_cells(canvas: Canvas, sign: Sign, places: Sequence[TextPlace]) -> None:
    for place in places:
        (line,), (_, top, _, bottom) = place.lines, place.box
        canvas.write_cells(line, sign.font, (top, bottom), COLORS[sign.ink])


def _placard_places(sign: Sign) -> list[TextPlace]:
    """Return the rows of cells that the lines take, one above the other around the middle."""
    first = 0.5 - len(sign.lines) * CELL_HEIGHT / 2
    tops = [first + row * CELL_HEIGHT for row in range(len(sign.lines))]
    sides = [cells_box(len(line)) for line in sign.lines]
    return [
        TextPlace([line], (left, top, right, top + CELL_HEIGHT), CELL_CAPITAL)
        for line, top, (left, right) in zip(sign.lines, tops, sides, strict=True)
    ]


def _plaque(canvas: Canvas, sign: Sign, random: np.random.Generator) -> None:
    _shadow(canvas, (0.05, 0.22, 0.95, 0.78), 0.1)
    _plate(canvas, sign, (0.05, 0.22, 0.95, 0.78), radius=0.1, inset=0.03)
    for x in (0.11, 0.89):
        canvas.disc(x, 0.5, 0.016, (216, 216, 210))
        canvas.disc(x, 0.5, 0.007, (110, 110, 108))


def _octagon(canvas: Canvas, sign: Sign, random: np.random.Generator) -> None:
    canvas.rectangle((0.475, 0.6, 0.525, 1), _STEEL)
    for radius, color in ((0.44, mix(COLORS[sign.plate], _BLACK, 0.35)), (0.43, COLORS[sign.ink])):
        canvas.polygon(_corners(0.5, 0.45, radius, 8, math.pi / 8), color)
    canvas.polygon(_corners(0.5, 0.45, 0.4, 8, math.pi / 8), COLORS[sign.plate])


def _diamond(canvas: Canvas, sign: Sign, random: np.random.Generator) -> None:
    canvas.rectangle((0.475, 0.8, 0.525, 1), _STEEL)
    for radius, color in ((0.475, COLORS[sign.plate]), (0.45, COLORS[sign.ink]), (0.425, COLORS[sign.plate])):
        canvas.polygon(_corners(0.5, 0.48, radius, 4, 0), color)


def _arrow(canvas: Canvas, sign: Sign, random: np.random.Generator) -> None:
    canvas.rectangle((0.47, 0.1, 0.53, 0.98), one_of(random, (_WOOD, _STEEL)))
    for grow, color in ((0.0, mix(COLORS[sign.plate], _BLACK, 0.45)), (0.012, COLORS[sign.plate])):
        left, right, top, bottom = 0.04 + grow, 0.78, 0.22 + grow, 0.58 - grow
        tip = 0.97 - 1.4 * grow
        points = [(left, top), (right, top), (tip, (top + bottom) / 2), (right, bottom), (left, bottom)]
        canvas.polygon([(1 - x, y) if sign.is_mirrored else (x, y) for x, y in points], color)


def _arrow_places(sign: Sign) -> list[TextPlace]:
    box = (0.2, 0.26, 0.92, 0.54) if sign.is_mirrored else (0.08, 0.26, 0.8, 0.54)
    return [TextPlace(sign.lines, box, 0.22)]


def _shop(canvas: Canvas, sign: Sign, random: np.random.Generator) -> None:
    front = one_of(random, ((206, 196, 180), (190, 170, 150), (176, 184, 190)))
    canvas.rectangle((0, 0, 1, 1), front)
    canvas.rectangle((0, 0.93, 1, 1), (150, 150, 148))
    glass, frame = (150, 190, 206), mix(front, _BLACK, 0.5)
    door = 0.1 if sign.is_mirrored else 0.64
    canvas.rectangle((0.08, 0.56, 0.92, 0.84), glass, edge=frame, width=0.014)
    for x in (0.16, 0.26, 0.42, 0.52):
        canvas.line([(x, 0.8), (x + 0.1, 0.62)], mix(glass, _WHITE, 0.5), 0.012)
    canvas.rectangle((door, 0.56, door + 0.26, 0.94), mix(front, _BLACK, 0.35), edge=frame, width=0.014)
    canvas.rectangle((door + 0.05, 0.6, door + 0.21, 0.8), glass)
    _plate(canvas, sign, (0.03, 0.08, 0.97, 0.38), radius=0.01)
    awning = one_of(random, ((190, 44, 52), (40, 110, 80), (40, 80, 150)))
    for k in range(10):
        left = 0.04 + 0.092 * k
        color = awning if k % 2 == 0 else (246, 244, 238)
        canvas.rectangle((left, 0.41, left + 0.092, 0.53), color)
        canvas.ellipse((left, 0.5, left + 0.092, 0.56), color)


def _neon(canvas: Canvas, sign: Sign, random: np.random.Generator) -> None:
    wall = COLORS[sign.plate]
    scenes.dark_bricks(canvas, random, wall)
    tube = one_of(random, [COLORS[name] for name in _SHINING if name != sign.ink])
    box: Box = (0.05, 0.2, 0.95, 0.8)
    # the wall behind the letters is plain, and the shine on it weak, so that the letters stand out
    canvas.rectangle(box, wall, 0.12)
    for width, share in ((0.05, 0.18), (0.032, 0.4), (0.014, 1.0)):
        canvas.rectangle(box, None, 0.12, mix(wall, tube, share), width)


def _write_glowing(canvas: Canvas, sign: Sign, places: Sequence[TextPlace]) -> None:
    for place in places:
        canvas.glow(place.lines, sign.font, place.box, place.most, COLORS[sign.ink], 0.3)
    write_all(canvas, sign, places)


def _hanging(canvas: Canvas, sign: Sign, random: np.random.Generator) -> None:
    canvas.line([(0.02, 0.1), (0.98, 0.1)], _IRON, 0.03)
    canvas.disc(0.02, 0.1, 0.03, _IRON)
    canvas.disc(0.98, 0.1, 0.03, _IRON)
    for x in (0.2, 0.8):
        for y in np.arange(0.11, 0.3, 0.035):
            canvas.ellipse((x - 0.012, float(y), x + 0.012, float(y) + 0.04), None, _IRON, 0.008)
    if sign.is_mirrored:
        edge = mix(COLORS[sign.plate], _BLACK, 0.4)
        canvas.ellipse((0.03, 0.26, 0.97, 0.92), edge)
        canvas.ellipse((0.045, 0.275, 0.955, 0.905), COLORS[sign.ink])
        canvas.ellipse((0.06, 0.29, 0.94, 0.89), COLORS[sign.plate])
    else:
        _plate(canvas, sign, (0.08, 0.28, 0.92, 0.86), radius=0.03, inset=0.03)


def _upright(canvas: Canvas, sign: Sign, random: np.random.Generator) -> None:
    front = one_of(random, ((178, 122, 96), (150, 150, 160), (206, 180, 140), (110, 96, 120)))
    canvas.rectangle((0, 0, 1, 1), (40, 50, 84) if random.random() < 0.5 else (172, 212, 238))
    canvas.rectangle((0.0, 0.06, 0.62, 1), front)
    pane = (250, 222, 140) if random.random() < 0.5 else (96, 110, 128)
    for x in (0.06, 0.23):
        for y in np.arange(0.14, 0.95, 0.2):
            canvas.rectangle((x, float(y), x + 0.11, float(y) + 0.12), pane, edge=mix(front, _BLACK, 0.4), width=0.01)
    for y in (0.16, 0.8):
        canvas.rectangle((0.58, y, 0.74, y + 0.025), _IRON)
    _plate(canvas, sign, (0.46, 0.02, 0.74, 0.98), radius=0.03)
    if sign.is_mirrored:
        canvas.image.paste(canvas.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))  # no letter is on it yet


def _upright_places(sign: Sign) -> list[TextPlace]:
    left = 0.29 if sign.is_mirrored else 0.49
    return [TextPlace(tuple(sign.lines[0]), (left, 0.07, left + 0.22, 0.93), 0.2)]


def _number_plate(canvas: Canvas, sign: Sign, random: np.random.Generator) -> None:
    paint = one_of(random, ((170, 34, 40), (36, 78, 140), (222, 222, 218), (60, 64, 70), (224, 180, 60), (60, 120, 90)))
    canvas.rectangle((0, 0, 1, 0.14), (176, 204, 220))
    canvas.rectangle((0, 0.08, 1, 0.82), paint, 0.06)
    canvas.rectangle((0, 0.8, 1, 1), (70, 72, 76))
    for x in (0.0, 0.84):
        canvas.rectangle((x, 0.16, x + 0.16, 0.3), (206, 40, 40), 0.02)
        canvas.rectangle((x + 0.03, 0.2, x + 0.13, 0.26), (250, 170, 90), 0.02)
    canvas.line([(0, 0.34), (1, 0.34)], mix(paint, _BLACK, 0.35), 0.008)
    canvas.rectangle((0, 0.72, 1, 0.84), mix(paint, _BLACK, 0.45))
    _plate(canvas, sign, (0.05, 0.4, 0.95, 0.68), radius=0.03, inset=0.014)


def _banner(canvas: Canvas, sign: Sign, random: np.random.Generator) -> None:
    cloth = COLORS[sign.plate]
    for x in (0.03, 0.93):
        canvas.rectangle((x, 0.1, x + 0.04, 0.98), _WOOD)
        canvas.disc(x + 0.02, 0.1, 0.03, (214, 174, 84))
    edge = mix(cloth, _BLACK, 0.3)
    for k in range(6):
        left = 0.06 + 0.88 * k / 6
        canvas.polygon([(left, 0.62), (left + 0.147, 0.62), (left + 0.073, 0.74)], edge if k % 2 else cloth)
    canvas.rectangle((0.06, 0.2, 0.94, 0.63), cloth)
    for y in (0.225, 0.595):
        canvas.line([(0.06, y), (0.94, y)], COLORS[sign.ink], 0.014)


def _plate(canvas: Canvas, sign: Sign, box: Box, radius: float, inset: float = 0.022) -> None:
    """Draw a plate with a dark rim and a thin line of the letters' colour inside it."""
    plate = COLORS[sign.plate]
    canvas.rectangle(box, plate, radius, mix(plate, _BLACK, 0.45), 0.012)
    left, top, right, bottom = box
    inner = (left + inset, top + inset, right - inset, bottom - inset)
    canvas.rectangle(inner, None, max(0.0, radius - inset / 2), COLORS[sign.ink], 0.01)


def _shadow(canvas: Canvas, box: Box, radius: float) -> None:
    left, top, right, bottom = box
    canvas.rectangle((left + 0.015, top + 0.02, right + 0.015, bottom + 0.025), (92, 84, 78), radius)


def _corners(x: float, y: float, radius: float, count: int, turn: float) -> list[tuple[float, float]]:
    angles = [turn + 2 * math.pi * k / count for k in range(count)]
    return [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles]


OUTDOORS: dict[str, SignLayout] = {
    "board": SignLayout(
        _board,
        in_box(0.11, 0.21, 0.89, 0.59),
        ("{a_plate} sign board on two posts", "{a_plate} board on posts"),
        "board",
        _OUTSIDE,
        num_lines=(1, 3),
    ),
    "placard": SignLayout(
        _placard,
        _placard_places,
        ("{a_plate} sign", "{a_plate} placard"),
        "sign",
        ("plain",),
        plates=(
            *("white", "grey", "yellow", "orange", "red", "pink"),
            *("purple", "light blue", "blue", "green", "brown", "black"),
        ),
        inks=("white", "yellow", "black", "blue"),
        write=_write_cells,
        most_letters=CELLS,
        capitals=True,
        asked_in_any_case=True,
        shares_colors=True,
    ),
    "plaque": SignLayout(
        _plaque,
        in_box(0.14, 0.28, 0.86, 0.72),
        ("{a_plate} plate with rounded corners", "{a_plate} rounded plate"),
        "plate",
        _WALLS,
    ),
    "octagon": SignLayout(
        _octagon,
        in_box(0.17, 0.3, 0.83, 0.6),
        ("{a_plate} eight-sided road sign", "{a_plate} octagonal road sign"),
        "road sign",
        _OUTSIDE,
        (*DARK, "yellow", "orange", "white"),
        most_letters=8,
    ),
    "diamond": SignLayout(
        _diamond,
        in_box(0.22, 0.38, 0.78, 0.58, 0.18),
        ("{a_plate} diamond-shaped road sign", "{a_plate} road sign in the shape of a diamond"),
        "road sign",
        _OUTSIDE,
        ("yellow", "orange", "white", "light green", "red", "blue", "green"),
        num_lines=(1, 1),
        most_letters=7,
    ),
    "arrow": SignLayout(
        _arrow,
        _arrow_places,
        ("{a_plate} direction sign that points to the {side}", "{a_plate} arrow sign pointing {side}"),
        "arrow",
        _OUTSIDE,
    ),
    "shop": SignLayout(
        _shop,
        in_box(0.08, 0.13, 0.92, 0.33, 0.18),
        ("{a_plate} sign over a shop", "a shop front with {a_plate} sign"),
        "shop sign",
        ("shop",),
        num_lines=(1, 1),
        most_letters=11,
    ),
    "neon": SignLayout(
        _neon,
        in_box(0.12, 0.28, 0.88, 0.72),
        ("a neon sign on {a_plate} wall", "a glowing sign at night on {a_plate} wall"),
        "wall",
        ("night",),
        _NIGHT,
        _SHINING,
        write=_write_glowing,
        name="neon sign",
    ),
    "hanging": SignLayout(
        _hanging,
        in_box(0.17, 0.4, 0.83, 0.76),
        ("{a_plate} {shape} sign that hangs from two chains", "{a_plate} hanging sign of {shape} shape"),
        "hanging sign",
        ("bricks", "plaster", "street"),
    ),
    "upright": SignLayout(
        _upright,
        _upright_places,
        ("a tall {plate} sign with the letters one below the other", "an upright {plate} sign on a building"),
        "tall sign",
        ("building",),
        num_lines=(1, 1),
        most_letters=6,
        capitals=True,
    ),
    "number-plate": SignLayout(
        _number_plate,
        in_box(0.1, 0.44, 0.9, 0.64, 0.18),
        ("a car with {a_plate} number plate", "{a_plate} licence plate at the back of a car"),
        "number plate",
        ("car",),
        ("white", "yellow", "black", "blue", "green", "light blue", "red"),
        num_lines=(1, 1),
        most_letters=9,
        capitals=True,
    ),
    "banner": SignLayout(
        _banner,
        in_box(0.1, 0.26, 0.9, 0.57),
        ("{a_plate} banner between two poles", "{a_plate} cloth banner"),
        "banner",
        _OUTSIDE,
    ),
}
