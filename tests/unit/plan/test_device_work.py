"""What a chip does in an update, held against sums done by hand, and against what no layout may change."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.plan.device_work import device_work
from sampan.plan.records import ParallelLayout
from sampan.plan.workloads.language import ExpertsShape, LanguageShape, language_model

LAYERS, HIDDEN, FFN, HEADS, VOCAB, LENGTH = 8, 64, 160, 4, 512, 128
SHAPE = LanguageShape(layers=LAYERS, hidden=HIDDEN, ffn=FFN, heads=HEADS, kv_heads=HEADS, vocab=VOCAB)
MODEL = language_model("model", SHAPE, LENGTH)
EXPERTS = language_model(
    "experts",
    LanguageShape(
        layers=LAYERS, hidden=HIDDEN, ffn=FFN, heads=HEADS, kv_heads=HEADS, vocab=VOCAB,
        experts=ExpertsShape(num=8, per_token=2, ffn=32),
    ),
    LENGTH,
)  # fmt: skip
DEGREES = st.sampled_from([1, 2, 4])


def test_one_chip_multiplies_each_weight_six_times_a_token():
    found = device_work(MODEL, ParallelLayout(micro_batch=3))
    per_layer = 4 * HIDDEN * HIDDEN + 3 * HIDDEN * FFN
    assert found.middle.matmul_flops == 3 * 6 * LENGTH * LAYERS * per_layer
    assert found.ends.matmul_flops == 3 * 6 * LENGTH * HIDDEN * VOCAB
    # causal attention: half of 4·queries·keys·width, with 2.5 times as much backward
    assert found.middle.attention_flops == 3 * 3.5 * 0.5 * 4 * LENGTH * LENGTH * HIDDEN * LAYERS
    assert found.shared_bytes == 4 * MODEL.trained_params
    assert (found.bubble, found.sent_bytes, found.gathered_bytes) == (0, 0, 0)


def test_full_recomputation_multiplies_a_third_more_and_selective_only_attends_again():
    none, selective, full = (
        device_work(MODEL, ParallelLayout(recompute=how)).middle for how in ("none", "selective", "full")
    )
    assert full.matmul_flops == pytest.approx(none.matmul_flops * 4 / 3)
    assert selective.matmul_flops == none.matmul_flops
    assert selective.attention_flops == full.attention_flops == pytest.approx(none.attention_flops * 4.5 / 3.5)


@given(tp=DEGREES, pp=DEGREES, micro_batch=st.integers(1, 4))
def test_all_chips_together_multiply_the_same_however_the_trunk_is_divided(tp, pp, micro_batch):
    one = device_work(MODEL, ParallelLayout(micro_batch=micro_batch))
    divided = device_work(MODEL, ParallelLayout(tp=tp, pp=pp, micro_batch=micro_batch))
    assert divided.middle.matmul_flops * tp * pp == pytest.approx(one.middle.matmul_flops)
    assert divided.middle.attention_flops * tp * pp == pytest.approx(one.middle.attention_flops)
    assert divided.middle.memory_bytes * tp * pp == pytest.approx(one.middle.memory_bytes)


@given(pp=DEGREES, virtual=st.integers(1, 2), accum=st.integers(1, 8))
def test_a_pipeline_stands_idle_for_its_depth_over_its_pieces(pp, virtual, accum):
    found = device_work(MODEL, ParallelLayout(pp=pp, virtual=virtual, accum=accum))
    assert found.bubble == (pp - 1) / virtual
    assert found.passes == accum
    assert (found.sent_bytes > 0) == (pp > 1)


@pytest.mark.parametrize(("stage", "gathered", "bytes_of_a_gradient"), [(0, 0, 4), (1, 0, 4), (2, 0, 4), (3, 2, 2)])
def test_what_is_shared_over_ranks_follows_the_zero_stage(stage, gathered, bytes_of_a_gradient):
    found = device_work(MODEL, ParallelLayout(dp=4, zero_stage=stage))
    assert found.shared_bytes == bytes_of_a_gradient * MODEL.trained_params
    assert found.gathered_bytes == gathered * MODEL.params
    assert found.update_bytes == 34 * MODEL.trained_params / (4 if stage else 1)
    assert found.replicas == 4


def test_tensor_parallelism_adds_up_twice_a_layer_each_way():
    found = device_work(MODEL, ParallelLayout(tp=4)).middle
    assert found.sums == 2 * 2 * LAYERS
    # a ring sends (n - 1) / n of the values twice
    assert found.sum_bytes == pytest.approx(found.sums * 2 * 2 * LENGTH * HIDDEN * 3 / 4)


def test_expert_parallelism_divides_experts_weights_and_sends_tokens():
    one, eight = (device_work(EXPERTS, ParallelLayout(dp=8, ep=ep)) for ep in (1, 8))
    assert (one.middle.dispatch_bytes, one.middle.dispatches) == (0, 0)
    assert eight.middle.dispatches > 0
    assert eight.middle.matmul_flops == pytest.approx(one.middle.matmul_flops)
    assert eight.shared_bytes < one.shared_bytes


def test_gradients_are_hidden_or_not_as_the_software_does():
    assert device_work(MODEL, ParallelLayout(dp=2)).hides
    assert not device_work(MODEL, ParallelLayout(dp=2), hides=False).hides
