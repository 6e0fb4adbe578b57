"""A save waits for a copy, not for the disk; what goes wrong with it is told, and what is trained meanwhile is not in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sampan import frameworks

frameworks.use("torch")

from sampan.checkpoint import run  # noqa: E402
from sampan.checkpoint.provenance import StageSession  # noqa: E402
from sampan.errors import CheckpointError  # noqa: E402
from sampan.train.saving import StageSaver  # noqa: E402

SLOW_S = 0.3


def saver(out: Path, saved: Callable[[int], None] = lambda step: None) -> StageSaver:
    return StageSaver(out, "vae", StageSession(0, "torch", "cpu"), 2, saved)


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    write = run.write_ranges

    def slowly(*arguments: Any) -> int:
        time.sleep(SLOW_S)
        return write(*arguments)

    monkeypatch.setattr(run, "write_ranges", slowly)


def test_a_step_waits_for_the_copy_only(tmp_path: Path, slow_disk: None):
    weights = torch.ones(256, 256)
    groups = {"weights": {"w": weights}, "ema": {"w": weights}}
    told: list[int] = []
    with saver(tmp_path, told.append) as ours:
        began = time.perf_counter()
        ours.save(1, groups, {"done": False})
        whole_s = time.perf_counter() - began
        began = time.perf_counter()
        ours.begin(2, groups, {"done": False})
        stall_s = time.perf_counter() - began
        weights.fill_(7)  # the next step
        assert told == [1]
    assert told == [1, 2]
    assert whole_s > 2 * SLOW_S and stall_s <= 0.1 * whole_s
    folder = run.find_step(tmp_path, "vae", 2)
    assert torch.equal(run.read_groups(folder, "cpu")["weights"]["w"], torch.ones(256, 256))


def test_a_save_that_failed_is_told_by_the_next_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ours = saver(tmp_path)
    ours.begin(1, {"weights": {"w": torch.ones(3)}}, {"done": False})
    ours.wait()

    def full(*arguments: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run, "write_ranges", full)
    ours.begin(2, {"weights": {"w": torch.ones(3)}}, {"done": False})
    with pytest.raises(CheckpointError, match="No space left on device"):
        ours.wait()
    assert [path.name for path in (tmp_path / "stages" / "vae").iterdir()] == ["step-00000001"]


def test_an_error_of_training_lets_a_save_end(tmp_path: Path, slow_disk: None):
    ours = saver(tmp_path)
    ours.begin(3, {"weights": {"w": torch.ones(3)}}, {"done": False})
    with pytest.raises(ZeroDivisionError), ours:
        raise ZeroDivisionError
    assert run.newest(tmp_path, "vae")[0] is not None
