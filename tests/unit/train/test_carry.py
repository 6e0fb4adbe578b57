"""A run that is carried on ends where it would have without; one that lost something on the way does not.

What is measured, and how far off it may be, is that of scripts/carry.py.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sampan.checkpoint import sealed
from sampan.checkpoint.weights import file_digest
from sampan.job import parse
from unit.train.conftest import NUM_STEPS, train

AT = 16  # the step at which the run is carried on
SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"


@pytest.fixture(scope="module")
def carry() -> Any:
    sys.path.insert(0, str(SCRIPTS))
    spec = importlib.util.spec_from_file_location("carry", SCRIPTS / "carry.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = script  # its dataclasses look there
    spec.loader.exec_module(script)
    script.NUM_BATCHES = 2  # for the time it takes
    yield script
    sys.path.remove(str(SCRIPTS))
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def other_seed(tiny_job: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with another seed."""
    out = tmp_path_factory.mktemp("seed") / "run"
    return train(parse(tiny_job, ["seed=1", f"out={out.as_posix()}"]))


@pytest.fixture(scope="module")
def courses(carry: Any, tiny_run: Path, other_seed: Path) -> dict[str, tuple[Any, Any]]:
    """By stage, the straight run and the other seed."""
    return {name: tuple(carry.read_course(run, name) for run in (tiny_run, other_seed)) for name in ("ar", "decoder")}


# --- faults, planted in a checkpoint that is whole all the same ---------------------------------------------------------


def change(folder: Path, name: str, edit: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Rewrite a file of a checkpoint, and its hash with it."""
    path = folder / name
    save_file(edit(load_file(path)), path)
    facts = json.loads((folder / "state.json").read_text("utf-8"))
    facts["files"][name], facts["bytes"][name] = file_digest(path), path.stat().st_size
    sealed.write(folder / "state.json", facts)


def state(folder: Path, **values: Any) -> None:
    facts = json.loads((folder / "state.json").read_text("utf-8"))
    sealed.write(folder / "state.json", facts | values)


def moments_lost(folder: Path) -> None:
    change(folder, "optimizer.safetensors", lambda tensors: {"num_updates": tensors["num_updates"]})


def moments_zero(folder: Path) -> None:
    change(
        folder,
        "optimizer.safetensors",
        lambda tensors: {k: torch.zeros_like(t) if ".exp_avg" in k else t for k, t in tensors.items()},
    )


def step_reset(folder: Path) -> None:
    state(folder, step=0)
    folder.rename(folder.with_name("step-00000000"))
    for other in folder.parent.glob("step-*[1-9]*"):  # or one of these would be taken up
        shutil.rmtree(other)


def updates_reset(folder: Path) -> None:
    change(folder, "optimizer.safetensors", lambda tensors: {**tensors, "num_updates": torch.tensor(0)})


def cursor_ahead(folder: Path) -> None:
    state(folder, step=AT + 1)
    folder.rename(folder.with_name(f"step-{AT + 1:08d}"))


def cursor_behind(folder: Path) -> None:
    state(folder, step=AT - 1)
    folder.rename(folder.with_name(f"step-{AT - 1:08d}"))


def ema_lost(folder: Path) -> None:
    weights = load_file(folder / "weights.safetensors")
    change(folder, "ema.safetensors", lambda _: weights)


FAULTS: Mapping[str, Callable[[Path], None]] = {
    "moments lost": moments_lost,
    "moments zero": moments_zero,
    "step reset": step_reset,
    "updates reset": updates_reset,
    "cursor one ahead": cursor_ahead,
    "cursor one behind": cursor_behind,
    "average lost": ema_lost,
}


def go_on(run: Path, tiny_job: str, stage: str, fault: Callable[[Path], None] | None) -> None:
    """Take a stage up at AT, with a fault if there is one, as a process that finds nothing later would."""
    for folder in (run / "stages" / stage).glob("step-*"):
        if int(folder.name.removeprefix("step-")) > AT:
            shutil.rmtree(folder)
    if fault:
        fault(run / "stages" / stage / f"step-{AT:08d}")
    train(parse(tiny_job, [f"out={run.as_posix()}", f'train.stages=["{stage}"]']), resume=True)


@pytest.mark.parametrize("stage", ["ar", "decoder"])
def test_a_run_that_is_carried_on_is_the_straight_one(stage, carry, courses, copied, tiny_job):
    go_on(copied, tiny_job, stage, None)
    judged = carry.judge(*courses[stage], carry.read_course(copied, stage))
    assert set(judged["off"].values()) == {0.0}  # here it is the same framework: bit for bit
    assert min(judged["spread"].values()) > 0
    assert judged["holds"]


@pytest.mark.parametrize("stage", ["ar", pytest.param("decoder", marks=pytest.mark.slow)])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_on_the_way_exceeds_the_bound(fault, stage, carry, courses, copied, tiny_job):
    go_on(copied, tiny_job, stage, FAULTS[fault])
    assert carry.read_course(copied, stage).sessions[-1]["to_step"] == NUM_STEPS
    judged = carry.judge(*courses[stage], carry.read_course(copied, stage))
    assert not judged["holds"], judged["share_of_spread"]


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("stage", ["ar", "decoder"])
def test_torch_mindspore_torch_is_the_straight_run(stage, carry, courses, copied, tiny_job, tmp_path):
    pytest.importorskip("mindspore")
    job = tmp_path / "job.toml"
    job.write_text(tiny_job, "utf-8")
    for folder in (copied / "stages" / stage).glob("step-*"):
        if int(folder.name.removeprefix("step-")) > NUM_STEPS // 3:
            shutil.rmtree(folder)
    carry.train(copied, "mindspore", (stage, AT), "--set", f'train.stages=["{stage}"]', job=job)
    go_on(copied, tiny_job, stage, None)
    course = carry.read_course(copied, stage)
    assert [entry["framework"] for entry in course.sessions] == ["torch", "mindspore", "torch"]
    judged = carry.judge(*courses[stage], course)
    assert min(judged["off"].values()) > 0  # another framework did take part
    assert judged["holds"], judged["share_of_spread"]
    # what one framework trained comes out on the other, in a process that has only that one
    line = f"checkpoint verify {copied} --replay 2 --seed 1 --framework mindspore"
    done = subprocess.run([sys.executable, "-m", "sampan", *line.split()], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mindspore" in done.stdout
