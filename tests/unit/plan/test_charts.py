"""Drawings stay inside their frame, say what they show, and hold up against values that nobody would choose."""

import math
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sampan.plan.charts import WIDTH, Bar, Point, TornadoBar, curves, marks, scatter, stacked, tornado

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


def said(value):
    return f"{value:.3g}"


def bar(name, *values, limit=None):
    return Bar(name=name, parts=[(f"p{i}", value) for i, value in enumerate(values)], said="1 s", limit=limit)


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
    for x, width in re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', drawing):
        assert float(x) + float(width) <= WIDTH + 0.6
    assert "nan" not in drawing
    assert "inf" not in drawing


@given(POINTS, st.booleans())
def test_a_scatter_lies_in_its_frame(points, diagonal):
    drawing = scatter("what it shows", points, "x", "y", said, said, diagonal=diagonal)
    assert_inside(drawing)
    assert drawing.count("<circle") == len(points)
    assert 'role="img" aria-label="what it shows"' in drawing
    assert "a < b" not in drawing


@given(POINTS)
def test_names_in_the_margin_do_not_lie_on_each_other(points):
    drawing = scatter("what", points, "x", "y", said, said)
    margin = [float(y) for y in re.findall(r'<text x="624\.0" y="([\d.]+)">a &lt; b', drawing)]
    assert all(below - above >= 14.9 for above, below in pairwise(margin))
    assert all(0 <= y <= height(drawing) for y in margin)


@given(st.lists(st.lists(st.tuples(st.integers(1, 10**5), POSITIVE), min_size=1, max_size=8), min_size=1, max_size=8))
def test_curves_lie_in_their_frame(lines):
    named = [(f"chip {i}", sorted((float(x), y) for x, y in line)) for i, line in enumerate(lines)]
    assert_inside(curves("what", named, "chips", "hours", said, said))


@given(
    st.lists(
        st.builds(
            lambda values, limit: bar("8 x chip", *values, limit=limit),
            st.lists(st.just(0.0) | st.floats(1e-9, 1e12), min_size=1, max_size=11), st.none() | st.floats(1, 1e12),
        ),
        min_size=1, max_size=9,
    )
)  # fmt: skip
def test_stacked_bars_lie_in_their_frame(bars):
    assert_inside(stacked("what", bars))


@given(st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)), max_size=9))
def test_a_tornado_lies_in_its_frame(ends):
    swings = [TornadoBar(name="input", low=low, high=high, said="-1% to +1%") for low, high in ends]
    assert_inside(tornado("what", swings))


def test_a_bar_is_as_long_as_its_value():
    drawing = stacked(
        "what", [Bar(name="a", parts=[("x", 1.0), ("y", 3.0)], said=""), Bar(name="b", parts=[("x", 8.0)], said="")]
    )
    widths = [float(width) for width in re.findall(r'width="([\d.]+)" height="18"', drawing)]
    assert widths[1] / widths[0] == pytest.approx(3, rel=1e-2)
    assert widths[2] / widths[0] == pytest.approx(8, rel=1e-2)


@given(POSITIVE, st.floats(1.5, 1e9))
def test_marks_are_round_few_and_between(low, factor):
    found = marks(low, low * factor)
    assert len(found) <= 8
    assert all(low <= value * (1 + 1e-8) and value <= low * factor * (1 + 1e-8) for value in found)
    assert all(round(value / 10 ** math.floor(math.log10(value) + 1e-9)) in (1, 2, 3, 5) for value in found)
