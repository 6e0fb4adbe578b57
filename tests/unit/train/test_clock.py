"""A clock that is set back or forward while a training runs, and a second training in its folder."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest

from sampan.checkpoint import run
from sampan.errors import CheckpointError
from sampan.job import parse
from sampan.train.lock_and_signals import lock_run
from unit.train.conftest import train

YEAR_S = 365 * 86400.0
SHORT = ('train.stages=["ar"]', "train.save_every=1", "stage.ar.num_steps=3")


def weights(out: Path) -> bytes:
    return (run.steps(out, "ar")[-1] / "weights.safetensors").read_bytes()


def test_a_clock_that_jumps_changes_nothing(tiny_job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    straight = train(parse(tiny_job, [f"out={tmp_path}/straight", *SHORT]))
    really, really_ns, calls = time.time, time.time_ns, [0]

    def jump() -> float:
        calls[0] += 1
        return (-1) ** calls[0] * YEAR_S  # back and forward at every look

    monkeypatch.setattr(time, "time", lambda: really() + jump())
    monkeypatch.setattr(time, "time_ns", lambda: really_ns() + int(jump() * 1e9))
    out = train(parse(tiny_job, [f"out={tmp_path}/jumping", *SHORT]))
    monkeypatch.undo()
    assert calls[0] > 0 and weights(out) == weights(straight)
    lines: list[Any] = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    rates = [line["images_per_s"] for line in lines if "images_per_s" in line]
    assert len(rates) == 3 and all(math.isfinite(rate) and 0 < rate < 1e6 for rate in rates)


def test_the_first_training_is_unharmed_by_a_second(tiny_job: str, tmp_path: Path):
    job = parse(tiny_job, [f"out={tmp_path}/run", *SHORT])
    with lock_run(job.out):
        out = train(job)
        before = weights(out)
        with pytest.raises(CheckpointError, match="another training is running"), lock_run(job.out):
            raise AssertionError("two hold it")
        assert weights(out) == before and run.newest(out, "ar")[1] == []
