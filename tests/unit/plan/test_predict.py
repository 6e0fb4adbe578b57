"""A prediction is the model of time times what the file says of its chip and software, with an interval around it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.catalog import load
from sampan.errors import PlanError
from sampan.plan.predict import predict
from sampan.plan.records import ParallelLayout
from sampan.plan.workloads.language import LanguageShape, language_model

MODEL = language_model(
    "model", LanguageShape(layers=32, hidden=4096, ffn=11008, heads=32, kv_heads=32, vocab=32000), 4096
)
LAYOUT = ParallelLayout(dp=8, zero_stage=1, recompute="full", accum=4)


def of(chip, **how):
    return predict(MODEL, LAYOUT, load.chip(chip), **how)


@given(
    chip=st.sampled_from(["h100_sxm", "ascend_910b2", "mlu590", "v100", "tpu_v5p"]),
    framework=st.sampled_from(["torch", "mindspore", "NeMo 24.07", "never heard of"]),
)
def test_the_middle_lies_within_the_interval_and_parts_add_up_to_it(chip, framework):
    found = of(chip, framework=framework)
    assert 0 < found.low_s < found.step_s < found.high_s
    assert sum(found.parts.values()) == pytest.approx(found.step_s)
    # as far up as down, by factors
    assert found.high_s / found.step_s == pytest.approx(found.step_s / found.low_s)


def test_chips_that_were_never_measured_borrow_and_are_less_sure():
    measured, borrowed = of("a100_80", framework="Megatron-LM"), of("mlu590", framework="Megatron-LM")
    assert measured.num_measurements > 0
    assert (borrowed.num_measurements, borrowed.basis) == (0, "no run on chips of this maker")
    assert borrowed.high_s / borrowed.low_s > measured.high_s / measured.low_s


def test_known_runs_are_near():
    """A sanity check by hand: Llama-2-7B on eight A100, about 40 to 60 % of the peak."""
    found = of("a100_80", framework="megatron-lm")
    useful = MODEL.flops * LAYOUT.global_batch / (found.step_s * 8)
    assert 0.35 * 312e12 < useful * 4 / 3 < 0.7 * 312e12


def test_more_chips_for_the_same_work_take_less_time_but_not_less_than_their_share():
    def step(dp):
        layout = ParallelLayout(dp=dp, zero_stage=1, recompute="full", accum=64 // dp)
        return predict(MODEL, layout, load.chip("h100_sxm")).step_s

    times = [step(dp) for dp in (8, 16, 32, 64)]
    assert times == sorted(times, reverse=True)
    assert all(slow / fast < 2 for slow, fast in pairwise(times))


def test_an_unknown_fact_is_an_error_that_names_it():
    with pytest.raises(PlanError) as caught:
        of("thead_ppu")
    assert caught.value.what == "a step on `thead_ppu` cannot be predicted"
    assert caught.value.because == ("of the chip its peak in bf16 and its memory bandwidth is not known",)
