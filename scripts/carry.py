"""A run carried between frameworks: 100 steps on PyTorch, 100 on MindSpore, 100 on PyTorch, beside 300 straight in each.

Generator and decoder of jobs/carry.toml. The parts before them are trained once, and every run begins from a copy of them.
Each leg is a process of its own that is killed when the checkpoint it was to reach is there; the next one goes on from it
with `sampan train JOB --resume RUN --framework F`. A second seed on PyTorch says how far apart two trainings lie that
differ in chance alone; what the carry adds may be a tenth of that.

A second call goes on where the first one stopped. It leaves runs/carry/, docs/images/carry.png and
results/carry_YYYYMMDD.json.

    python scripts/carry.py [--only torch carried] [--place runs/carry]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import carry_picture
import numpy as np
from carry_picture import LEG, NUM_STEPS, SHARE, SMOOTHED, STAGES, smoothed
from numpy.typing import NDArray

from sampan.checkpoint import sealed

ROOT = Path(__file__).resolve().parent.parent
JOB = ROOT / "jobs" / "carry.toml"
NUM_BATCHES = 8  # of held-out samples, for the loss under averaged weights
POLL_S = 0.02

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """One run: its folder's name, its seed, and which framework takes the steps up to which."""

    name: str
    seed: int
    legs: tuple[tuple[str, int], ...]


RUNS = (
    Run("torch", 0, (("torch", NUM_STEPS),)),
    Run("seed-1", 1, (("torch", NUM_STEPS),)),
    Run("carried", 0, (("torch", LEG), ("mindspore", 2 * LEG), ("torch", NUM_STEPS))),
    Run("mindspore", 0, (("mindspore", NUM_STEPS),)),
)


# --- training -----------------------------------------------------------------------------------------------------------


def checkpoint(out: Path, stage: str, step: int) -> Path:
    """Return the folder of a checkpoint; it is whole as soon as it is there."""
    return out / "stages" / stage / f"step-{step:08d}"


def train(
    out: Path, framework: str, until: tuple[str, int] | None, *options: str, resume: bool = True, job: Path = JOB
) -> float:
    """Train in a process of its own, to the end or until a checkpoint is there; return the seconds it took."""
    command = [sys.executable, "-m", "sampan", "train", str(job), "--framework", framework, *options]
    command += ["--resume", str(out)] if resume else []
    print("$ sampan", *command[3:], *(["# until", *map(str, until)] if until else []), flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "COLUMNS": "120"}
    begun = time.perf_counter()
    with open(out.with_name(f"{out.name}.said"), "ab") as said:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while process.poll() is None:
                if until and checkpoint(out, *until).is_dir():
                    break
                time.sleep(POLL_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode and not (until and checkpoint(out, *until).is_dir()):
        sys.exit(f"the training in {out} ended with {process.returncode}; what it said is in {said.name}")
    return time.perf_counter() - begun


def make_base(place: Path) -> Path:
    """Train the parts before generator and decoder, and encode the pictures by them."""
    pictures, base = place / "pictures", place / "base"
    options = ("--set", f"data.path={pictures.as_posix()}", "--set", f"out={base.as_posix()}")
    if not (pictures / "metadata.jsonl").is_file():
        place.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "sampan", "data", "emoji", str(pictures), "--count", "48", "--size", "128"]
        subprocess.run(command, cwd=ROOT, check=True)
    if not checkpoint(base, "ar", 25).is_dir():
        train(base, "torch", ("ar", 25), *options, resume=(base / "run.json").is_file())
    return base


def begin(base: Path, out: Path, seed: int) -> None:
    """Begin a run as a copy of the base: everything before generator and decoder, each stage's end only."""
    if (out / "run.json").is_file():
        return
    beside = out.with_name(f".{out.name}")
    shutil.rmtree(beside, ignore_errors=True)
    keep = ("run.json", "job.toml", "config.json", "log.jsonl")
    beside.mkdir()
    for name in keep:
        shutil.copy2(base / name, beside / name)
    for name in ("processor", "cache"):
        shutil.copytree(base / name, beside / name, ignore=shutil.ignore_patterns(".lock"))
    for stage in ("vae", "tokenizer", "glyph"):
        last = sorted((base / "stages" / stage).glob("step-*"))[-1]
        shutil.copytree(last, beside / "stages" / stage / last.name)
    # the parts before are the same for both seeds, so that the losses of both are losses of the same task
    record = json.loads((beside / "run.json").read_text(encoding="utf-8"))
    sealed.write(beside / "run.json", {**record, "seed": seed})
    os.replace(beside, out)


def take(run: Run, base: Path, place: Path) -> None:
    """Take the legs of a run that are not taken yet."""
    out = place / run.name
    begin(base, out, run.seed)
    options = ("--set", f"seed={run.seed}", "--set", f"data.path={(place / 'pictures').as_posix()}")
    for stage in STAGES:
        for framework, until in run.legs:
            if checkpoint(out, stage, until).is_dir():
                continue
            # a leg ends with its stage, so that the next stage begins on its own first framework; the last writes the model
            is_last = (stage, until) == (STAGES[-1], NUM_STEPS)
            seconds = train(out, framework, None if is_last else (stage, until), *options)
            print(f"{run.name}: {stage} to {until} on {framework}: {seconds:.0f} s", flush=True)
            newest = sorted((out / "stages" / stage).glob("step-*"))[-1]
            if newest != checkpoint(out, stage, until):
                sys.exit(f"{out} went on to {newest.name} before it was stopped; remove what is beyond and call again")


# --- measuring ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Course:
    """What training did to one stage of a run.

    Args:
        losses: Of each step, as logged.
        ema_losses: Of the same batches of held-out samples under the averaged weights, by step: at every kept checkpoint.
        weights, ema: What the steps changed, by name: the last checkpoint less the seed's first weights. Two seeds begin from
            other weights, and where they began is no part of what training did.
        sessions: Who took the steps.
    """

    losses: Floats
    ema_losses: Mapping[int, float]
    weights: Mapping[str, Floats]
    ema: Mapping[str, Floats]
    sessions: Sequence[Mapping[str, Any]]


def read_course(out: Path, stage: str) -> Course:
    """Return the course of a stage that is finished. All runs are measured on one framework, whatever trained them."""
    from rich.console import Console

    from sampan.checkpoint import run
    from sampan.checkpoint.run_metadata import read_steps
    from sampan.frameworks import device as dev
    from sampan.job import parse
    from sampan.train.run_state import reopen_run
    from sampan.train.stage_trainer import StageTrainer
    from sampan.train.stages import make

    last = run.final(out, stage)
    assert last is not None, f"{out} has not finished {stage}"
    state = run.read_state(last)
    ema_losses: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        cache, job = Path(scratch) / "cache", parse(state["job"])
        shutil.copytree(job.data.cache or out / "cache", cache)
        work = reopen_run(job, out, "cpu", "fp32", cache=cache, console=Console(quiet=True))
        steps = StageTrainer(work, stage)
        first = {name: dev.to_numpy(t).astype(np.float64) for name, t in steps.groups()["weights"].items()}
        held_out = make(stage, work.stage_inputs(steps.settings, work.data.validation or work.data.training))
        for folder in run.steps(out, stage):
            steps.restore(folder)
            with steps.optimizer.averaged():
                values = [
                    steps.optimizer.evaluate(steps.stage.loss, steps.on_device(held_out.draw(step, 0)))
                    for step in range(NUM_BATCHES)
                ]
            ema_losses[int(run.state_of(folder)["step"])] = sum(values) / len(values)
        groups = steps.groups()
    logged = read_steps(out / "log.jsonl", stage)
    return Course(
        np.array([logged[step]["loss"] for step in range(1, int(state["step"]) + 1)]),
        ema_losses,
        *({name: dev.to_numpy(t) - first[name] for name, t in groups[group].items()} for group in ("weights", "ema")),
        state["history"],
    )


def apart(one: Course, other: Course, statistic: Callable[[Floats], Any]) -> dict[str, float]:
    """Return how far two courses lie apart: differences of losses by a statistic, lengths of differences of weights."""
    width = min(SMOOTHED, len(one.losses) // 3)
    both = sorted(one.ema_losses.keys() & other.ema_losses.keys())
    averages = [np.array([course.ema_losses[step] for step in both]) for course in (one, other)]
    return {
        "loss": float(statistic(np.abs(one.losses - other.losses))),
        "smoothed_loss": float(statistic(np.abs(smoothed(one.losses, width)[1] - smoothed(other.losses, width)[1]))),
        "ema_loss": float(statistic(np.abs(averages[0] - averages[1]))),
        "weights": length({name: one.weights[name] - other.weights[name] for name in one.weights}),
        "ema": length({name: one.ema[name] - other.ema[name] for name in one.ema}),
    }


def length(tensors: Mapping[str, Floats]) -> float:
    """Return the length of all tensors as one vector."""
    return math.sqrt(sum(float(np.sum(tensor**2)) for tensor in tensors.values()))


def judge(straight: Course, other_seed: Course, course: Course) -> dict[str, Any]:
    """Return how far a course is off from the straight one, over the spread between two seeds, and whether that holds.

    The largest difference of a loss at any step is held against the median of those between seeds: against their largest,
    which the noise of single batches makes, a step that is left out would pass.
    """
    off, spread = apart(straight, course, np.max), apart(straight, other_seed, np.median)
    shares = {name: off[name] / spread[name] for name in off}
    return {"off": off, "spread": spread, "share_of_spread": shares, "holds": max(shares.values()) <= SHARE}


# --- all of it ----------------------------------------------------------------------------------------------------------


def main() -> int:
    """Train what is not trained yet, measure, draw, write; return 1 where the carry is off by more than it may be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--place", type=Path, default=Path("runs/carry"), help="folder of the runs; default: runs/carry"
    )
    parser.add_argument("--only", nargs="+", metavar="RUN", choices=[run.name for run in RUNS], help="only train these")
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "images" / "carry.png")
    given = parser.parse_args()
    os.chdir(ROOT)
    base = make_base(given.place)
    for run in RUNS:
        if not given.only or run.name in given.only:
            take(run, base, given.place)
    if given.only:
        return 0
    from sampan.checkpoint.provenance import machine
    from sampan.report import results

    courses = {run.name: {stage: read_course(given.place / run.name, stage) for stage in STAGES} for run in RUNS}
    judged = {
        stage: {
            name: judge(courses["torch"][stage], courses["seed-1"][stage], courses[name][stage])
            for name in ("carried", "mindspore")
        }
        for stage in STAGES
    }
    losses = {name: {stage: one.losses for stage, one in stages.items()} for name, stages in courses.items()}
    carry_picture.draw(
        losses, {stage: found["carried"]["spread"]["loss"] for stage, found in judged.items()}, given.picture
    )
    holds = all(one["holds"] for found in judged.values() for one in found.values())
    record = {
        "what": "a run carried PyTorch, MindSpore, PyTorch, and one straight on MindSpore, beside one straight on PyTorch",
        "parts_before": "autoencoder, tokenizer and glyph encoder of seed 0 in every run, so that both seeds have one task; "
        "the seed of the other run was set in the copy's run.json",
        "job": JOB.relative_to(ROOT).as_posix(),
        "machine": machine(),
        "bound": f"at most {SHARE:g} of what lies between two seeds, in each measure: loss, the largest difference at a "
        "step, over the median one between seeds; "
        f"smoothed_loss, the same of means of {SMOOTHED} steps; ema_loss, of held-out samples under the average, at "
        "every checkpoint; weights and ema, the length of the difference at the end, of what training changed",
        "holds": holds,
        "judged": judged,
        "runs": {
            name: {
                stage: {
                    "loss": course.losses.tolist(),
                    "ema_loss": course.ema_losses,
                    "moved": {"weights": length(course.weights), "ema": length(course.ema)},
                    "sessions": course.sessions,
                }
                for stage, course in stages.items()
            }
            for name, stages in courses.items()
        },
    }
    target = results.add("carry", record, given.results)
    for stage, found in judged.items():
        for name, one in found.items():
            shares = ", ".join(f"{key} {share:.2%}" for key, share in one["share_of_spread"].items())
            print(f"{stage}, {name} from straight PyTorch, of the spread between two seeds: {shares}")
    print(target, given.picture, sep="\n")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
