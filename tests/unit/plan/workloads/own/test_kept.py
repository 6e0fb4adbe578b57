"""What a pass keeps for the backward one, held against the meter, which follows every tensor's memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sampan.frameworks import meter
from sampan.frameworks.torch import meter as torch_meter
from sampan.models import lora
from sampan.models.presets import get
from sampan.plan.workloads.own import count, parts
from sampan.plan.workloads.own.stages import stage_workload
from unit.plan.workloads.own import meta

WIDE = get("glm-image", {"text": {"num_hidden_layers": 3}, "dit": {"num_layers": 3}})


@pytest.mark.parametrize("rank", [None, 16])
@pytest.mark.parametrize("stage", ["ar", "decoder"])
def test_values_kept_are_those_that_live_after_the_forward_pass(
    stage: str, rank: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(count, "_KERNELS", torch_meter.kernels("cpu"))
    parts.stage_blocks.cache_clear()
    made = meta.stage_of(stage, WIDE)
    if rank is not None:
        lora.attach(made.module, stage, WIDE, rank)
    size = (512, 512)
    arrays = [
        np.empty(tuple(one.shape), np.int64 if one.dtype == torch.int64 else np.float32)
        if isinstance(one, torch.Tensor)
        else one
        for one in meta.arrays_of(stage, WIDE, size, 64, 32, (), "meta")
    ]
    measured = meter.measure(
        made.module, made.loss, arrays, device="cpu", dtype="fp32",
        trainable=lora.trainable if rank is not None else lambda name: True,
    )  # fmt: skip
    workload = stage_workload(stage, WIDE, size=size, prompt_tokens=64, glyph_tokens=32, lora_rank=rank)
    kept = sum(block.repeat * (block.kept + block.kept_whole) for block in workload.blocks)
    parts.stage_blocks.cache_clear()
    assert kept == pytest.approx(measured.kept_bytes / 4, rel=0.001)
