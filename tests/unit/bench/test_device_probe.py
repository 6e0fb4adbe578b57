"""The kit: what a row holds, how it keeps to its time, and one real block of the released size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sampan.bench import device_probe
from sampan.bench.backends import Backend
from sampan.bench.process import ComputeTarget
from sampan.errors import DeviceError, SampanError

FAKE = str(Path(__file__).parent / "fake_worker.py")


def fake(behaviour: str = "right", framework: str = "torch", mode: str = "eager") -> Backend:
    return Backend(framework, mode, (FAKE, behaviour))


def ticking(seconds: float) -> Callable[[], float]:
    """Return a clock that goes on by so much whenever it is looked at."""
    now = [0.0]

    def clock() -> float:
        now[0] += seconds
        return now[0]

    return clock


def run(*backends: Backend, parts: tuple[str, ...] = ("ar",), **settings: Any) -> dict[str, Any]:
    return device_probe.probe_device(
        backends, parts, tokens=20, target=ComputeTarget(), say=lambda words: None, **settings
    )


def test_a_row_has_both_passes_and_says_what_it_saw():
    record = run(fake(), fake(mode="compiled"))
    eager, compiled = record["rows"]
    assert eager["forward"] == {
        "first_s": 0.1, "warm_up_steps": 3, "seconds": {"median": 0.1, "low": 0.1, "high": 0.1}, "repeats": 5, "flops": 10**9,
        "mfu": pytest.approx(0.1),
    }  # fmt: skip
    assert eager["step"]["flops"] == 3 * 10**9 and eager["step"]["repeats"] == 5
    assert compiled["step"]["warm_up_steps"] == 16
    assert compiled["forward"] is None and compiled["step"]["mfu"] == pytest.approx(0.15)
    assert (eager["tokens"], record["tokens"], record["px"]) == (20, {"ar": 20}, None)
    assert record["notes"] == ["20 tokens, not those of a picture of 1024 px"]
    assert device_probe.device_slug(record) == f"cpu-{record['machine']['usable_cores']}core"


def test_a_framework_without_a_meter_has_no_mfu():
    row = run(fake(framework="tensorflow"))["rows"][0]
    assert row["step"]["flops"] is None and row["step"]["mfu"] is None


def test_time_that_runs_out_cuts_repeats_and_then_rows():
    record = run(fake(), fake(), fake(), budget_s=30.0, clock=ticking(4.0))
    assert 1 <= len(record["rows"]) < 3 and record["rows"][0]["step"]["repeats"] == 1
    assert record["left_out"][-1] == "block of the ar, torch eager: the 30 s were over"
    with pytest.raises(DeviceError, match=r"^error: nothing was measured\n"):
        run(fake(), budget_s=1.0, clock=ticking(4.0))


def test_too_few_tokens_are_refused():
    assert device_probe.num_tokens("ar", None) == 1304 and device_probe.num_tokens("decoder", 17) == 17
    with pytest.raises(SampanError, match=r"--tokens 16 is too few for a block of the decoder"):
        device_probe.num_tokens("decoder", 16)


def test_what_one_side_cannot_compute_is_left_out_and_said():
    record = run(fake("refuses", "mindspore"), fake())
    assert [row["framework"] for row in record["rows"]] == ["torch"]
    assert record["left_out"] == ["block of the ar, mindspore eager: this cannot be loaded; it is a test"]
    with pytest.raises(DeviceError) as caught:
        run(fake("skipped"))
    assert caught.value.what == "nothing was measured"
    assert caught.value.because == ("block of the ar, torch eager makes a pass that is not finite; its loss is 2.0",)


@pytest.mark.slow  # a block has 205 million parameters
def test_a_real_block():
    row = device_probe.probe_device(
        [Backend("torch", "eager")],
        ["ar"],
        tokens=4,
        budget_s=1.0,
        target=ComputeTarget("cpu", "fp32"),
        say=lambda words: None,
    )["rows"][0]
    linear = 2 * 4 * (2 * 4096**2 + 2 * 4096 * 256 + 3 * 4096 * 13696)
    assert row["forward"]["flops"] == linear + 2 * 4096 * 4 * 5  # of attention, the pairs that see each other
    assert row["num_parameters"] == 2 * 4096**2 + 2 * 4096 * 256 + 3 * 4096 * 13696 + 4096 + 512 + 4 * 4096
    assert row["forward"]["seconds"]["median"] > 0 and row["step"]["repeats"] >= 1
