"""Charts as SVG: bars, tornado bars, points and curves over logarithmic axes, a timeline. They know nothing of plans or
benchmarks. Colours and strokes are CSS classes of `report/frame.html`; ElementTree escapes what comes in.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

WIDTH = 760
_ROW, _GAP = 28, 8  # of a bar with its gap, between a bar and words
_LETTER = 8.4  # width of a letter, on the safe side: no text is measured, and fonts differ
_MOST_LETTERS = 40  # of a name, and of what tornado bars say
_IN_ROW = 5  # entries of a legend
_LEFT, _TOP, _BOTTOM, _HEIGHT = 92, 12, 44, 360  # of charts with two axes
_MOST_MARKS = 8  # of an axis
_LINE = 15  # of names in the right margin
_NUM_COLORS = 11  # classes c0 to c10


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar of parts, one after another.

    Args:
        parts: (name, value) in the order of the legend; a chart with one part in all has no legend.
        text: What stands behind the bar.
        limit: Where a line is drawn across: what there is room for.
        interval: Between which values a line is drawn along the bar.
    """

    name: str
    parts: Sequence[tuple[str, float]]
    text: str
    limit: float | None = None
    interval: tuple[float, float] | None = None

    @property
    def end(self) -> float:
        """The greatest value that is drawn."""
        return max(sum(value for _, value in self.parts), self.limit or 0.0, self.interval[1] if self.interval else 0.0)


@dataclass(frozen=True, kw_only=True)
class TornadoBar:
    """How far a result moves when one input moves from its low to its high end; ends are shares of the result."""

    name: str
    low: float
    high: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point with whiskers; those on the front are joined, named and drawn with their whiskers."""

    name: str
    x: float
    y: float
    x_ends: tuple[float, float]
    y_ends: tuple[float, float]
    is_on_front: bool = False


@dataclass(frozen=True, kw_only=True)
class TimeSpan:
    """Days, both ends among them, that are drawn alike.

    Args:
        mark: A letter, written where there is room for it.
        color: CSS class that sets `--c`.
    """

    first: datetime.date
    last: datetime.date
    mark: str
    title: str
    color: str


class Drawing:
    """A figure with its caption; templates put it into a page as it is.

    Args:
        caption: What it shows, also for those who do not see it.
        height: In units of which the drawing is `WIDTH` wide.
    """

    def __init__(self, caption: str, height: float):
        self._figure = Element("figure")
        SubElement(self._figure, "figcaption").text = caption
        about = {"viewBox": f"0 0 {WIDTH} {height:g}", "role": "img", "aria-label": caption}
        self._svg = SubElement(self._figure, "svg", about)

    def __str__(self) -> str:
        """Return the figure as HTML."""
        return tostring(self._figure, encoding="unicode")

    __html__ = __str__  # how templates know that it is escaped already

    def add(self, tag: str, classes: str = "", title: str = "", **attributes: float) -> Element:
        """Draw a shape and return it.

        Args:
            title: Words of its tooltip.
            attributes: Its measures.
        """
        shape = SubElement(self._svg, tag, {name: f"{value:.1f}" for name, value in attributes.items()})
        if classes:
            shape.set("class", classes)
        if title:
            SubElement(shape, "title").text = title
        return shape

    def path(self, classes: str, points: Iterable[tuple[float, float]]) -> None:
        """Draw straight lines from point to point."""
        self.add("polyline", classes).set("points", " ".join(f"{x:.1f},{y:.1f}" for x, y in points))

    def text(self, x: float, y: float, words: str, anchor: str = "", most: int = 1000) -> Element:
        """Write words; where they are more than `most` letters, all of them are in the tooltip."""
        shape = self.add("text", x=x, y=y, title=words if len(words) > most else "")
        shape.text = words if len(words) <= most else words[: most - 1] + "…"
        if anchor:
            shape.set("text-anchor", anchor)
        return shape


def bars(caption: str, rows: Sequence[Bar]) -> Drawing:
    """Return horizontal bars of parts, with a legend where there are several kinds of parts."""
    label, behind = _width(row.name for row in rows), _width((row.text for row in rows), WIDTH)
    names = list(dict.fromkeys(name for row in rows for name, value in row.parts if value > 0))
    legend = names if len(names) > 1 else []
    top = 22 * math.ceil(len(legend) / _IN_ROW) + 8 if legend else 0
    scale = max(WIDTH - label - behind, 60) / (max((row.end for row in rows), default=0.0) or 1.0)
    drawing = Drawing(caption, top + len(rows) * _ROW)
    for number, name in enumerate(legend):
        x, y = number % _IN_ROW * WIDTH / _IN_ROW, number // _IN_ROW * 22
        drawing.add("rect", _color(number), x=x, y=y + 3, width=13, height=13)
        drawing.text(x + 19, y + 14, name)
    for number, row in enumerate(rows):
        x, y = label, top + number * _ROW
        drawing.text(0, y + 17, row.name, most=_MOST_LETTERS)
        for name, value in row.parts:
            if value > 0:
                width = max(value * scale, 0.5)
                title = f"{row.name}: {name}" if name else ""
                drawing.add("rect", _color(names.index(name)), title, x=x, y=y + 4, width=width, height=_ROW - 10)
                x += value * scale
        free = x  # where words may begin
        if row.interval is not None:
            low, high = (label + value * scale for value in row.interval)
            drawing.add("line", "curve", x1=low, x2=high, y1=y + _ROW / 2 - 1, y2=y + _ROW / 2 - 1)
            free = max(free, high)
        if row.limit is not None:
            end = label + row.limit * scale
            drawing.add("line", "curve", x1=end, x2=end, y1=y + 1, y2=y + _ROW - 3)
            if free < end + _GAP and end < free + len(row.text) * _LETTER + 2 * _GAP:
                free = end  # the words would lie on the line
        drawing.text(free + _GAP, y + 17, row.text)
    return drawing


def tornado(caption: str, rows: Sequence[TornadoBar]) -> Drawing:
    """Return bars to either side of the result, on a logarithmic scale."""
    farthest = max((abs(math.log(end)) for row in rows for end in (row.low, row.high)), default=0.0) or 1.0
    label, beside = _width(row.name for row in rows), _width((row.text for row in rows), WIDTH)
    half = max(WIDTH - label - beside, 60) / 2
    middle = label + half
    drawing = Drawing(caption, len(rows) * _ROW)
    for number, row in enumerate(rows):
        y = number * _ROW
        low, high = sorted(middle + math.log(end) / farthest * half for end in (row.low, row.high))
        drawing.text(0, y + 17, row.name, most=_MOST_LETTERS)
        drawing.add("rect", x=low, y=y + 4, width=max(high - low, 1), height=_ROW - 10)
        drawing.text(max(high, middle) + _GAP, y + 17, row.text, most=int(beside / _LETTER))
    drawing.add("line", x1=middle, x2=middle, y1=0, y2=len(rows) * _ROW)
    return drawing


def scatter(caption: str, points: Sequence[Point], x_title: str, y_title: str, *, diagonal: bool = False) -> Drawing:
    """Return points over two logarithmic axes.

    Args:
        diagonal: Whether the line where both are equal is drawn.
    """
    xs = [x for point in points for x in (point.x, *point.x_ends)]
    ys = [y for point in points for y in (point.y, *point.y_ends)]
    axes = _Axes(
        Drawing(caption, _HEIGHT), xs, ys, x_title, y_title, [point.name for point in points if point.is_on_front]
    )
    drawing = axes.drawing
    if diagonal:
        low = max(min(point.x for point in points), min(point.y for point in points))
        high = min(max(point.x for point in points), max(point.y for point in points))
        drawing.path("axis whisker", [axes.at(low, low), axes.at(high, high)])
    front = sorted((point for point in points if point.is_on_front), key=lambda point: point.x)
    if len(front) > 1:
        drawing.path("c1 curve", [axes.at(point.x, point.y) for point in front])
    for point in sorted(points, key=lambda point: point.is_on_front):
        x, y = axes.at(point.x, point.y)
        if point.is_on_front:
            drawing.path("c1 whisker", [axes.at(end, point.y) for end in point.x_ends])
            drawing.path("c1 whisker", [axes.at(point.x, end) for end in point.y_ends])
        size = 5 if point.is_on_front else 3
        drawing.add("circle", "c1" if point.is_on_front else "c0", point.name, cx=x, cy=y, r=size)
    named = {point.name: point for point in reversed(front)}  # of several alike the first
    axes.write_names([(*axes.at(point.x, point.y), name) for name, point in named.items()])
    return drawing


def curves(
    caption: str, lines: Sequence[tuple[str, Sequence[tuple[float, float]]]], x_title: str, y_title: str
) -> Drawing:
    """Return named curves over two logarithmic axes, each from a dotted line that halves when x doubles."""
    xs, ys = ([point[i] for _, line in lines for point in line] for i in (0, 1))
    axes = _Axes(Drawing(caption, _HEIGHT), xs, ys, x_title, y_title, [name for name, _ in lines], sorted(set(xs)))
    for number, (_, line) in enumerate(lines):
        color, (x, y) = _color(number), line[0]
        if len(line) > 1:
            end = min(line[-1][0], x * y / axes.lowest)  # cut where it leaves the chart
            axes.drawing.path(f"{color} ideal", [axes.at(x, y), axes.at(end, y * x / end)])
        points = [axes.at(*point) for point in line]
        axes.drawing.path(f"{color} curve", points)
        for x, y in points:
            axes.drawing.add("circle", color, cx=x, cy=y, r=3)
    axes.write_names([(*axes.at(*line[-1]), name) for name, line in lines])
    return axes.drawing


def timeline(caption: str, spans: Sequence[TimeSpan]) -> Drawing:
    """Return spans of days, one after another, over a scale of years."""
    first, last = spans[0].first, spans[-1].last
    drawing = Drawing(caption, 76)

    def at(day: datetime.date) -> float:
        return (day - first).days / ((last - first).days + 1) * WIDTH

    for span in spans:
        x, end = at(span.first), at(span.last + datetime.timedelta(days=1))
        width = max(end - x - 1, 1)  # one pixel of any span is seen, the last one's inside the frame
        drawing.add("rect", span.color, span.title, x=min(x, WIDTH - width), y=8, width=width, height=42)
        if end - x > 12:
            drawing.text((x + end) / 2, 34, span.mark, "middle").set("class", f"mark {span.color}")
    for year in range(first.year, last.year + 1):
        x, end = at(max(first, datetime.date(year, 1, 1))), at(min(last, datetime.date(year, 12, 31)))
        drawing.add("line", x1=x, x2=x, y1=50, y2=58)
        if end - x > 36:
            drawing.text(x + 3, 68, str(year))
    return drawing


class _Axes:
    """Two logarithmic axes that hold all values, with marks at round ones.

    Args:
        drawing: Where they are drawn.
        xs, ys: All values; must be above 0.
        names: What will stand in the right margin, which is as wide as they are.
        counts: Marks of the x axis, where they are few enough to be seen; else round values.
    """

    def __init__(
        self, drawing: Drawing, xs: Sequence[float], ys: Sequence[float], x_title: str, y_title: str,
        names: Sequence[str] = (), counts: Sequence[float] = (),
    ):  # fmt: skip
        self.drawing, self._x, self._y = drawing, _range(xs), _range(ys)
        self._right = WIDTH - max(_width(names), 24.0) - 14
        left, right, top, bottom = _LEFT, self._right, _TOP, _HEIGHT - _BOTTOM
        drawing.path("axis", [(left, top), (left, bottom), (right, bottom)])
        for value in counts if 0 < len(counts) <= _MOST_MARKS else marks(*self._x):
            x, _ = self.at(value, self.lowest)
            drawing.add("line", "grid", x1=x, x2=x, y1=top, y2=bottom)
            drawing.text(x, bottom + 18, _number(value), "middle")
        for value in marks(*self._y):
            _, y = self.at(self._x[0], value)
            drawing.add("line", "grid", x1=left, x2=right, y1=y, y2=y)
            drawing.text(left - 6, y + 4, _number(value), "end")
        drawing.text((left + right) / 2, _HEIGHT - 6, x_title, "middle")
        upward = drawing.text(0, 0, y_title, "middle")
        upward.set("transform", f"translate(13 {(top + bottom) / 2:g}) rotate(-90)")

    @property
    def lowest(self) -> float:
        """The y at the lower end."""
        return self._y[0]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return where a pair of values lies, from the left and from the top."""
        across, up = (
            math.log(value / low) / math.log(high / low) for value, (low, high) in ((x, self._x), (y, self._y))
        )
        return _LEFT + across * (self._right - _LEFT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)

    def write_names(self, points: Sequence[tuple[float, float, str]]) -> None:
        """Write names in the right margin, each with a thin line to its point; as many as there is room for.

        Args:
            points: From the left, from the top, and the name.
        """
        left = self._right + 14
        shown = sorted(points, key=lambda point: point[1])[: int((_HEIGHT - _TOP) // _LINE)]
        at = float(_TOP) - _LINE
        for number, (x, y, name) in enumerate(shown):
            # no name on the one above it, and none so low that those below it have no room
            at = min(max(at + _LINE, y + 4), _HEIGHT - 6 - _LINE * (len(shown) - 1 - number))
            self.drawing.path("leader", [(x + 6, y), (left - 3, at - 4)])
            self.drawing.text(left, at, name, most=_MOST_LETTERS)


def marks(low: float, high: float) -> list[float]:
    """Return at most eight round values between two."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values: list[float] = []
    for steps in ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        every = [step * 10.0**power for power in powers for step in steps]
        values = [value for value in every if low <= value * (1 + 1e-9) and value <= high * (1 + 1e-9)]
        if len(values) <= _MOST_MARKS:
            return values
    return values[:: math.ceil(len(values) / _MOST_MARKS)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if high / low < 1.6:
        middle = math.sqrt(low * high)
        low, high = middle / 1.3, middle * 1.3
    margin = (high / low) ** 0.04
    return low / margin, high * margin


def _number(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:g}M" if value < 1e9 else f"{value:.6g}"
    return f"{value:,.0f}" if value >= 10 else f"{value:.6g}"


def _width(texts: Iterable[str], most: float = _MOST_LETTERS * _LETTER) -> float:
    """Return how wide a column of words is at most, its gap among it; no wider than `most`, and than half a chart."""
    letters = max(map(len, texts), default=0)
    return min(letters * _LETTER, most, WIDTH / 2) + _GAP


def _color(number: int) -> str:
    return f"c{number % _NUM_COLORS}"
