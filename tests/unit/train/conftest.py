"""A tiny training that takes seconds: generator and decoder of the oracle's model, on drawn pictures."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from sampan.job import Job, parse
from sampan.train.estimate import Estimate
from sampan.train.loop import _StageRun, is_done
from sampan.train.memory import StageMemory
from sampan.train.run_log import RunLog
from sampan.train.run_state import open_run

NUM_STEPS, SAVE_EVERY = 24, 2
JOB = """
out = "{folder}/run"
[model]
start = "{model}"
[data]
path = "{folder}/set"
cache = "{folder}/cache"
resolutions_px = [64]
validation_share = 0.1
workers = 0
[place]
device = "cpu"
dtype = "fp32"
threads = 1
[train]
stages = ["ar", "decoder"]
save_every = {save_every}
keep_last = 99
[stage.ar]
num_steps = {num_steps}
micro_batch_size = 2
warmup_steps = 2
ema_decay = 0.9
freeze_text = false
[stage.decoder]
num_steps = {num_steps}
micro_batch_size = 2
warmup_steps = 2
ema_decay = 0.9
"""
Train = Callable[..., Path]


def train(job: Job, *, resume: bool = False, says: Console | None = None) -> Path:
    """Train a job's stages as `sampan train` does, without counting memory before and writing a model after."""
    work = open_run(job, "cpu", "fp32", resume=resume, console=says or Console(quiet=True))
    nothing = Estimate(StageMemory(*[0] * 6), 0.0)
    with RunLog(job.out, tensorboard=False, wandb=None, facts={}) as journal:
        for name in job.train.stages:
            if not is_done(work, name, job.train.stages):
                _StageRun(work, name, journal, nothing).train()
    return job.out


def write_job(folder: Path, model: Path) -> str:
    """Draw a few pictures into a folder, and return the text of a job that trains on them from a model folder."""
    (folder / "set").mkdir()
    random = np.random.default_rng(0)
    for number in range(12):
        pixels = np.full((64, 64, 3), random.integers(0, 256, 3), np.uint8)
        pixels[16:48, 8 : 12 + 4 * number] = random.integers(0, 256, 3)
        Image.fromarray(pixels).save(folder / "set" / f"{number}.png")
        (folder / "set" / f"{number}.txt").write_text(f"a bar of length {number}", encoding="utf-8")
    return JOB.format(folder=folder.as_posix(), model=model.as_posix(), num_steps=NUM_STEPS, save_every=SAVE_EVERY)


def draw_plain(folder: Path) -> None:
    """Write six pictures of one colour each into a new folder, with captions."""
    folder.mkdir()
    for number in range(6):
        Image.new("RGB", (128, 128), (40 * number, 80, 120)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"picture {number}", encoding="utf-8")


@pytest.fixture(scope="package")
def tiny_job(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The text of a job, whose pictures are there."""
    return write_job(tmp_path_factory.mktemp("tiny-run"), tiny_folder)


@pytest.fixture(scope="package")
def tiny_run(tiny_job: str) -> Path:
    """A finished run of both stages with every checkpoint; copy it before changing it."""
    return train(parse(tiny_job))


@pytest.fixture
def copied(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))
