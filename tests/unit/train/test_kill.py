"""A training that is killed before every change of a file that a save makes, and at random moments."""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sampan.checkpoint import run as checkpoints
from unit.train import killed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the boundaries are seen through Linux's /proc")
SHORT = ('train.stages=["ar"]', "train.save_every=1", "train.keep_last=2", "stage.ar.num_steps=2")
SLOW = [pytest.mark.slow, pytest.mark.timeout(3600)]


def result(out: Path) -> dict[str, bytes | list[object]]:
    """Return what a run has come to: the bytes of the last checkpoints' tensors, and the numbers of its log."""
    found: dict[str, bytes | list[object]] = {
        f"{stage.name}/{path.name}": path.read_bytes()
        for stage in sorted((out / "stages").iterdir())
        for path in sorted(checkpoints.steps(out, stage.name)[-1].glob("*.safetensors"))
    }
    assert len(found) >= 3
    lines = map(json.loads, (out / "log.jsonl").read_text(encoding="utf-8").splitlines())
    found["log"] = [[line[key] for key in ("stage", "step", "loss", "grad_norm")] for line in lines if "loss" in line]
    return found


def whole(out: Path, stage: str) -> int:
    """Return the step of the newest checkpoint, 0 without one; nothing that has its name is not whole."""
    folder, notes = checkpoints.newest(out, stage)
    assert notes == []
    return int(checkpoints.read_state(folder)["step"]) if folder else 0


@pytest.fixture(scope="module")
def straight(tiny_job: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A short run that nobody killed, and how many changes of files its saves made."""
    place = tmp_path_factory.mktemp("straight")
    assert not killed.run(tiny_job, place / "run", *SHORT, counted=place / "count")[0]
    return place / "run", int((place / "count").read_text(encoding="utf-8"))


@pytest.mark.parametrize("every", [23, pytest.param(1, marks=SLOW)])
def test_killed_before_a_change_of_a_file_it_ends_with_the_same_bytes(
    every: int, straight: tuple[Path, int], tiny_job: str, tmp_path: Path, record_property: Callable[..., None]
):
    wanted, count = result(straight[0]), straight[1]
    assert count > 40 and wanted["log"]
    seen, before = set(), 0
    for kill_at in range(1, count + 1, every):
        out = tmp_path / "run"
        assert killed.run(tiny_job, out, *SHORT, kill_at=kill_at)[0], kill_at
        step = whole(out, "ar")
        assert before <= step <= before + (1 if every == 1 else 2), kill_at  # a later kill never leaves less
        before = step
        seen.add(step)
        assert not killed.run(tiny_job, out, *SHORT)[0]
        assert result(out) == wanted, kill_at
        assert not [path for path in (out / "stages/ar").iterdir() if path.name.startswith(".")]  # leftovers are gone
        shutil.rmtree(out)
    record_property("kills at boundaries of saves", len(range(1, count + 1, every)))
    assert seen >= ({0, 1, 2} if every == 1 else {0, 1})


@pytest.mark.parametrize("num_kills", [3, pytest.param(200, marks=SLOW)])
def test_killed_at_random_moments_it_ends_with_the_same_bytes(
    num_kills: int, tiny_job: str, tmp_path: Path, record_property: Callable[..., None]
):
    settings = ("stage.ar.num_steps=12", "stage.decoder.num_steps=6")
    assert not killed.run(tiny_job, tmp_path / "straight", *settings)[0]
    took_s = killed.run(tiny_job, tmp_path / "timed", *settings)[1]
    wanted, draw, kills, runs = result(tmp_path / "straight"), random.Random(0), 0, 0
    while kills < num_kills:
        out = tmp_path / "run"
        steps = {"ar": 0, "decoder": 0}
        # between a start that does nothing yet and two thirds of a whole run
        while killed.run(tiny_job, out, *settings, kill_after_s=draw.uniform(0.1, 0.7) * took_s)[0]:
            kills += 1
            now = {stage: whole(out, stage) for stage in steps}
            assert all(now[stage] >= step for stage, step in steps.items()), (kills, runs, steps, now)
            steps = now
        assert result(out) == wanted
        shutil.rmtree(out)
        runs += 1
    record_property("kills at random moments", kills)
    record_property("runs of the same bytes after kills", runs)
    assert runs >= 1
