"""Seconds from quantities: sums that can be done by hand, and what must never happen."""

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.catalog import load
from sampan.catalog.records import Chip, Memory, ScaleUp
from sampan.plan.device_work import device_work
from sampan.plan.records import ParallelLayout
from sampan.plan.time import PART_NAMES, ChipSpeeds, Rates, speeds, step_time
from sampan.plan.workloads.language import LanguageShape, language_model

MODEL = language_model("model", LanguageShape(layers=8, hidden=512, ffn=1280, heads=8, kv_heads=8, vocab=4096), 512)
SPEEDS = ChipSpeeds(
    matmul_flops_per_s=1e14, half_flops_per_s=1e14, memory_bytes_per_s=1e12, scale_up_bytes_per_s=1e11, domain=8,
    scale_out_bytes_per_s=1e10,
)  # fmt: skip
# nothing is lost and nothing takes time but products
IDEAL = Rates(
    matmul=1.0, thin=1e-9, attention=1.0, low_precision=1.0, memory=1e9, launch_s=0.0, blend=2.0, scale_up=1e9, scale_out=1e9,
    message_s=0.0, hidden=1.0, shared_hidden=1.0, sent=1.0, step_s=0.0, bubble=1.0,
)  # fmt: skip
LAYOUTS = st.builds(
    ParallelLayout, dp=st.sampled_from([1, 2, 16]), tp=st.sampled_from([1, 2, 8]), pp=st.sampled_from([1, 2, 4]),
    zero_stage=st.sampled_from([0, 1, 3]), recompute=st.sampled_from(["none", "selective", "full"]),
    micro_batch=st.integers(1, 4), accum=st.integers(1, 8),
)  # fmt: skip


def test_products_take_their_flops_over_the_peak():
    q = device_work(MODEL, ParallelLayout(micro_batch=2, accum=3))
    time = step_time(q, SPEEDS, IDEAL)
    assert time.matmul_s == pytest.approx(3 * (q.middle.matmul_flops + q.ends.matmul_flops) / 1e14)
    assert time.attention_s == pytest.approx(3 * q.middle.attention_flops / 1e14)
    assert time.total_s - time.input_s == pytest.approx(time.matmul_s + time.attention_s, rel=1e-6)
    # samples are read behind all of it
    assert 0 < time.input_s < q.input_bytes / 0.5e9


@given(layout=LAYOUTS)
def test_parts_add_up_and_none_is_below_zero(layout):
    time = step_time(device_work(MODEL, layout), SPEEDS, Rates())
    assert time.total_s == sum(getattr(time, name) for name in PART_NAMES)
    assert all(getattr(time, name) >= 0 for name in PART_NAMES)
    assert (time.pipeline_s > 0) == (layout.pp > 1)
    assert (time.data_parallel_s > 0) == (layout.dp > 1)


@given(layout=LAYOUTS, name=st.sampled_from([f.name for f in fields(ChipSpeeds) if f.name.endswith("_per_s")]))
def test_a_faster_chip_is_never_slower(layout, name):
    q = device_work(MODEL, layout)
    faster = replace(SPEEDS, **{name: 2 * getattr(SPEEDS, name)})
    # a launch hides behind computing: what is faster shows more of it, never more in all
    assert step_time(q, faster, Rates()).total_s <= step_time(q, SPEEDS, Rates()).total_s * (1 + 1e-9)


@given(layout=LAYOUTS)
def test_links_beyond_the_domain_cost_more(layout):
    wide, narrow = replace(SPEEDS, domain=1024), replace(SPEEDS, domain=1)
    q = device_work(MODEL, layout)
    assert step_time(q, wide, Rates()).total_s <= step_time(q, narrow, Rates()).total_s


def test_a_bubble_takes_the_time_of_idle_micro_batches():
    one = step_time(device_work(MODEL, ParallelLayout(pp=4, accum=8)), SPEEDS, IDEAL)
    assert one.pipeline_s == pytest.approx(3 / 8 * (one.matmul_s + one.attention_s), rel=0.5)
    pieces = step_time(device_work(MODEL, ParallelLayout(pp=4, accum=8, virtual=2)), SPEEDS, IDEAL)
    assert pieces.pipeline_s == pytest.approx(one.pipeline_s / 2, rel=1e-3)


def test_adding_gradients_up_hides_behind_the_backward_pass_if_the_software_lets_it():
    layout = ParallelLayout(dp=16)
    hidden, seen = (
        step_time(device_work(MODEL, layout, hides=h), SPEEDS, Rates()).data_parallel_s for h in (True, False)
    )
    assert 0 < hidden < seen


def test_launching_overlaps_with_computing_between_adding_up_and_the_longer_alone():
    q = device_work(MODEL, ParallelLayout())
    without = step_time(q, SPEEDS, replace(Rates(), launch_s=1e-12)).total_s
    time = step_time(q, SPEEDS, Rates())
    launches = q.middle.kernels + q.ends.kernels
    assert max(without, launches * Rates().launch_s) <= time.total_s <= without + launches * Rates().launch_s + 1e-6


def test_speeds_are_those_of_the_data_sheet():
    found = speeds(load.chip("h100_sxm"), "fp8")
    assert isinstance(found, ChipSpeeds)
    assert (found.is_low, found.domain) == (True, 8)
    assert found.matmul_flops_per_s > found.half_flops_per_s
    half = speeds(load.chip("h100_sxm"), "bf16")
    assert isinstance(half, ChipSpeeds)
    assert not half.is_low
    assert half.matmul_flops_per_s == half.half_flops_per_s == found.half_flops_per_s


def test_where_a_chip_has_no_units_for_fewer_bits_its_16_bit_ones_work():
    found = speeds(load.chip("a100_80"), "fp8")
    assert isinstance(found, ChipSpeeds)
    assert not found.is_low


def test_what_is_not_known_is_named():
    chip = Chip(name="new", title="New", vendor="Maker", maker_country="XX", status="released")
    assert speeds(chip) == "its peak in 16 bits and its memory bandwidth"
    assert speeds(replace(chip, peak_dense_flops_per_s={"bf16": 1e14}), "bf16") == "its memory bandwidth"
    known = replace(chip, peak_dense_flops_per_s={"bf16": 1e14}, memory=Memory(bytes_per_s=1e12))
    assert speeds(known, "fp32") == "its peak in fp32"
    assert isinstance(speeds(known), ChipSpeeds)


def test_without_a_link_to_its_domain_the_network_carries_all():
    chip = Chip(
        name="new", title="New", vendor="Maker", maker_country="XX", status="released",
        peak_dense_flops_per_s={"fp16": 1e14}, memory=Memory(bytes_per_s=1e12), scale_up=ScaleUp(domain=8),
        scale_out_bytes_per_s=5e9,
    )  # fmt: skip
    found = speeds(chip)
    assert isinstance(found, ChipSpeeds)
    assert found.scale_up_bytes_per_s == found.scale_out_bytes_per_s == 5e9
