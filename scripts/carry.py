"""A run carried between frameworks: 100 steps on PyTorch, 100 on MindSpore, 100 on PyTorch, beside 300 straight in each.

Generator and decoder of jobs/carry.toml. The parts before them are trained once, and every run begins from a copy of them.
Each leg is a process of its own that is killed when the checkpoint it was to reach is there; the next one goes on from it
with `sampan train JOB --resume RUN --framework F`. A second seed on PyTorch says how far apart two trainings lie that
differ in chance alone; what the carry adds may be a tenth of that.

A second call goes on where the first one stopped. It leaves runs/carry/, docs/images/carry.png and
results/carry_YYYYMMDD.json.

    python scripts/carry.py [--only torch] [--place runs/carry]
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
JOB = ROOT / "jobs" / "carry.toml"
STAGES = ("ar", "decoder")
NUM_STEPS, LEG = 300, 100
SMOOTHED = 20  # steps: curves are compared step by step, and averaged over so many
SHARE = 0.1  # of the spread between two seeds, that a carried run may lie off
NUM_BATCHES = 8  # of held-out samples, for the loss under averaged weights
POLL_S = 0.02

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """One run: its folder's name, its seed, and which framework takes the steps up to which."""

    name: str
    seed: int
    legs: tuple[tuple[str, int], ...]

    @property
    def needs(self) -> set[str]:
        return {framework for framework, _ in self.legs}


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


def train(out: Path, framework: str, until: tuple[str, int] | None, *options: str, resume: bool = True) -> float:
    """Train in a process of its own, to the end or until a checkpoint is there; return the seconds it took."""
    command = [sys.executable, "-m", "sampan", "train", str(JOB), "--framework", framework, *options]
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
    (beside / "run.json").write_text(json.dumps({**record, "seed": seed}, indent=2), encoding="utf-8")
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


def measure(out: Path) -> dict[str, Any]:
    """Return a run's numbers by stage: losses of its steps, and the loss of held-out samples under averaged weights.

    All runs are measured on one framework, whatever trained them.
    """
    import tempfile

    from rich.console import Console

    from sampan.checkpoint import run
    from sampan.checkpoint.runlog import read_steps
    from sampan.job import read
    from sampan.train.stages import make
    from sampan.train.steps import Steps
    from sampan.train.workspace import reopen

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(out / "cache", Path(scratch) / "cache")
        job = read(out / "job.toml")
        for stage in STAGES:
            last = run.final(out, stage)
            assert last is not None, f"{out} has not finished {stage}"
            state = run.read_state(last)
            (Path(scratch) / "job.toml").write_text(state["job"], encoding="utf-8")
            job = read(Path(scratch) / "job.toml")
            work = reopen(job, out, "cpu", "fp32", cache=Path(scratch) / "cache", console=Console(quiet=True))
            steps = Steps(work, stage)
            held_out = make(stage, work.context(steps.settings, work.data.validation))
            losses = {}
            for folder in run.steps(out, stage):
                steps.restore(folder)
                with steps.updater.averaged():
                    values = [
                        steps.updater.evaluate(steps.stage.loss, steps.on_device(held_out.draw(step, 0)))
                        for step in range(NUM_BATCHES)
                    ]
                losses[int(run.state_of(folder)["step"])] = sum(values) / len(values)
            logged = read_steps(out / "log.jsonl", stage)
            found[stage] = {
                "loss": [logged[step]["loss"] for step in range(1, NUM_STEPS + 1)],
                "ema_loss": losses,
                "sessions": [
                    {
                        key: entry[key]
                        for key in ("from_step", "to_step", "framework", "device", "dtype", "threads", "versions")
                    }
                    for entry in state["history"]
                ],
                "num_parameters": sum(tensor.numel() for tensor in steps.updater.state()["weights"].values()),
            }
    return found


def ways(place: Path, first: Run, second: Run, stage: str) -> dict[str, dict[str, float]]:
    """Return how far apart two runs end, over what the first one moved, for weights and for their average.

    What is compared is what training changed: two seeds begin from other weights, and where they began is no part of it.
    """
    from sampan.checkpoint.weights import read_header
    from sampan.train import compare

    found = {}
    for group in ("weights", "ema"):
        files = [checkpoint(place / run.name, stage, NUM_STEPS) / f"{group}.safetensors" for run in (first, second)]
        shapes = {name: stored.shape for name, stored in read_header(files[0]).items()}
        moved = [_changes(path, shapes, run.seed) for path, run in zip(files, (first, second), strict=True)]
        off = compare.distance(shapes, lambda name: None, *moved)
        found[group] = {"apart": off.apart, "moved": off.moved, "share": off.share}
    return found


def _changes(path: Path, shapes: Mapping[str, tuple[int, ...]], seed: int) -> Callable[[str], Floats]:
    """Return what gives a tensor's change since the first weights of a seed."""
    from sampan.frameworks import device as dev
    from sampan.frameworks import io
    from sampan.models.init import initial_weights

    tensors, begun = io.read_tensors(path, "cpu"), initial_weights(shapes, seed)
    return lambda name: dev.to_numpy(tensors[name]).astype(np.float64) - begun[name]


def judge(place: Path, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return by stage how far each run lies from the straight one on PyTorch, and whether it is within the bound."""
    from sampan.train.compare import deviation

    straight, other_seed, *rest = (run for run in RUNS if run.name in numbers)
    found: dict[str, Any] = {}
    for stage in STAGES:

        def measures(one: Run, two: Run, stage: str = stage) -> dict[str, float]:
            a, b = (np.array(numbers[run.name][stage]["loss"]) for run in (one, two))
            ema_a, ema_b = (
                np.array([numbers[run.name][stage]["ema_loss"][key] for key in _sorted_steps(numbers[run.name][stage])])
                for run in (one, two)
            )
            off = ways(place, one, two, stage)
            return {
                "loss": deviation(a, b, 1),
                "smoothed_loss": deviation(a, b, SMOOTHED),
                "ema_loss": deviation(ema_a, ema_b, 1),
                "weights": off["weights"]["apart"],
                "ema": off["ema"]["apart"],
            }

        spread = measures(straight, other_seed)
        found[stage] = {"spread": spread, "runs": {}}
        pairs = [(straight, run) for run in rest]
        pairs += [(a, b) for a in rest for b in rest if (a.name, b.name) == ("mindspore", "carried")]
        for one, two in pairs:
            off = measures(one, two)
            shares = {name: off[name] / spread[name] for name in spread}
            found[stage]["runs"][f"{two.name} from {one.name}"] = {
                "off": off,
                "share_of_spread": shares,
                "holds": max(shares.values()) <= SHARE,
            }
    return found


def _sorted_steps(numbers: Mapping[str, Any]) -> list[Any]:
    return sorted(numbers["ema_loss"], key=int)


# --- the picture --------------------------------------------------------------------------------------------------------

LOOKS = {
    "seed-1": ("another seed, PyTorch", "0.6", 1.4, "-"),
    "torch": ("PyTorch", "#ee4c2c", 3.4, "-"),
    "mindspore": ("MindSpore", "#1f77b4", 2.0, "-"),
    "carried": ("carried", "black", 1.0, (0, (4, 3))),
}


def smoothed(values: Sequence[float], width: int = SMOOTHED) -> tuple[Floats, Floats]:
    """Return steps and the mean of the last `width` values at each."""
    steps = np.arange(width, len(values) + 1, dtype=np.float64)
    return steps, np.convolve(values, np.full(width, 1 / width), mode="valid")


def draw(numbers: Mapping[str, Any], judged: Mapping[str, Any], picture: Path) -> None:
    """Draw the losses of all runs over each other, and below how far they lie apart."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.2), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(STAGES), sharex=True, height_ratios=(1.25, 1))
    for column, stage in enumerate(STAGES):
        top, below = panels[0][column], panels[1][column]
        _losses(top, numbers, stage)
        _differences(below, numbers, judged[stage], stage)
        top.set_title("generator" if stage == "ar" else "decoder", fontweight="bold")
        below.set_xlabel("step")
        for panel in (top, below):
            panel.spines[["top", "right"]].set_visible(False)
            for step in (LEG, 2 * LEG):
                panel.axvline(step, color="0.8", linewidth=0.8, zorder=0)
    panels[0][0].set_ylabel(f"training loss, mean of {SMOOTHED} steps")
    panels[1][0].set_ylabel("difference from PyTorch straight,\nstep by step")
    figure.suptitle(
        "One run carried PyTorch → MindSpore → PyTorch, beside 300 steps straight in each", fontsize="large"
    )
    figure.savefig(picture)


def _losses(panel: Any, numbers: Mapping[str, Any], stage: str) -> None:
    ends = {}
    for name, (label, color, width, style) in LOOKS.items():
        if name in numbers:
            steps, curve = smoothed(numbers[name][stage]["loss"])
            panel.plot(steps, curve, color=color, linewidth=width, linestyle=style)
            ends[label] = (float(curve[-1]), color)
    _label_ends(panel, ends)
    low, high = panel.get_ylim()
    for middle, framework in zip((LEG / 2, 1.5 * LEG, 2.5 * LEG), ("PyTorch", "MindSpore", "PyTorch"), strict=True):
        panel.text(middle, high - 0.02 * (high - low), f"carried on\n{framework}", ha="center", va="top",
                   fontsize="small", color="0.35")  # fmt: skip


def _differences(panel: Any, numbers: Mapping[str, Any], judged: Mapping[str, Any], stage: str) -> None:
    straight = np.array(numbers["torch"][stage]["loss"])
    ends, steps = {}, np.arange(1, NUM_STEPS + 1)
    for name, (label, color, width, _) in LOOKS.items():
        if name in numbers and name != "torch":
            off = np.abs(np.array(numbers[name][stage]["loss"]) - straight)
            off = np.where(off > 0, off, np.nan)  # the same bits have no place on this axis
            panel.semilogy(steps, off, color=color, linewidth=min(width, 1.2), linestyle="-")
            ends[label] = (float(np.exp(np.nanmean(np.log(off[-30:])))), color)
    bound = SHARE * judged["spread"]["loss"]
    panel.axhline(bound, color="tab:green", linewidth=1.2)
    panel.text(2, bound * 1.25, "a tenth of the spread between two seeds", color="tab:green", fontsize="small")
    _label_ends(panel, ends, is_log=True)


def _label_ends(panel: Any, ends: Mapping[str, tuple[float, str]], *, is_log: bool = False) -> None:
    """Write each curve's name behind its end, moved apart where they would lie over each other."""
    low, high = panel.get_ylim()
    if is_log:
        low, high = np.log10(low), np.log10(high)
    places = sorted((np.log10(v) if is_log else v, label, color) for label, (v, color) in ends.items())
    gap, last = 0.06 * (high - low), -np.inf
    for value, label, color in places:
        last = max(value, last + gap)
        panel.annotate(
            label, (NUM_STEPS, 10**last if is_log else last), xytext=(5, 0), textcoords="offset points", va="center",
            color=color, fontsize="small", annotation_clip=False,
        )  # fmt: skip


# --- all of it ----------------------------------------------------------------------------------------------------------


def main() -> int:
    """Train what is not trained yet, measure, draw, write; return 1 where the carry is off by more than it may be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--place", type=Path, default=Path("runs/carry"), help="folder of the runs; default: runs/carry"
    )
    parser.add_argument("--only", metavar="F", help="only train, and only the runs that need no other framework")
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "images" / "carry.png")
    given = parser.parse_args()
    os.chdir(ROOT)
    base = make_base(given.place)
    for run in RUNS:
        if not given.only or run.needs == {given.only}:
            take(run, base, given.place)
    if given.only:
        return 0
    from sampan.checkpoint.history import machine

    numbers = {run.name: measure(given.place / run.name) for run in RUNS}
    judged = judge(given.place, numbers)
    draw(numbers, judged, given.picture)
    holds = all(one["holds"] for stage in judged.values() for one in stage["runs"].values())
    date = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d")
    record = {
        "what": "a run carried PyTorch, MindSpore, PyTorch beside runs straight on each and a second seed",
        "date": date,
        "job": JOB.read_text(encoding="utf-8"),
        "machine": machine(),
        "bound": f"largest deviation at most {SHARE:g} of that between two seeds, in every measure; loss: step by step; "
        f"smoothed_loss: mean of {SMOOTHED} steps; ema_loss: held-out samples under averaged weights at every checkpoint; "
        "weights, ema: distance of what training changed at the end",
        "holds": holds,
        "judged": judged,
        "runs": numbers,
    }
    target = given.results / f"carry_{date}.json"
    target.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for stage, found in judged.items():
        for name, one in found["runs"].items():
            shares = ", ".join(f"{key} {share:.2%}" for key, share in one["share_of_spread"].items())
            print(f"{stage}, {name}: of the spread between two seeds: {shares}")
    print(target, given.picture, sep="\n")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
