"""Things with words on them: posters, labels, tickets, books, shirts, screens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sampan.synthetic.signs.colors import COLORS, DARK, mix
from sampan.synthetic.signs.drawing import Canvas
from sampan.synthetic.signs.scenes import one_of
from sampan.synthetic.signs.sign import Sign, SignLayout, TextPlace, in_box, write_all

_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_FLAT = ("plain", "dots", "stripes")


def _poster(canvas: Canvas, sign: Sign, random: np.random.Generator) -> None:
    frame = one_of(random, ((96, 60, 34), (34, 34, 36), (198, 160, 76), (236, 236, 232)))
    canvas.rectangle((0.11, 0.12, 0.93, 0.86), (110, 108, 104))
    canvas.rectangle((0.08, 0.08, 0.92, 0.84), frame)
    canvas.rectangle((0.085, 0.085, 0.915, 0.835), None, edge=mix(frame, _WHITE, 0.35), width=0.012)
    canvas.rectangle((0.13, 0.13, 0.87, 0.79), COLORS[sign.plate], edge=mix(frame, _BLACK, 0.4), width=0.008)


def _tag(canvas: Canvas, sign: Sign, random: np.random.Generator) -> None:
    layer, plate = canvas.layer(), COLORS[sign.plate]
    flip = -1.0 if sign.is_mirrored else 1.0
    for grow, color in ((0.0, mix(plate, _BLACK, 0.35)), (0.01, plate)):
        left, right, top, bottom = 0.06 + 1.4 * grow, 0.95 - grow, 0.28 + grow, 0.72 - grow
        points = [(left, 0.5), (0.24, top), (right, top), (right, bottom), (0.24, bottom)]
        layer.polygon([(0.5 + flip * (x - 0.5), y) for x, y in points], color)
    hole, end = 0.5 + flip * (0.17 - 0.5), 0.5 + flip * (0.02 - 0.5)
    string = one_of(random, ((90, 74, 60), (150, 40, 44), (60, 60, 64)))
    layer.disc(hole, 0.5, 0.035, mix(plate, _BLACK, 0.35))
    layer.disc(hole, 0.5, 0.024, (250, 250, 250))
    layer.line([(hole, 0.5), ((hole + end) / 2, 0.4), (end, 0.2), (end, 0.06)], string, 0.012)
    write_all(layer, sign, _tag_places(sign))
    canvas.lay(layer, flip * float(random.uniform(4, 13)))


def _tag_places(sign: Sign) -> list[TextPlace]:
    box = (0.09, 0.33, 0.76, 0.67) if sign.is_mirrored else (0.24, 0.33, 0.91, 0.67)
    return [TextPlace(sign.lines, box)]


def _blackboard(canvas: Canvas, sign: Sign, random: np.random.Generator) -> None:
    slate, wood = COLORS[sign.plate], one_of(random, ((176, 124, 72), (206, 164, 108), (130, 86, 50)))
    canvas.rectangle((0.04, 0.1, 0.96, 0.8), wood, edge=mix(wood, _BLACK, 0.35), width=0.01)
    canvas.rectangle((0.085, 0.145, 0.915, 0.755), slate)
    for _ in range(5):  # where it was wiped, hardly to be seen
        x, y = float(random.uniform(0.12, 0.7)), float(random.uniform(0.18, 0.7))
        canvas.line([(x, y), (x + 0.18, y + float(random.uniform(-0.05, 0.05)))], mix(slate, _WHITE, 0.035), 0.02)
    canvas.rectangle((0.3, 0.79, 0.7, 0.825), mix(wood, _BLACK, 0.2))
    for x, name in ((0.36, "white"), (0.46, "yellow"), (0.55, "pink")):
        canvas.rectangle((x, 0.775, x + 0.06, 0.793), COLORS[name])


def _book(canvas: Canvas, sign: Sign, random: np.random.Generator) -> None:
    cover, ink = COLORS[sign.plate], COLORS[sign.ink]
    canvas.rectangle((0.13, 0.06, 0.91, 0.97), (92, 76, 60), 0.01)
    canvas.rectangle((0.14, 0.05, 0.885, 0.95), (244, 240, 228), 0.01, (176, 168, 150), 0.006)
    canvas.rectangle((0.1, 0.03, 0.86, 0.93), cover, 0.015, mix(cover, _BLACK, 0.4), 0.008)
    canvas.rectangle((0.1, 0.03, 0.17, 0.93), mix(cover, _BLACK, 0.3), 0.015)
    canvas.rectangle((0.2, 0.06, 0.83, 0.9), None, edge=ink, width=0.01)
    if len(sign.lines) == 1:
        emblem = one_of(random, ("disc", "diamond", "rules"))
        if emblem == "disc":
            canvas.ellipse((0.45, 0.64, 0.58, 0.77), None, ink, 0.016)
        elif emblem == "diamond":
            canvas.polygon([(0.515, 0.62), (0.59, 0.7), (0.515, 0.78), (0.44, 0.7)], ink)
        else:
            for y in (0.66, 0.7, 0.74):
                canvas.line([(0.36, y), (0.67, y)], ink, 0.012)
    else:
        canvas.line([(0.3, 0.66), (0.73, 0.66)], ink, 0.012)


def _book_places(sign: Sign) -> list[TextPlace]:
    if len(sign.lines) == 1:
        return [TextPlace(sign.lines, (0.23, 0.14, 0.8, 0.56))]
    return [
        TextPlace(sign.lines[:-1], (0.23, 0.12, 0.8, 0.6)),
        TextPlace(sign.lines[-1:], (0.23, 0.7, 0.8, 0.86), 0.11),
    ]


def _ticket(canvas: Canvas, sign: Sign, random: np.random.Generator) -> None:
    layer, paper, ink = canvas.layer(), COLORS[sign.plate], COLORS[sign.ink]
    layer.rectangle((0.04, 0.24, 0.96, 0.76), paper, 0.04, mix(paper, _BLACK, 0.3), 0.008)
    stub = 0.2 if sign.is_mirrored else 0.8
    for y in np.arange(0.27, 0.74, 0.05):
        layer.line([(stub, float(y)), (stub, float(y) + 0.025)], ink, 0.01)
    for y in (0.24, 0.76):  # a bite out of the paper, through which nothing is seen but what lies under the ticket
        side = layer.side_px
        box = [round(v * side) for v in (stub - 0.03, y - 0.03, stub + 0.03, y + 0.03)]
        layer.drawing.ellipse(box, (0, 0, 0, 0))
    middle = (0.04 + stub) / 2 if sign.is_mirrored else (stub + 0.96) / 2
    for k, width in enumerate((0.012, 0.006, 0.012, 0.02, 0.006, 0.012)):
        x = middle - 0.05 + 0.02 * k
        layer.line([(x, 0.38), (x, 0.62)], ink, width * 0.8)
    write_all(layer, sign, _ticket_places(sign))
    canvas.lay(layer, float(random.uniform(-9, 9)))


def _ticket_places(sign: Sign) -> list[TextPlace]:
    box = (0.23, 0.3, 0.92, 0.7) if sign.is_mirrored else (0.08, 0.3, 0.77, 0.7)
    return [TextPlace(sign.lines, box)]


_ribbon_places = in_box(0.07, 0.405, 0.93, 0.595, 0.15)


def _ribbon(canvas: Canvas, sign: Sign, random: np.random.Generator) -> None:
    layer, cloth = canvas.layer(), COLORS[sign.plate]
    layer.rectangle((-0.5, 0.345, 1.5, 0.655), mix(cloth, _BLACK, 0.4))
    layer.rectangle((-0.5, 0.355, 1.5, 0.645), cloth)
    for y in (0.38, 0.62):
        layer.line([(-0.5, y), (1.5, y)], COLORS[sign.ink], 0.01)
    write_all(layer, sign, _ribbon_places(sign))
    angle = (-1 if sign.is_mirrored else 1) * float(random.uniform(22, 34))
    # the turned layer ends before the corners that the ribbon runs to
    _reach(canvas, angle, 0.31, mix(cloth, _BLACK, 0.4))
    _reach(canvas, angle, 0.29, cloth)
    _reach(canvas, angle, 0.25, COLORS[sign.ink])
    _reach(canvas, angle, 0.23, cloth)
    canvas.lay(layer, angle)


def _reach(canvas: Canvas, angle: float, width: float, color: tuple[int, int, int]) -> None:
    """Draw a band through the middle from edge to edge."""
    turn = np.deg2rad(angle)
    along, across = (float(np.cos(turn)), -float(np.sin(turn))), (float(np.sin(turn)), float(np.cos(turn)))
    corners = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    points = [
        (0.5 + a * along[0] + b * width / 2 * across[0], 0.5 + a * along[1] + b * width / 2 * across[1])
        for a, b in corners
    ]
    canvas.polygon(points, color)


def _badge(canvas: Canvas, sign: Sign, random: np.random.Generator) -> None:
    plate, ink = COLORS[sign.plate], COLORS[sign.ink]
    for radius, color in ((0.47, mix(plate, _BLACK, 0.4)), (0.46, plate), (0.44, ink), (0.427, plate)):
        canvas.disc(0.5, 0.5, radius, color)
    if len(sign.lines) > 1:
        return
    points = [
        (0.5 + radius * float(np.sin(turn)), 0.6 - radius * float(np.cos(turn)))
        for turn, radius in zip(np.arange(10) * np.pi / 5, [0.15, 0.065] * 5, strict=True)
    ]
    if random.random() < 0.5:
        canvas.polygon(points, ink)  # a star
    else:
        canvas.ellipse((0.38, 0.48, 0.62, 0.72), None, ink, 0.025)


def _badge_places(sign: Sign) -> list[TextPlace]:
    arch = TextPlace(sign.lines[:1], (0.0, 0.0, 0.74, 0.135), 0.11)
    return [arch, TextPlace(sign.lines[1:], (0.2, 0.46, 0.8, 0.72), 0.16)] if len(sign.lines) > 1 else [arch]


def _write_arched(canvas: Canvas, sign: Sign, places: Sequence[TextPlace]) -> None:
    arch, *rest = places
    canvas.write_around(sign.lines[0], sign.font, (0.5, 0.56), 0.3, arch.box, arch.most, COLORS[sign.ink])
    write_all(canvas, sign, rest)


def _bubble(canvas: Canvas, sign: Sign, random: np.random.Generator) -> None:
    paper, flip = COLORS[sign.plate], -1.0 if sign.is_mirrored else 1.0
    edge = mix(paper, _BLACK, 0.55)

    def x(value: float) -> float:
        return 0.5 + flip * (value - 0.5)

    for grow, color in ((0.012, edge), (0.0, paper)):
        canvas.rectangle((0.05 - grow, 0.06 - grow, 0.95 + grow, 0.58 + grow), color, 0.16)
        canvas.polygon([(x(0.3 - grow), 0.54), (x(0.46 + grow), 0.54), (x(0.3 - grow / 2), 0.71 + 1.5 * grow)], color)
    skin = one_of(random, ((250, 204, 60), (150, 200, 110), (236, 160, 110), (150, 180, 230)))
    canvas.disc(x(0.22), 0.82, 0.15, mix(skin, _BLACK, 0.5))
    canvas.disc(x(0.22), 0.82, 0.138, skin)
    for eye in (0.17, 0.27):
        canvas.disc(x(eye), 0.79, 0.02, (30, 30, 32))
    canvas.ellipse((x(0.22) - 0.045, 0.84, x(0.22) + 0.045, 0.91), (120, 40, 40))


def _screen(canvas: Canvas, sign: Sign, random: np.random.Generator) -> None:
    case = one_of(random, ((52, 54, 58), (198, 202, 206), (120, 124, 130)))
    canvas.rectangle((0, 0.86, 1, 1), (150, 112, 78))
    canvas.polygon([(0.43, 0.76), (0.57, 0.76), (0.62, 0.92), (0.38, 0.92)], mix(case, _BLACK, 0.25))
    canvas.rectangle((0.28, 0.9, 0.72, 0.935), mix(case, _BLACK, 0.25), 0.015)
    canvas.rectangle((0.04, 0.1, 0.96, 0.8), case, 0.03, mix(case, _BLACK, 0.4), 0.01)
    canvas.rectangle((0.085, 0.145, 0.915, 0.735), COLORS[sign.plate])
    canvas.rectangle((0.085, 0.145, 0.915, 0.205), mix(COLORS[sign.plate], COLORS[sign.ink], 0.3))
    for x, color in ((0.12, (224, 84, 76)), (0.16, (232, 188, 70)), (0.2, (104, 190, 96))):
        canvas.disc(x, 0.175, 0.015, color)


def _shirt(canvas: Canvas, sign: Sign, random: np.random.Generator) -> None:
    cloth = COLORS[sign.plate]
    half = [(0.37, 0.06), (0.22, 0.1), (0.0, 0.34), (0.1, 0.5), (0.19, 0.42), (0.17, 0.96), (0.5, 0.98)]
    outline = [*half, *[(1 - x, y) for x, y in reversed(half)]]
    canvas.polygon(outline, cloth)
    canvas.line([*outline, outline[0]], mix(cloth, _BLACK, 0.4), 0.014)
    canvas.ellipse((0.37, -0.02, 0.63, 0.16), mix(cloth, _BLACK, 0.4))
    canvas.ellipse((0.385, -0.03, 0.615, 0.14), mix(cloth, _BLACK, 0.2))
    for x in (0.215, 0.785):
        canvas.line([(x, 0.42), (x + (0.02 if x < 0.5 else -0.02), 0.6)], mix(cloth, _BLACK, 0.2), 0.01)


OBJECTS: dict[str, SignLayout] = {
    "poster": SignLayout(
        _poster,
        in_box(0.17, 0.18, 0.83, 0.74),
        ("a framed {plate} poster", "{a_plate} poster in a frame"),
        "poster",
        ("room", "plaster"),
        num_lines=(1, 3),
    ),
    "tag": SignLayout(
        _tag,
        _tag_places,
        ("{a_plate} sale tag on a string", "{a_plate} price tag"),
        "tag",
        (*_FLAT, "table"),
        write=None,
    ),
    "blackboard": SignLayout(
        _blackboard,
        in_box(0.13, 0.19, 0.87, 0.7),
        ("{a_plate} chalkboard", "{a_plate} school board with a wooden frame"),
        "board",
        ("room", "plaster"),
        ("black", "green", "dark grey", "navy"),
        ("white", "cream", "yellow", "pink", "light blue", "light green"),
        num_lines=(1, 3),
    ),
    "book": SignLayout(
        _book,
        _book_places,
        ("{a_plate} book", "a book with {a_plate} cover"),
        "cover",
        ("table", "plain", "stripes"),
        num_lines=(1, 3),
        most_letters=9,
        name="book",
    ),
    "ticket": SignLayout(
        _ticket,
        _ticket_places,
        ("{a_plate} paper ticket", "{a_plate} ticket with a stub"),
        "ticket",
        (*_FLAT, "table"),
        write=None,
    ),
    "ribbon": SignLayout(
        _ribbon,
        _ribbon_places,
        ("{a_plate} ribbon that runs {slope}", "a diagonal {plate} ribbon"),
        "ribbon",
        _FLAT,
        num_lines=(1, 1),
        most_letters=11,
        write=None,
    ),
    "badge": SignLayout(
        _badge,
        _badge_places,
        ("a round {plate} badge with letters along an arch", "{a_plate} round label"),
        "badge",
        (*_FLAT, "table"),
        write=_write_arched,
    ),
    "bubble": SignLayout(
        _bubble,
        in_box(0.12, 0.12, 0.88, 0.52),
        ("{a_plate} speech bubble over a round face", "a round face with {a_plate} speech bubble"),
        "speech bubble",
        _FLAT,
        num_lines=(1, 3),
    ),
    "screen": SignLayout(
        _screen,
        in_box(0.13, 0.25, 0.87, 0.69),
        ("a computer with {a_plate} screen", "{a_plate} computer screen on a desk"),
        "screen",
        ("room", "plain"),
        num_lines=(1, 3),
    ),
    "shirt": SignLayout(
        _shirt,
        in_box(0.23, 0.28, 0.77, 0.66),
        ("{a_plate} shirt", "{a_plate} T-shirt"),
        "shirt",
        _FLAT,
        (*DARK, "white", "yellow", "orange", "pink", "light blue", "light green", "grey"),
        most_letters=8,
    ),
}
