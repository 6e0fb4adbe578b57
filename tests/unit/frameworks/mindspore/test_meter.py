"""What a pass costs on outlines is what PyTorch's meter finds, for every stage; and nothing is left behind by measuring."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest

from sampan.frameworks import OPS_NAMES
from sampan.frameworks.mindspore import device as dev
from sampan.frameworks.mindspore import meter, nn, ops

COSTS = Path(__file__).resolve().parents[1] / "costs.py"
SOURCE = Path(__file__).resolve().parents[4] / "src"
SHALLOW = ("text.num_hidden_layers=2", "dit.num_layers=2", "vision.depth=1", "glyph.num_layers=2")
FLOPS = ("forward_flops", "useful_flops", "executed_flops")
COUNTS = ("trained", "coded", "frozen", "frozen_rows", "batch_bytes")


def costs(folder: Path, preset: str, *overrides: str) -> tuple[dict[str, Any], ...]:
    """Return what stages cost on PyTorch, and on outlines with fused kernels and without, each in its own process."""
    sides = (("torch", "cpu"), ("mindspore", "npu"), ("mindspore", "cpu"))
    processes = [
        subprocess.Popen(
            [sys.executable, str(COSTS), str(folder / f"{framework}-{device}"), preset, device, *overrides],
            env={**os.environ, "SAMPAN_FRAMEWORK": framework, "PYTHONPATH": str(SOURCE)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for framework, device in sides
    ]
    answers = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    return tuple(json.loads(answer.splitlines()[-1]) for answer in answers)


def check(found: tuple[dict[str, Any], ...]) -> None:
    theirs, fused, written_out = found
    assert theirs.keys() == fused.keys() == written_out.keys()
    for case, cost in theirs.items():
        assert [fused[case][name] for name in FLOPS] == [cost[name] for name in FLOPS], case
        assert [fused[case][name] for name in COUNTS] == [cost[name] for name in COUNTS], case
        assert [written_out[case][name] for name in FLOPS[:2]] == [cost[name] for name in FLOPS[:2]], case
        if (
            "mixed" in case
        ):  # PyTorch makes copies of its fp32 weights in the lower dtype, MindSpore has working weights
            continue
        # what goes into frozen linear maps is kept too: a larger share where there is little else
        most = 1.5 if "lora" in case else 1.1
        for kind in ("kept_bytes", "peak_bytes"):
            assert 0.7 < fused[case][kind] / cost[kind] < most, (case, kind)
        # attention's weights are kept, and not computed again; a norm written out may keep a row's number less
        assert written_out[case]["kept_bytes"] > 0.99 * fused[case]["kept_bytes"], case
        assert written_out[case]["executed_flops"] <= cost["executed_flops"], case


def test_every_stage_costs_what_it_costs_on_pytorch(tmp_path: Path):
    check(costs(tmp_path, "nano", *SHALLOW))


@pytest.mark.slow  # a minute: PyTorch's fake tensors go through the released sizes, layer by layer
def test_the_released_sizes_cost_what_they_cost_on_pytorch(tmp_path: Path):
    check(costs(tmp_path, "glm-image"))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5000, 4)
        self.wide = nn.Linear(4, 2048)
        self.low = nn.Linear(2048, 3)

    def forward(self, ids: Any) -> Any:
        return self.low(ops.silu(self.wide(self.table(ids))))


def net() -> Net:
    with dev.on_meta():
        return Net()


def loss(module: Any, ids: Any) -> Any:
    y = module(ids)
    return ops.mean(y * y), {"y": ops.stop_gradient(y)}


IDS = np.zeros((6,), np.int64)
WIDE, LOW = 2048 * 4 + 2048, 3 * 2048 + 3


def test_values_are_counted_by_what_becomes_of_them():
    found = meter.count(net(), lambda name: not name.startswith("low"), {"table.weight": 30})
    trained = 30 * 4 + WIDE
    assert (found.trained, found.coded, found.frozen, found.frozen_rows) == (trained, 2048 * 4, LOW, 4970 * 4)
    assert found.num_ranks == 1 and found.update_bytes % trained == 0


def test_weights_below_fp32_stand_beside_those_that_are_trained():
    full, half = (meter.measure(net(), loss, (IDS,), device="cpu", dtype="fp32", autocast=d) for d in ("fp32", "fp16"))
    assert full.working_bytes == 0 and half.working_bytes == 2 * (20000 + WIDE + LOW)
    assert half.useful_flops == full.useful_flops == 2 * 6 * (3 * 2048 * 3 + 3 * 2048 * 4)
    assert half.kept_bytes < 0.6 * full.kept_bytes and half.batch_bytes == full.batch_bytes == IDS.nbytes


def test_what_is_frozen_has_no_gradient():
    whole, only_low = (
        meter.measure(net(), loss, (IDS,), device="cpu", dtype="fp32", trainable=lambda n, s=s: n.startswith(s))
        for s in ("", "low")
    )
    assert only_low.useful_flops - only_low.forward_flops == 2 * 6 * 2048 * 3
    assert only_low.kept_bytes < 0.6 * whole.kept_bytes  # of two wide arrays, silu's input is kept by nothing
    assert only_low.peak_bytes < 0.6 * whole.peak_bytes


@pytest.mark.parametrize("fails", [False, True])
def test_module_and_functions_are_as_before_afterwards(fails: bool):
    module = net()
    before = {name: id(p) for name, p in module.parameters_and_names()}
    functions = {name: getattr(ops, name) for name in (*OPS_NAMES, "conv2d", "group_norm")}

    def looks(module: Any, ids: Any) -> Any:
        value, _ = loss(module, ids)
        return value if value else -value

    if fails:
        with pytest.raises(TypeError, match="an array without values cannot be looked at"):
            meter.measure(module, looks, (IDS,), device="cpu", dtype="fp32")
    else:
        meter.measure(module, loss, (IDS,), device="cpu", dtype="fp32")
    assert {name: id(p) for name, p in module.parameters_and_names()} == before
    assert {name: getattr(ops, name) for name in functions} == functions
    assert all(p.has_init for p in module.get_parameters())  # no memory was made for them
    assert "__call__" not in vars(nn.Module)
    assert isinstance(nn.Linear(2, 3)(ms.Tensor(np.ones((1, 2), np.float32))), ms.Tensor)
