"""Models of which only sizes are known have these sizes, and say that their shape is a guess."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.plan.efficiency import is_assumed
from sampan.plan.workloads.usual import NOTE, usual_model


@given(st.floats(3e8, 1e12))
def test_a_dense_model_has_so_many_parameters(params):
    made = usual_model("m", params, 4096)
    assert made.params == pytest.approx(params, rel=0.15)
    assert made.family == "llm-dense"
    assert is_assumed(made)
    assert NOTE in made.notes


@given(st.floats(1e9, 5e10), st.floats(2, 30))
def test_a_model_with_experts_has_both_counts(active, more):
    made = usual_model("m", active * more, 4096, active_params=active)
    assert made.family == "llm-moe"
    assert made.params == pytest.approx(active * more, rel=0.15)
    # a token multiplies what it meets, and attends
    assert made.flops / 4096 / 6 == pytest.approx(active, rel=0.3)


def test_a_model_is_not_all_experts_where_both_counts_are_the_same():
    assert usual_model("m", 7e9, 4096, active_params=7e9).family == "llm-dense"
