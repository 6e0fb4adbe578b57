"""Charts stay inside their frame, say what they show, and hold up against values that nobody would choose."""

import datetime
import math
import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sampan.report.charts import (
    WIDTH,
    Bar,
    Point,
    TimeSpan,
    TornadoBar,
    bars,
    curves,
    marks,
    scatter,
    timeline,
    tornado,
)  # fmt: skip

DAY = datetime.date(2022, 3, 5)
POSITIVE = st.floats(1e-6, 1e9)
POINTS = st.lists(
    st.builds(
        lambda x, y, spread, front: Point(
            name="a < b", x=x, y=y, x_ends=(x / spread, x * spread), y_ends=(y / spread, y * spread), is_on_front=front
        ),
        POSITIVE, POSITIVE, st.floats(1, 10), st.booleans(),
    ),
    min_size=1, max_size=30,
)  # fmt: skip


def bar(name, *values, limit=None):
    return Bar(name=name, parts=[(f"p{i}", value) for i, value in enumerate(values)], text="1 s", limit=limit)


def height(drawing):
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawing)
    assert found is not None
    assert float(found[1]) == WIDTH
    return float(found[2])


def assert_inside(drawing):
    bottom = height(drawing)
    for name, most in (
        ("cx", WIDTH),
        ("cy", bottom),
        ("x1", WIDTH),
        ("x2", WIDTH),
        ("y1", bottom),
        ("y2", bottom),
        ("x", WIDTH),
    ):
        for value in re.findall(rf' {name}="(-?[\d.e+-]+)"', drawing):
            assert -0.11 <= float(value) <= most + 0.11, (name, value)
    for x, width in re.findall(r'<rect [^>]*?x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', drawing):
        assert float(x) + float(width) <= WIDTH + 0.11
    assert "nan" not in drawing
    assert "inf" not in drawing


@given(POINTS, st.booleans())
def test_a_scatter_lies_in_its_frame(points, diagonal):
    drawing = str(scatter("what it shows", points, "x", "y", diagonal=diagonal))
    assert_inside(drawing)
    assert drawing.count("<circle") == len(points)
    assert 'role="img" aria-label="what it shows"' in drawing
    assert "a < b" not in drawing


def test_a_name_in_the_margin_stands_once():
    alike = [Point(name="8 x chip", x=2, y=y, x_ends=(1, 3), y_ends=(y, y), is_on_front=True) for y in (1, 2, 3)]
    assert str(scatter("what", alike, "x", "y")).count("8 x chip</text>") == 1


@given(POINTS)
def test_names_in_the_margin_do_not_lie_on_each_other(points):
    drawing = str(scatter("what", points, "x", "y"))
    margin = [float(y) for y in re.findall(r'<text x="624\.0" y="([\d.]+)">', drawing)]
    assert all(below - above >= 14.9 for above, below in pairwise(margin))
    assert all(0 <= y <= height(drawing) for y in margin)


@given(st.lists(st.lists(st.tuples(st.integers(1, 10**5), POSITIVE), min_size=1, max_size=8), min_size=1, max_size=8))
def test_curves_lie_in_their_frame(lines):
    named = [(f"chip {i}", sorted((float(x), y) for x, y in line)) for i, line in enumerate(lines)]
    assert_inside(str(curves("what", named, "chips", "hours")))


@given(
    st.lists(
        st.builds(
            lambda values, limit: bar("8 x chip", *values, limit=limit),
            st.lists(st.just(0.0) | st.floats(1e-9, 1e12), min_size=1, max_size=11), st.none() | st.floats(1, 1e12),
        ),
        min_size=1, max_size=9,
    )
)  # fmt: skip
def test_stacked_bars_lie_in_their_frame(rows):
    assert_inside(str(bars("what", rows)))


@given(st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)), max_size=9))
def test_a_tornado_lies_in_its_frame(ends):
    swings = [TornadoBar(name="input", low=low, high=high, text="-1% to +1%") for low, high in ends]
    assert_inside(str(tornado("what", swings)))


def test_a_bar_is_as_long_as_its_value():
    drawing = bars(
        "what", [Bar(name="a", parts=[("x", 1.0), ("y", 3.0)], text=""), Bar(name="b", parts=[("x", 8.0)], text="")]
    )
    widths = [float(width) for width in re.findall(r'width="([\d.]+)" height="18', str(drawing))]
    assert widths[1] / widths[0] == pytest.approx(3, rel=1e-2)
    assert widths[2] / widths[0] == pytest.approx(8, rel=1e-2)


@given(POSITIVE, st.floats(1.5, 1e9))
def test_marks_are_round_few_and_between(low, factor):
    found = marks(low, low * factor)
    assert len(found) <= 8
    assert all(low <= value * (1 + 1e-8) and value <= low * factor * (1 + 1e-8) for value in found)
    assert all(round(value / 10 ** math.floor(math.log10(value) + 1e-9), 6) in (1, 1.5, 2, 3, 5, 7) for value in found)


def test_a_bar_with_an_interval_holds_it_and_one_kind_of_parts_has_no_legend():
    drawing = str(bars("what", [Bar(name="a", parts=[("", 1.0)], text="1 s", interval=(0.5, 4.0))]))
    assert_inside(drawing)
    (width,) = re.findall(r'width="([\d.]+)"', drawing)
    ((low, high),) = re.findall(r'x1="([\d.]+)" x2="([\d.]+)"', drawing)
    assert float(high) - float(low) == pytest.approx(3.5 * float(width), rel=1e-2)


def test_bars_of_nothing_are_not_drawn():
    drawing = str(bars("memory", [Bar(name="a", parts=[("", 0.0)], text="unknown")]))
    assert "<rect" not in drawing and "unknown" in drawing
    assert_inside(drawing)


def test_what_comes_in_is_escaped_and_what_is_long_is_cut_with_a_tooltip():
    name = "<script>" + "&" * 40
    for drawing in (
        bars(name, [Bar(name=name, parts=[(name, 1.0), ("b", 1.0)], text=name)]),
        tornado(name, [TornadoBar(name=name, low=0.5, high=2, text=name)]),
        scatter(name, [Point(name=name, x=1, y=1, x_ends=(1, 1), y_ends=(1, 1), is_on_front=True)], name, name),
        curves(name, [(name, [(1, 1)])], name, name),
    ):
        assert "<script" not in str(drawing)
        assert f"<title>&lt;script&gt;{'&amp;' * 40}" in str(drawing) and "…" in str(drawing)
        assert drawing.__html__() == str(drawing)


@example([900, 900, 900, 900, 1])  # the last span is thinner than a pixel
@given(st.lists(st.integers(1, 900), min_size=1, max_size=9))
def test_a_timeline_lies_in_its_frame_and_its_spans_are_as_long_as_their_days(days):
    ends = [DAY + datetime.timedelta(days=sum(days[:i])) for i in range(len(days) + 1)]
    spans = [
        TimeSpan(first=first, last=after - datetime.timedelta(days=1), mark="<", title="a < b", color="c1")
        for first, after in pairwise(ends)
    ]
    drawing = str(timeline("what", spans))
    assert_inside(drawing)
    widths = [float(width) for width in re.findall(r'width="([\d.]+)"', drawing)]
    assert len(widths) == len(days)
    for width, length in zip(widths, days, strict=True):
        assert width == pytest.approx(max(length / sum(days) * WIDTH - 1, 1), abs=0.1)
    assert drawing.count("<title>a &lt; b") == len(days)


def test_a_timeline_names_years_where_there_is_room():
    span = TimeSpan(first=DAY, last=datetime.date(2024, 1, 2), mark="p", title="", color="c1")
    drawing = str(timeline("what", [span]))
    assert [year for year in ("2022", "2023", "2024") if year in drawing] == ["2022", "2023"]
    assert drawing.count("<line") == 3
