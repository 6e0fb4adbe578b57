"""Two sides in lockstep: a planted fault is named by kind, layer and step, and nothing is named where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sampan.bench.backends import Backend
from sampan.bench.first_difference import find_first_difference
from sampan.bench.process import ComputeTarget
from sampan.bench.shapes import SMALL

FAULTY = str(Path(__file__).parent / "faulty_worker.py")
CPU = ComputeTarget("cpu", "fp32", 1)


def parted(fault: str, part: str = "decoder", mode: str = "eager", steps: int = 2) -> tuple[dict[str, Any], list[str]]:
    """Run the plain worker beside one with a fault; return what was found, and what was said meanwhile."""
    said: list[str] = []
    backends = (Backend("torch", mode), Backend("torch", mode, (FAULTY, fault)))
    record = find_first_difference(backends, [part], SMALL, steps=steps, target=CPU, say=said.append)
    return record["parts"][part], said


def test_a_wrong_operation_is_named_with_its_layer_and_step():
    found, said = parted("operation")
    assert found["parted"]["kind"] == "operation" and found["parted"]["what"] == "gelu"
    assert found["parted"]["layer"] == "transformer_blocks.0.ff" and found["parted"]["step"] == 1
    assert found["parted"]["error"] == pytest.approx(0.01, rel=0.01)
    assert found["said"] == "step 1: the operation gelu in `transformer_blocks.0.ff` differs by 1.0e-02"
    assert said == ["decoder: step 1 of 2", "decoder: step 2 of 2"]
    assert found["steps"][0]["operation"] == 0 and found["num_calls"] > 50


@pytest.mark.slow
def test_a_wrong_gradient_is_named_by_the_parameter_nearest_the_loss():
    found, _ = parted("gradient", "ar", steps=1)
    assert found["parted"]["kind"] == "gradient" and found["parted"]["step"] == 0
    # the last layer's values are the first parameters behind its attention, seen from the loss
    assert found["parted"]["layer"] == "model.language_model.layers.1.self_attn.v_proj"
    assert found["steps"][0]["operation"] == found["steps"][0]["loss"] == 0


@pytest.mark.slow
def test_a_wrong_update_is_named_at_the_step_where_it_shows():
    found, _ = parted("update", steps=3)
    assert found["parted"]["kind"] == "weights" and found["parted"]["step"] == 1
    assert found["steps"][0]["weights"] == 0 and found["parted"]["error"] > 0.05


@pytest.mark.slow
def test_a_call_too_many_is_named():
    found, _ = parted("extra_call", "ar", steps=1)
    layer = "model.language_model.layers.0.self_attn.q_proj"
    assert found["parted"]["kind"] == "calls" and found["parted"]["layer"] == layer
    assert found["said"] == f"step 0: call 4 is Linear on one side and cast on the other, in `{layer}`"


@pytest.mark.slow
def test_a_compiled_side_is_compared_by_loss_gradients_and_weights_and_does_not_part():
    backends = (Backend("torch", "eager"), Backend("torch", "compiled"))
    record = find_first_difference(backends, ["ar"], SMALL, steps=2, target=CPU, say=lambda words: None)
    assert record["parts"]["ar"]["parted"] is None and record["parts"]["ar"]["num_calls"] == 0
    assert 0 < record["parts"]["ar"]["steps"][1]["weights"] < 1e-3
    assert record["notes"] == [
        "operations of a compiled step cannot be watched: loss, gradients and weights are compared"
    ]
