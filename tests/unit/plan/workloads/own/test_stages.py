"""FLOPs of every stage are those that PyTorch's counter sees in the stage's real loss, to the last one."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from sampan.errors import PlanError
from sampan.models.config import ModelConfig
from sampan.models.presets import get
from sampan.plan.records import Workload, backward_flops
from sampan.plan.workloads.own.stages import stage_workload
from unit.plan.workloads.own import meta

NANO = get("nano")
# the released widths; layers are alike, so that a few stand for all
WIDE = get(
    "glm-image",
    {"text": {"num_hidden_layers": 3}, "vision": {"depth": 2}, "dit": {"num_layers": 3}, "glyph": {"num_layers": 2}},
)  # fmt: skip
SIZES = {"nano": ((128, 128), (64, 192)), "wide": ((512, 512), (768, 1024))}
CONFIGS = {"nano": NANO, "wide": WIDE}


def by_kind(workload: Workload) -> dict[str, float]:
    """Return forward and backward FLOPs as the counter names them."""
    found = {"mm": 0.0, "bmm": 0.0, "conv": 0.0}
    for block in workload.blocks:
        for op in block.ops:
            small = op.kind == "attention" or op.name.startswith("attention,") or op.name.endswith("product")
            kind = "conv" if op.kind == "conv" else "bmm" if small else "mm"
            found[kind] += block.repeat * (op.flops + backward_flops(op, block.grad))
    return {kind: flops for kind, flops in found.items() if flops}


def check(stage: str, config: ModelConfig, size: meta.Size, prompt: int, glyph: int, **more: Any) -> None:
    references, rank, targets = more.get("references", ()), more.get("rank"), more.get("targets", ())
    forward, both, kinds, module = meta.counted(
        stage, config, size, prompt=prompt, glyph=glyph, references=references, rank=rank, targets=targets
    )
    workload = stage_workload(
        stage, config, size=size, prompt_tokens=prompt, glyph_tokens=glyph, references=references, lora_rank=rank,
        lora_targets=targets,
    )  # fmt: skip
    parameters = list(module.parameters())
    assert workload.forward_flops == forward
    assert workload.flops == both
    assert by_kind(workload) == kinds
    assert workload.params == sum(p.numel() for p in parameters)
    assert workload.trained_params == sum(p.numel() for p in parameters if p.requires_grad)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("lengths", [(7, 9), (33, 20)])
@pytest.mark.parametrize("stage", ["vae", "tokenizer", "glyph", "ar", "decoder"])
@pytest.mark.parametrize("preset", ["nano", "wide"])
def test_a_stage_costs_what_the_counter_sees(preset: str, stage: str, lengths: tuple[int, int], which: int) -> None:
    check(stage, CONFIGS[preset], SIZES[preset][which], *lengths)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("rank", [None, 16])
@pytest.mark.parametrize("stage", ["ar", "decoder"])
@pytest.mark.parametrize("preset", ["nano", "wide"])
def test_with_references(preset: str, stage: str, rank: int | None, count: int) -> None:
    sizes = SIZES[preset]
    check(stage, CONFIGS[preset], sizes[0], 7, 9, references=sizes[:count], rank=rank)


@pytest.mark.parametrize(
    ("stage", "targets"),
    [
        ("ar", ()),
        ("ar", ("q_proj",)),
        ("ar", ("v_proj",)),
        ("ar", ("down_proj",)),
        ("ar", ("layers.3.mlp",)),
        ("ar", ("lm_head",)),
        ("decoder", ()),
        ("decoder", ("to_q",)),
        ("decoder", ("to_v", "norm1.linear")),
        ("decoder", ("prior_projector",)),
        ("decoder", ("timestep_embedder.linear_1",)),
        ("decoder", ("transformer_blocks.2.ff",)),
        ("decoder", ("proj_out",)),
    ],
)
@pytest.mark.parametrize("with_reference", [False, True])
def test_low_rank_additions_beside_any_layers(stage: str, targets: tuple[str, ...], with_reference: bool) -> None:
    references = SIZES["nano"][1:] if with_reference else ()
    check(stage, NANO, (128, 128), 7, 9, references=references, rank=4, targets=targets)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["vae", "tokenizer", "glyph", "ar", "decoder"])
def test_the_released_model(stage: str) -> None:
    check(stage, get("glm-image"), (1024, 1024), 100, 30)


def test_the_released_model_has_a_generator_of_9_and_a_decoder_of_7_billion() -> None:
    counts = [stage_workload(stage, get("glm-image")).params for stage in ("ar", "decoder")]
    assert [round(count / 1e9) for count in counts] == [9, 7]


def test_equal_layers_are_one_block() -> None:
    trunk = [block for block in stage_workload("decoder", get("glm-image")).blocks if block.is_trunk]
    assert [block.repeat for block in trunk] == [30]
    # with additions the first layer has fewer gradients
    lora = [block for block in stage_workload("decoder", get("glm-image"), lora_rank=16).blocks if block.is_trunk]
    assert [block.repeat for block in lora] == [1, 29]


def test_pictures_told_apart_cost_more_in_larger_batches() -> None:
    one, eight = (stage_workload("tokenizer", NANO, batch=batch).forward_flops for batch in (1, 8))
    assert eight - one == 2 * 7 * 128


def test_preparation_runs_forward_only() -> None:
    workload = stage_workload("preparation", NANO)
    assert workload.flops == workload.forward_flops
    assert workload.trained_params == 0
    assert not workload.has_average
    assert {block.grad for block in workload.blocks} == {"none"}


def test_wrong_values_are_refused() -> None:
    with pytest.raises(PlanError) as caught:
        stage_workload("decodre", NANO)
    assert (caught.value.what, caught.value.hint) == ("`decodre` is not a stage", "did you mean `decoder`?")
    with pytest.raises(PlanError) as caught:
        stage_workload("decoder", NANO, size=(100, 128))
    assert str(caught.value) == (
        "error: a picture of 128x100 px cannot be planned\n"
        "  because this model's sides are multiples of 16 px\n\n"
        "hint: 96 is the nearest to 100"
    )
    with pytest.raises(PlanError) as caught:
        stage_workload("vae", NANO, lora_rank=4)
    assert caught.value.what == "stage vae cannot train low-rank additions"


def test_a_config_decides_the_counts() -> None:
    half = dataclasses.replace(NANO, dit=dataclasses.replace(NANO.dit, num_layers=3))
    whole, less = (stage_workload("decoder", config) for config in (NANO, half))
    assert less.forward_flops < 0.6 * whole.forward_flops
