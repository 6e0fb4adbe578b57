"""Drawings of a plan as SVG: stacked bars, a scatter, curves, a tornado. What they show is chosen in sampan.plan.page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from sampan.report.frame import figure, svg

WIDTH = 760
_LABEL, _ROW, _SPACE = 230, 28, 110  # of names, of a bar with its gap, behind the longest bar
_BESIDE = 330  # to the right of a tornado, for what its bars say
_LEFT, _RIGHT, _TOP, _BOTTOM, _HEIGHT = 76, 150, 12, 44, 360  # of drawings with two axes
COLOURS = (
    "#2f6f9f",
    "#d98032",
    "#4f9d69",
    "#b3508c",
    "#8f7a35",
    "#5b5fc7",
    "#c24a3f",
    "#3fa3a8",
    "#7d8790",
    "#a0612f",
    "#58803a",
)

Say = Callable[[float], str]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar of parts, one after another.

    Args:
        parts: (name, value) in the order of the legend.
        limit: Where a line is drawn across: what there is room for.
    """

    name: str
    parts: Sequence[tuple[str, float]]
    said: str
    limit: float | None = None


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point with whiskers; those on the front are filled and joined."""

    name: str
    x: float
    y: float
    x_ends: tuple[float, float]
    y_ends: tuple[float, float]
    is_on_front: bool = False


@dataclass(frozen=True, kw_only=True)
class TornadoBar:
    """How far a result moves when one input moves from its low to its high end; ends are shares of the result."""

    name: str
    low: float
    high: float
    said: str


def stacked(caption: str, bars: Sequence[Bar]) -> str:
    """Return bars of parts with a legend."""
    names = list(dict.fromkeys(name for bar in bars for name, value in bar.parts if value > 0))
    colour = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    longest = max(max(sum(value for _, value in bar.parts), bar.limit or 0.0) for bar in bars) or 1.0
    scale = (WIDTH - _LABEL - _SPACE) / longest
    drawn, top = list(_legend(colour)), _legend_height(colour)
    for number, bar in enumerate(bars):
        y, x = top + number * _ROW, float(_LABEL)
        drawn.append(_text(0, y + 17, _short(bar.name, 34)))
        for name, value in bar.parts:
            if value > 0:
                drawn.append(
                    f'<rect x="{x:.1f}" y="{y + 4}" width="{max(value * scale, 0.5):.1f}" height="{_ROW - 10}" '
                    f'style="fill:{colour[name]}"><title>{escape(f"{bar.name}: {name}")}</title></rect>'
                )
                x += value * scale
        if bar.limit is not None:
            end = _LABEL + bar.limit * scale
            drawn.append(f'<line x1="{end:.1f}" x2="{end:.1f}" y1="{y + 1}" y2="{y + _ROW - 3}" stroke-width="2"/>')
            x = max(x, end)
        drawn.append(_text(x + 8, y + 17, bar.said))
    return figure(caption, svg(WIDTH, top + len(bars) * _ROW, drawn, caption))


def scatter(
    caption: str, points: Sequence[Point], x_title: str, y_title: str, x_says: Say, y_says: Say, *, diagonal: bool = False
) -> str:  # fmt: skip
    """Return points over two logarithmic axes.

    Args:
        diagonal: Whether the line where both are equal is drawn.
    """
    axes = Axes(
        [x for p in points for x in (p.x, *p.x_ends)], [y for p in points for y in (p.y, *p.y_ends)], x_title, y_title,
        x_says, y_says,
    )  # fmt: skip
    drawn = list(axes.frame())
    if diagonal:
        low = max(min(p.x for p in points), min(p.y for p in points))
        high = min(max(p.x for p in points), max(p.y for p in points))
        ends = f"M{axes.x(low):.1f} {axes.y(low):.1f}L{axes.x(high):.1f} {axes.y(high):.1f}"
        drawn.append(f'<path d="{ends}" style="stroke:currentColor;opacity:.6"/>')
    front = sorted((p for p in points if p.is_on_front), key=lambda p: p.x)
    if len(front) > 1:
        line = " ".join(f"{axes.x(p.x):.1f},{axes.y(p.y):.1f}" for p in front)
        drawn.append(f'<polyline points="{line}" style="fill:none;stroke:{COLOURS[1]};stroke-width:2"/>')
    for p in sorted(points, key=lambda p: p.is_on_front):
        colour = COLOURS[1] if p.is_on_front else COLOURS[0]
        x, y = axes.x(p.x), axes.y(p.y)
        if p.is_on_front:
            ends = (*(axes.x(v) for v in p.x_ends), *(axes.y(v) for v in p.y_ends))
            drawn.append(
                f'<path d="M{ends[0]:.1f} {y:.1f}H{ends[1]:.1f}M{x:.1f} {ends[2]:.1f}V{ends[3]:.1f}" '
                f'style="stroke:{colour};stroke-width:1;opacity:.6"/>'
            )
        drawn.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{5 if p.is_on_front else 3}" style="fill:{colour};opacity:.85">'
            f"<title>{escape(p.name)}</title></circle>"
        )
    drawn += _at_side([(axes.x(p.x), axes.y(p.y), p.name) for p in front])
    return figure(caption, svg(WIDTH, _HEIGHT, drawn, caption))


def curves(
    caption: str, lines: Sequence[tuple[str, Sequence[tuple[float, float]]]], x_title: str, y_title: str, x_says: Say,
    y_says: Say,
) -> str:  # fmt: skip
    """Return curves over two logarithmic axes, each from a dotted line that halves when x doubles."""
    axes = Axes(
        [x for _, line in lines for x, _ in line], [y for _, line in lines for _, y in line], x_title, y_title, x_says,
        y_says,
    )  # fmt: skip
    drawn, ends = list(axes.frame()), []
    for number, (name, line) in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        (x0, y0), (x1, y1) = line[0], line[-1]
        if len(line) > 1:
            # cut where it leaves the drawing
            end = min(x1, x0 * y0 / axes.lowest)
            drawn.append(
                f'<line x1="{axes.x(x0):.1f}" y1="{axes.y(y0):.1f}" x2="{axes.x(end):.1f}" y2="{axes.y(y0 * x0 / end):.1f}" '
                f'style="stroke:{colour};stroke-dasharray:2 4;opacity:.7"/>'
            )
        points = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in line)
        drawn.append(f'<polyline points="{points}" style="fill:none;stroke:{colour};stroke-width:2"/>')
        drawn += [f'<circle cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="3" style="fill:{colour}"/>' for x, y in line]
        ends.append((axes.x(x1), axes.y(y1), name))
    return figure(caption, svg(WIDTH, _HEIGHT, [*drawn, *_at_side(ends)], caption))


def tornado(caption: str, swings: Sequence[TornadoBar]) -> str:
    """Return bars to either side of what is planned."""
    farthest = max((abs(math.log(end)) for swing in swings for end in (swing.low, swing.high)), default=0.0) or 1.0
    half = (WIDTH - _LABEL - _BESIDE) / 2
    middle = _LABEL + half
    drawn = []
    for number, swing in enumerate(swings):
        y = number * _ROW
        ends = sorted(middle + math.log(end) / farthest * half for end in (swing.low, swing.high))
        drawn.append(_text(0, y + 17, _short(swing.name, 34)))
        drawn.append(
            f'<rect x="{ends[0]:.1f}" y="{y + 4}" width="{max(ends[1] - ends[0], 1):.1f}" height="{_ROW - 10}" '
            f'style="fill:{COLOURS[0]}"/>'
        )
        drawn.append(_text(max(ends[1], middle) + 8, y + 17, swing.said))
    height = len(swings) * _ROW
    drawn.append(f'<line x1="{middle}" x2="{middle}" y1="0" y2="{height}"/>')
    return figure(caption, svg(WIDTH, height, drawn, caption))


class Axes:
    """Two logarithmic axes that hold all values, with marks at 1, 2 and 5 times powers of ten.

    Args:
        xs, ys: All values; must be above 0.
    """

    def __init__(self, xs: Sequence[float], ys: Sequence[float], x_title: str, y_title: str, x_says: Say, y_says: Say):
        self._x, self._y = _range(xs), _range(ys)
        self._titles, self._says = (x_title, y_title), (x_says, y_says)

    @property
    def lowest(self) -> float:
        """The y at the lower end."""
        return self._y[0]

    def x(self, value: float) -> float:
        """Return where a value lies from the left."""
        low, high = self._x
        return _LEFT + math.log(value / low) / math.log(high / low) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """Return where a value lies from the top."""
        low, high = self._y
        return _HEIGHT - _BOTTOM - math.log(value / low) / math.log(high / low) * (_HEIGHT - _TOP - _BOTTOM)

    def frame(self) -> Iterator[str]:
        """Yield lines, marks and titles."""
        left, right, top, bottom = _LEFT, WIDTH - _RIGHT, _TOP, _HEIGHT - _BOTTOM
        yield f'<path d="M{left} {top}V{bottom}H{right}" style="fill:none;stroke:currentColor"/>'
        for value in marks(*self._x):
            x = self.x(value)
            yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" style="opacity:.15"/>'
            yield _text(x, bottom + 18, self._says[0](value), "middle")
        for value in marks(*self._y):
            y = self.y(value)
            yield f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" style="opacity:.15"/>'
            yield _text(left - 6, y + 4, self._says[1](value), "end")
        yield _text((left + right) / 2, _HEIGHT - 6, self._titles[0], "middle")
        middle = (top + bottom) / 2
        yield (
            f'<text transform="translate(13 {middle:.0f}) rotate(-90)" text-anchor="middle">{escape(self._titles[1])}</text>'
        )


def marks(low: float, high: float) -> list[float]:
    """Return at most eight round values between two."""
    first = math.floor(math.log10(low))
    last = math.ceil(math.log10(high))
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        found = [value for value in found if low <= value * (1 + 1e-9) and value <= high * (1 + 1e-9)]
        if len(found) <= 8:
            return found
    return found[:: math.ceil(len(found) / 8)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if high / low < 1.6:
        middle = math.sqrt(low * high)
        low, high = middle / 1.3, middle * 1.3
    margin = (high / low) ** 0.04
    return low / margin, high * margin


def _at_side(labels: Sequence[tuple[float, float, str]]) -> Iterator[str]:
    """Yield names in the right margin, each with a thin line to its point; as many as there is room for."""
    left = WIDTH - _RIGHT + 14
    room = int((_HEIGHT - _TOP) // _LINE)
    shown = sorted(labels, key=lambda label: label[1])[:room]
    # from the bottom up no name may begin above where those below it leave room, from the top down none on another
    highest = [_HEIGHT - 6 - _LINE * (len(shown) - 1 - i) for i in range(len(shown))]
    at = float(_TOP)
    for (x, y, name), most in zip(shown, highest, strict=True):
        at = min(max(at + _LINE, y + 4), most) if at > _TOP else min(max(at, y + 4), most)
        yield (
            f'<path d="M{x + 6:.1f} {y:.1f}L{left - 3} {at - 4:.1f}" '
            'style="stroke:currentColor;stroke-width:.7;opacity:.45;fill:none"/>'
        )
        yield _text(left, at, _short(name, 20))


_LINE = 15


def _legend(colour: dict[str, str]) -> Iterator[str]:
    for number, (name, fill) in enumerate(colour.items()):
        x, y = (number % _IN_ROW) * (WIDTH / _IN_ROW), number // _IN_ROW * 22
        yield f'<rect x="{x:.0f}" y="{y + 3}" width="13" height="13" style="fill:{fill}"/>'
        yield _text(x + 19, y + 14, name)


_IN_ROW = 5


def _legend_height(colour: dict[str, str]) -> int:
    return 22 * math.ceil(len(colour) / _IN_ROW) + 8


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    at = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}"{at}>{escape(words)}</text>'


def _short(words: str, most: int) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"
