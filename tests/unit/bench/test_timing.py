"""The race with sides that speak the protocol and compute nothing: order, ratios, and what is refused before it is timed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sampan.bench import timing as module
from sampan.bench.backends import Backend
from sampan.bench.process import BackendProcess, ComputeTarget
from sampan.bench.shapes import SMALL
from sampan.bench.timing import time_steps
from sampan.errors import DeviceError, SampanError

FAKE = str(Path(__file__).parent / "fake_worker.py")


def backend(behaviour: str, framework: str = "torch") -> Backend:
    return Backend(framework, "eager", (FAKE, behaviour))


def time_fakes(*backends: Backend, rounds: int = 3) -> dict[str, Any]:
    return time_steps(
        backends, ["ar"], SMALL, rounds=rounds, target=ComputeTarget(), say=lambda words: None, notes=["a note"]
    )


def test_ratios_are_to_the_first_side_and_everything_is_stated():
    record = time_fakes(backend("right"), backend("slow", "mindspore"))
    fast, slow = record["parts"]["ar"]["results"]
    assert slow["ratio"] == slow["cpu_ratio"] == {"median": 2.0, "low": 2.0, "high": 2.0}
    assert fast["ratio"]["median"] == 1 and record["ratios_to"] == "torch eager"
    assert (fast["step_s"]["median"], fast["cpu_step_s"]["median"], fast["first_step_s"]) == (0.2, 0.1, 0.2)
    assert fast["mfu"] == pytest.approx(3e9 / 0.2 / 1e11) and record["parts"]["ar"]["flops_counted_by"] == "torch"
    assert len(slow["steps_s"]) == record["rounds"] == 3 and record["warm_up_steps"] == {"eager": 3}
    assert fast["error"] is None and slow["error"] == {"loss": 0.0, "gradient": 0.0, "tensor": "layer.bias"}
    assert record["notes"] == ["a note"] and set(record["load_average"]) == {"before", "after"}
    assert [one["version"] for one in record["sides"]] == ["1.0", "1.0"]
    assert record["shape"]["preset"] == "nano" and record["machine"]["cores"]


def test_rounds_are_interleaved_and_another_side_begins_each(monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[str, str]] = []
    right = BackendProcess.ask

    def ask(self: BackendProcess, do: str, **arguments: Any) -> dict[str, Any]:
        if do == "step":
            asked.append((self.backend.framework, "first" if "gradients" in arguments else "step"))
        return right(self, do, **arguments)

    monkeypatch.setattr(module.BackendProcess, "ask", ask)
    time_fakes(backend("right", "torch"), backend("right", "mindspore"), backend("right", "tensorflow"), rounds=2)
    names = ["torch", "mindspore", "tensorflow"]
    assert asked[:3] == [(name, "first") for name in names]  # compared before any is timed
    assert asked[3:9] == [(name, "step") for name in names for _ in range(2)]  # warm-up
    assert [name for name, _ in asked[9:]] == [*names, *names[1:], names[0]]


@pytest.mark.parametrize(
    ("behaviour", "facts"),
    {
        "wrong": ("the gradient of `layer.weight` differs by 4.5e-02",),
        "nan": ("the gradient of `layer.bias` differs by inf",),
        "missing": ("the gradient of `layer.bias` differs by inf",),
    }.items(),
)
def test_a_wrong_answer_is_not_timed(behaviour: str, facts: tuple[str, ...]):
    with pytest.raises(SampanError) as caught:
        time_fakes(backend("right"), backend(behaviour, "mindspore"))
    assert caught.value.what == "mindspore eager gives another answer than torch eager, and is not timed"
    assert caught.value.because == (
        *facts,
        "in fp32 a difference of 2e-04 of a tensor's largest value is allowed",
    )
    assert caught.value.hint == ("the first operation that differs is named by: sampan bench --diverge torch mindspore")


def test_a_step_that_is_not_finite_is_not_timed():
    with pytest.raises(SampanError, match=r"^error: torch eager makes a step that is not finite, and is not timed\n"):
        time_fakes(backend("skipped"))


def test_a_side_that_dies_is_quoted():
    with pytest.raises(DeviceError) as caught:
        time_fakes(backend("right"), backend("dies", "mindspore"))
    assert caught.value.what == "the process of mindspore eager died while it was to `step`"
    assert caught.value.because == ("it ended with status 1", "out of memory, or something like it")
    assert caught.value.hint == "leave it out with --frameworks or --modes, or give it a smaller job"


def test_what_a_side_refuses_is_said_in_its_own_words():
    with pytest.raises(SampanError) as caught:
        time_fakes(backend("refuses"))
    assert caught.value.render() == (
        "error: torch eager: this cannot be loaded\n  because it is a test\n\nhint: try another"
    )


def test_sides_on_different_devices_are_not_compared():
    with pytest.raises(DeviceError) as caught:
        time_fakes(backend("right"), backend("elsewhere", "mindspore"))
    assert caught.value.what == "torch eager and mindspore eager cannot be compared here"
    assert caught.value.because == (
        "torch eager computes on `cpu` in fp32",
        "mindspore eager computes on `npu` in fp32",
    )
