"""What a plan supposes, and the three numbers that it carries everywhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.plan.assumptions import Assumptions, Interval


@pytest.mark.parametrize(
    ("name", "value"), [("years", 0), ("years", 101), ("load_share", 1.01), ("memory_share", -0.1)]
)
def test_what_cannot_be_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} cannot be {value!r}"):
        Assumptions(**{name: value})


def test_every_number_is_said():
    said = " ".join(Assumptions(years=3, used_share=0.55, load_share=0.66, memory_share=0.77).lines())
    assert all(word in said for word in ("3 years", "55%", "66%", "77%"))


@given(st.tuples(*[st.floats(0, 1e12)] * 3), st.floats(0, 1e6))
def test_a_multiple_keeps_its_order(numbers, factor):
    low, typical, high = sorted(numbers)
    span = Interval(low=low, typical=typical, high=high).times(factor)
    assert span.low <= span.typical <= span.high
    assert span.typical == typical * factor
