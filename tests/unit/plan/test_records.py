"""The nouns of a plan: intervals, and which layers lie on which pipeline stage."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.plan.records import Interval, Workload, WorkloadBlock, pipeline_stages, product
from sampan.plan.workloads.language import LanguageShape, language_model

LAYER = WorkloadBlock(name="layers", ops=(product("w", 10, 20, 30),), repeat=8, params=600, is_trunk=True)
PLAIN = Workload(name="plain", family="other", sample="row", blocks=(LAYER,))
DENSE = language_model("dense", LanguageShape(layers=8, hidden=64, ffn=160, heads=8, kv_heads=2, vocab=500), 64)
spans = (
    st.tuples(*[st.floats(0, 1e12)] * 3)
    .map(sorted)
    .map(lambda ends: Interval(low=ends[0], typical=ends[1], high=ends[2]))
)


@given(spans, st.floats(0, 1e6))
def test_a_multiple_keeps_its_order(span, factor):
    multiple = span.times(factor)
    assert multiple.low <= multiple.typical <= multiple.high
    assert multiple.typical == span.typical * factor


@given(spans, spans)
def test_a_sum_adds_ends_to_ends(first, second):
    total = first + second
    assert total.as_dict() == {
        "low": first.low + second.low,
        "typical": first.typical + second.typical,
        "high": first.high + second.high,
    }


def repeats(workload, pp, virtual=1):
    return [[repeat for _, repeat in parts] for parts in pipeline_stages(workload, pp, virtual)]


def test_pieces_are_even_and_the_longer_ones_in_the_middle():
    ten = replace(PLAIN, blocks=(replace(LAYER, repeat=10),))
    assert repeats(ten, 4) == [[2], [3], [3], [2]]
    assert repeats(PLAIN, 2, 2) == [[2, 2], [2, 2]]
    assert repeats(PLAIN, 3) == [[3], [3], [2]]
    names = [[(block.name, repeat) for block, repeat in parts] for parts in pipeline_stages(DENSE, 3)]
    assert names == [[("embedding", 1), ("layers", 3)], [("layers", 3)], [("layers", 2), ("head", 1)]]
    with pytest.raises(ValueError) as caught:
        pipeline_stages(PLAIN, 9)
    assert str(caught.value) == "8 layers cannot be cut into 9 pieces"
