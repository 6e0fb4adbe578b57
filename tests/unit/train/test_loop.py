"""What happens to a training's checkpoints when steps are skipped, and when its disk has no room."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
from collections.abc import Callable, Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from sampan import files
from sampan.checkpoint import run
from sampan.errors import CheckpointError, DataError, DeviceError
from sampan.frameworks import train_step
from sampan.frameworks.records import StepReport
from sampan.job import Job, parse
from sampan.train import disk, loop
from sampan.train.memory import StageMemory
from unit.train.conftest import train

Skipping = Callable[[Collection[int]], None]


@pytest.fixture
def skipping(monkeypatch: pytest.MonkeyPatch) -> Skipping:
    """Make the steps of these numbers, from 1 and counted over one process, find no finite loss."""
    really = train_step.TrainStep.step

    def put(bad: Collection[int]) -> None:
        taken = [0]

        def step(self: Any, *given: Any) -> StepReport:
            taken[0] += 1
            return StepReport(float("nan"), float("nan"), {}, True) if taken[0] in bad else really(self, *given)

        monkeypatch.setattr(train_step.TrainStep, "step", step)

    return put


def short(tiny_job: str, out: Path, **train_settings: Any) -> Job:
    """Return a job of twelve steps of one stage that saves after each and keeps two."""
    job = parse(tiny_job)
    ar = dataclasses.replace(job.stage.ar, num_steps=12)
    settings: dict[str, Any] = {"stages": ("ar",), "save_every": 1, "keep_last": 2, "validate_every": 100}
    return dataclasses.replace(
        job, out=out, train=dataclasses.replace(job.train, **{**settings, **train_settings}),
        stage=dataclasses.replace(job.stage, ar=ar),
    )  # fmt: skip


def saved(out: Path) -> dict[int, int]:
    """Return by step of each checkpoint how many steps before it were skipped in a row."""
    return {int(f.name[5:]): run.skipped_in_a_row(run.state_of(f)) for f in run.steps(out, "ar")}


def events(out: Path, kind: str) -> list[int]:
    lines = map(json.loads, (out / "events.jsonl").read_text(encoding="utf-8").splitlines())
    return [line["step"] for line in lines if line["event"] == kind]


def test_the_checkpoints_from_before_the_skipping_stay(tiny_job: str, tmp_path: Path, skipping: Skipping):
    skipping(range(5, 99))
    job = short(tiny_job, tmp_path / "run")
    with pytest.raises(DataError, match="stage ar stopped at step 9"):
        train(job)
    assert saved(job.out) == {3: 0, 4: 0}
    assert events(job.out, "save") == [1, 2, 3, 4]
    skipping(())
    train(job, resume=True)
    assert saved(job.out) == {11: 0, 12: 0}
    assert events(job.out, "resume") == [4]


def test_a_save_that_was_due_is_made_after_the_skipping(tiny_job: str, tmp_path: Path, skipping: Skipping):
    skipping({4, 5, 6})
    job = short(tiny_job, tmp_path / "run", save_every=4, keep_last=9)
    train(job)
    assert saved(job.out) == {7: 0, 8: 0, 12: 0}


def test_a_stop_while_steps_are_skipped_keeps_what_was_before(tiny_job: str, tmp_path: Path, skipping, monkeypatch):
    skipping(range(5, 99))
    job = short(tiny_job, tmp_path / "run", keep_last=1)
    asked = loop.distributed.any_rank
    calls: list[int] = []

    def stop_at_7(flag: bool) -> bool:
        calls.append(1)
        return len(calls) == 7 or asked(flag)

    monkeypatch.setattr(loop.distributed, "any_rank", stop_at_7)
    with pytest.raises(KeyboardInterrupt):
        train(job)
    assert saved(job.out) == {4: 0, 7: 3}
    skipping({1, 2})
    with pytest.raises(DataError, match="stopped at step 9"):  # 3 before the stop and 2 after it are 5 in a row
        train(job, resume=True)
    assert saved(job.out) == {4: 0, 7: 3}


def test_a_stage_that_ends_while_steps_are_skipped_keeps_what_was_before(tiny_job: str, tmp_path: Path, skipping):
    skipping({11, 12})
    job = short(tiny_job, tmp_path / "run", keep_last=1)
    train(job)
    assert saved(job.out) == {10: 0, 12: 2}
    assert run.final(job.out, "ar") == job.out / "stages/ar/step-00000012"


def full(*given: Any, **named: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_log_without_room_ends_no_training(tiny_job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    job = short(tiny_job, tmp_path / "run")
    really, calls = files.append_bytes, []

    def append(path: Path, content: bytes) -> None:
        calls.append(path.name)
        full() if len(calls) > 8 else really(path, content)

    monkeypatch.setattr(files, "append_bytes", append)
    train(job)
    assert saved(job.out) == {11: 0, 12: 0}
    assert run.final(job.out, "ar") is not None


def test_a_run_folder_without_room_is_said_before_anything_is_read(tiny_job: str, tmp_path: Path, monkeypatch):
    job = dataclasses.replace(parse(tiny_job), out=tmp_path / "a" / "run")
    monkeypatch.setattr(files, "try_place", full)
    with pytest.raises(CheckpointError) as caught:
        loop.train(job, resume=False, console=Console(quiet=True))
    assert str(caught.value) == (
        f"error: the run folder `{job.out}` cannot be written\n  because [Errno 28] No space left on device\n\n"
        "hint: set `out` to another folder, or make room"
    )
    assert not job.out.exists()


def test_checkpoints_that_will_not_fit_are_said_before_the_first_step(tiny_job: str, tmp_path: Path, monkeypatch):
    job = short(tiny_job, tmp_path)
    state: Any = SimpleNamespace(job=job, out=job.out, is_lora=False, layout=(1, 1))
    need = StageMemory(weights=400, gradients=400, moments=800, average=400, activations=10**6)
    monkeypatch.setattr(files, "try_place", lambda folder: 3200)
    disk.check_room(state, {"ar": need})  # two of 1600 bytes
    monkeypatch.setattr(files, "try_place", lambda folder: 3199)
    with pytest.raises(CheckpointError) as caught:
        disk.check_room(state, {"ar": need})
    assert caught.value.what == f"the checkpoints of this run do not fit into `{tmp_path}`"
    assert caught.value.hint == "make room, set `out` to another disk, or lower train.keep_last"


def test_a_model_without_room_loses_nothing_that_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loop.export, "export", full)
    state: Any = SimpleNamespace(out=tmp_path, is_lora=False)
    with pytest.raises(CheckpointError) as caught:
        loop._write_result(state)
    assert str(caught.value) == (
        f"error: `{tmp_path / 'model'}` cannot be written\n  because [Errno 28] No space left on device\n"
        f"  because nothing that was trained is lost: every stage is saved at its end in `{tmp_path / 'stages'}`\n\n"
        f"hint: make room, and call again with --resume, or write it to another disk: sampan checkpoint export {tmp_path} "
        "FOLDER"
    )


def test_curves_that_cannot_be_drawn_take_nothing_from_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loop.plot, "draw", full)
    said = io.StringIO()
    loop._draw(tmp_path, Console(file=said, width=200))
    assert said.getvalue() == "no loss.png: [Errno 28] No space left on device\n"


@pytest.mark.parametrize("at_call", [3, 6])
def test_a_step_without_memory_is_said_and_the_run_goes_on_with_less(
    tiny_job: str, tmp_path: Path, monkeypatch, at_call
):
    job = short(tiny_job, tmp_path / "run", save_every=2)
    really, calls = train_step.TrainStep.step, [0]

    def step(self: Any, *given: Any) -> StepReport:
        calls[0] += 1
        if calls[0] == at_call:
            torch.empty(2**55)  # the allocator's own refusal
        return really(self, *given)

    monkeypatch.setattr(train_step.TrainStep, "step", step)
    with pytest.raises(DeviceError) as caught:
        train(job)
    assert caught.value.what == f"there is not enough memory for step {at_call} of stage ar"
    assert "can't allocate memory" in caught.value.because[0]
    assert caught.value.hint == (
        "lower stage.ar.micro_batch_size (now 2) or free memory, and go on with --resume from the last checkpoint"
    )
    assert list(saved(job.out)) == [step for step in (2, 4) if step < at_call]
    straight = train(dataclasses.replace(job, out=tmp_path / "straight"))
    train(job, resume=True)
    one, other = (out / "stages/ar/step-00000012/weights.safetensors" for out in (straight, job.out))
    assert one.read_bytes() == other.read_bytes()
