"""Memory under a layout: by hand in closed cases, by its laws elsewhere, and against what was published."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.plan.conventions import CONVENTIONS, MOMENTS, Convention
from sampan.plan.memory import MemoryModel, in_flight
from sampan.plan.records import ParallelLayout, Workload, WorkloadBlock, product
from sampan.plan.workloads.language import ExpertsShape, LanguageShape, language_model

BARE = Convention(name="bare", context_bytes=0.0, slack=0.0)
LAYER = WorkloadBlock(
    name="layers", ops=(product("w", 10, 20, 30, split="columns"),), repeat=8, params=600, tokens=10, width=20,
    kept=1000, kept_whole=400, kept_attention=300, is_trunk=True,
)  # fmt: skip
PLAIN = Workload(name="plain", family="other", sample="row", blocks=(LAYER,))
SHAPE = LanguageShape(layers=8, hidden=64, ffn=160, heads=8, kv_heads=2, vocab=500)
DENSE = language_model("dense", SHAPE, 64)
MIXED = language_model("mixed", replace(SHAPE, experts=ExpertsShape(num=8, per_token=2, ffn=32)), 64)
LORA = language_model("lora", SHAPE, 64, method="lora")


def needed(workload, layout, convention):
    return MemoryModel(workload, convention)(layout)


def test_megatrons_eighteen_bytes_and_six_and_twelve_shared():
    need = needed(PLAIN, ParallelLayout(), BARE)
    states = need.weights + need.gradients + need.moments + need.master
    assert states == 18 * 4800
    need = needed(PLAIN, ParallelLayout(dp=4, zero_stage=1), BARE)
    assert need.weights + need.gradients + need.moments + need.master == (6 + 12 / 4) * 4800


@pytest.mark.parametrize(("stage", "bytes_per_value"), [(0, 16), (1, 4 + 12 / 64), (2, 2 + 14 / 64), (3, 16 / 64)])
def test_the_stages_of_zero_as_its_authors_count_them(stage, bytes_per_value):
    need = needed(PLAIN, ParallelLayout(dp=64, zero_stage=stage), CONVENTIONS["deepspeed"])
    assert need.weights + need.gradients + need.moments + need.master == pytest.approx(bytes_per_value * 4800)


def test_activations_by_hand():
    size = 2 * 3  # bytes, samples
    work = 10 * (20 + 30) + 200  # both sides' gradients of the product, and the residual's
    need = needed(PLAIN, ParallelLayout(micro_batch=3), BARE)
    assert (need.activations, need.workspace) == (size * 8 * 1400, size * work)
    need = needed(PLAIN, ParallelLayout(micro_batch=3, recompute="selective"), BARE)
    assert need.activations == size * 8 * 1100
    need = needed(PLAIN, ParallelLayout(micro_batch=3, recompute="full"), BARE)
    assert (need.activations, need.workspace) == (size * 8 * 200, size * (1400 - 200 + work))
    need = needed(PLAIN, ParallelLayout(micro_batch=3, tp=2), BARE)
    assert need.activations == size * 8 * 700
    need = needed(PLAIN, ParallelLayout(micro_batch=3, tp=2), replace(BARE, sequence_parallel=False))
    assert need.activations == size * 8 * 900
    assert needed(PLAIN, ParallelLayout(micro_batch=3, cp=2), BARE).activations == size * 8 * 700


def test_the_published_formula_of_a_layers_activations():
    # Korthikanti et al. 2022, table 2: s·b·h·(10 + 24 / t + 5·a·s / (h·t)) bytes a layer under tensor parallelism,
    # all of it over t with sequence parallelism; for 22B: a 64, h 6144, s 2048, b 4, t 8
    s, h, a, t, b = 2048, 6144, 64, 8, 4
    scores = 5 * a * s * s / 2
    layer = WorkloadBlock(
        name="layers", ops=(), repeat=48, params=12 * h * h, tokens=s, width=h, is_trunk=True,
        kept_whole=5 * s * h, kept=12 * s * h + scores, kept_attention=scores,
    )  # fmt: skip
    workload = Workload(name="22B", family="llm-dense", sample="sequence", blocks=(layer,))
    whole = needed(workload, ParallelLayout(tp=t, micro_batch=b), replace(BARE, sequence_parallel=False))
    assert whole.activations == pytest.approx(48 * s * b * h * (10 + 24 / t + 5 * a * s / (h * t)))
    divided = needed(workload, ParallelLayout(tp=t, micro_batch=b, recompute="selective"), BARE)
    assert divided.activations == pytest.approx(48 * s * b * h * 34 / t)


@pytest.mark.parametrize(
    ("layout", "rank", "flights"),
    [
        (ParallelLayout(pp=4, accum=16), 0, 4),
        (ParallelLayout(pp=4, accum=16), 3, 1),
        (ParallelLayout(pp=4, accum=2), 0, 2),
        # Korthikanti et al. 2022, section 4.2.3: p·(1 + (p - 1) / (p·m)) on the first rank
        (ParallelLayout(pp=4, virtual=2, accum=16), 0, 4 * (1 + 3 / 8)),
        (ParallelLayout(pp=4, virtual=2, accum=16), 3, 2.5),
    ],
)
def test_micro_batches_in_flight(layout, rank, flights):
    assert in_flight(layout, rank) == flights


def test_frozen_weights_have_no_gradients():
    need = needed(LORA, ParallelLayout(), BARE)
    assert need.frozen == pytest.approx(2 * LORA.params)
    assert need.gradients == pytest.approx(4 * LORA.trained_params)


def test_what_only_looks_keeps_nothing():
    watcher = replace(LAYER, name="encoder", grad="none", is_trunk=False)
    both = Workload(name="both", family="dit", sample="row", blocks=(watcher, LAYER))
    alone, with_it = needed(PLAIN, ParallelLayout(), BARE), needed(both, ParallelLayout(), BARE)
    assert with_it.frozen == 2 * 4800
    assert with_it.total == alone.total + 2 * 4800


def test_experts_are_divided_by_their_own_degree():
    whole, divided = needed(MIXED, ParallelLayout(dp=8), BARE), needed(MIXED, ParallelLayout(dp=8, ep=8), BARE)
    of_experts = sum(block.repeat * block.expert_params for block in MIXED.blocks)
    assert whole.weights - divided.weights == pytest.approx(2 * of_experts * 7 / 8)


def test_an_average_is_four_bytes_and_moments_follow_the_optimizer():
    assert needed(replace(PLAIN, has_average=True), ParallelLayout(), BARE).average == 4 * 4800
    assert needed(PLAIN, ParallelLayout(), BARE).average == 0
    assert needed(PLAIN, ParallelLayout(), replace(BARE, moments=MOMENTS["adamw-8bit"])).moments == pytest.approx(
        2.03125 * 4800
    )


def test_the_need_is_written_with_what_takes_it():
    assert str(needed(PLAIN, ParallelLayout(), BARE)) == (
        "107.6 KiB: weights 9.4 KiB, gradients 18.8 KiB, moments 37.5 KiB, master 18.8 KiB, activations 21.9 KiB, "
        "workspace 1.4 KiB"
    )


LAYOUTS = st.builds(
    ParallelLayout,
    dp=st.sampled_from([1, 2, 8]), tp=st.sampled_from([1, 2, 4]), pp=st.sampled_from([1, 2, 4]),
    cp=st.sampled_from([1, 2]), virtual=st.just(1), zero_stage=st.integers(0, 3),
    recompute=st.sampled_from(["none", "selective", "full"]), micro_batch=st.integers(1, 4), accum=st.sampled_from([4, 12]),
)  # fmt: skip
WORKLOADS = st.sampled_from([DENSE, MIXED, LORA])
KINDS = st.sampled_from(list(CONVENTIONS.values()))


@settings(max_examples=60, deadline=None)
@given(workload=WORKLOADS, layout=LAYOUTS, convention=KINDS)
def test_what_saves_memory_never_costs_any(workload, layout, convention):
    needs = MemoryModel(workload, convention)
    total = needs.total(layout)
    assert total == pytest.approx(needs(layout).total)
    assert needs.total(replace(layout, micro_batch=layout.micro_batch + 1)) >= total
    # the same samples in larger micro-batches
    assert needs.total(replace(layout, micro_batch=4 * layout.micro_batch, accum=layout.accum // 4)) >= total * (
        1 - 1e-9
    )
    if layout.pp > 1:
        assert needs.total(replace(layout, virtual=2)) >= total * (1 - 1e-9)
    totals = [needs.total(replace(layout, recompute=one)) for one in ("none", "selective", "full")]
    assert totals[0] * (1 + 1e-9) >= totals[1] and totals[0] * (1 + 1e-9) >= totals[2]
    need = needs(layout)
    if layout.zero_stage < 3:
        more = needs(replace(layout, zero_stage=layout.zero_stage + 1))
        assert more.weights + more.gradients + more.moments + more.master <= (
            need.weights + need.gradients + need.moments + need.master
        ) * (1 + 1e-9)
    assert needs(replace(layout, tp=2 * layout.tp)).weights <= need.weights * (1 + 1e-9)


# torchtitan's published peaks: reserved memory on H100, sequences of 8192, micro-batch of 2, op-level selective
# recomputation, compiled (github.com/pytorch/torchtitan, benchmarks/llama3_h100_202412_torchtitan.md, tables 1 and 3)
@pytest.mark.parametrize(("chips", "published_gib"), [(8, 77.0), (128, 62.0)])
def test_published_peaks_within_a_tenth(chips, published_gib):
    shape = LanguageShape(layers=32, hidden=4096, ffn=14336, heads=32, kv_heads=8, vocab=128256)
    layout = ParallelLayout(dp=chips, zero_stage=3, recompute="selective", micro_batch=2)
    need = needed(language_model("Llama-3.1-8B", shape, 8192), layout, CONVENTIONS["fsdp"])
    assert need.total / 2**30 == pytest.approx(published_gib, rel=0.1)
