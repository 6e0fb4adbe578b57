"""Proof that a run that is killed goes on as if it had not been: a training straight through, and one killed many times.

Both are the same small job. The second is ended with SIGKILL, its whole process group, at random moments spread over
start-up, steps, saves, encoding and the writing of the model, and taken up again with --resume after each. Then the files
of the model, the final checkpoints and the numbers in the log must be the same, byte for byte and bit for bit.

    python benchmarks/kill_resume.py [--kills 20] [--seed 0] [--out results]
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sampan.report import results

ROOT = Path(__file__).resolve().parent.parent
JOB = ROOT / "jobs" / "smoke.toml"
STAGES = ("vae", "tokenizer", "glyph", "ar", "decoder")
NUM_STEPS, SAVE_EVERY = 6, 2
KINDS = ("start", "step", "save", "step", "encode", "step", "save", "model", "start", "step")  # in turn
POLL_S = 0.001
LONGEST_S = 300.0
NUMBERS = ("loss", "lr", "grad_norm", "validation_loss")


@dataclass(frozen=True)
class Kill:
    """One kill.

    Args:
        kind: What it was meant to hit.
        position: At which step of the whole run, counted through the stages, it was to come at the earliest.
        after_s: Since the start of the process.
        stage, step: The last line of the log then; None before the first.
        saving: A checkpoint was being written.
    """

    kind: str
    position: int
    after_s: float
    stage: str | None
    step: int | None
    saving: bool


class Run:
    """A run folder, looked at from outside."""

    def __init__(self, place: Path, out: str, settings: list[str]):
        self.place, self.out, self.settings = place, place / out, settings

    def start(self, *, resume: bool) -> subprocess.Popen[bytes]:
        """Start the training as a process group of its own."""
        command = [sys.executable, "-m", "sampan", "train", str(JOB), "--set", f"out={self.out.as_posix()}"]
        command += [word for setting in self.settings for word in ("--set", setting)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}
        with open(self.place / f"{self.out.name}.said", "ab") as said:
            return subprocess.Popen(
                [*command, *(["--resume"] if resume else [])],
                cwd=self.place, env=environment, stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def finish(self, *, resume: bool) -> float:
        """Run the training to its end and return the seconds it took.

        Raises:
            SystemExit: It failed.
        """
        begun = time.perf_counter()
        process = self.start(resume=resume)
        try:
            self.check(process.wait(LONGEST_S))
        finally:
            end(process)
        return time.perf_counter() - begun

    def check(self, code: int) -> None:
        """Stop when a training failed."""
        if code:
            said = (self.place / f"{self.out.name}.said").read_text(encoding="utf-8", errors="replace")
            sys.exit(f"the training in {self.out} ended with {code}:\n{said[-3000:]}")

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines of the log; one that is cut off is left out."""
        path = self.out / "log.jsonl"
        found = []
        for line in path.read_bytes().decode(errors="replace").split("\n") if path.is_file() else []:
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return found

    def progress(self) -> int:
        """Return the step of the whole run that the log has come to, counted through the stages."""
        lines = self.lines()
        return STAGES.index(lines[-1]["stage"]) * NUM_STEPS + int(lines[-1]["step"]) if lines else 0

    def is_done(self, stage: str) -> bool:
        """Say whether a stage's last checkpoint is there."""
        return (self.out / "stages" / stage / f"step-{NUM_STEPS:08d}" / "state.json").is_file()

    def saving(self) -> set[str]:
        """Return the checkpoints that are being written, or were when a process ended."""
        return {path.name for path in self.out.glob("stages/*/.writing-*")}

    def mark(self) -> tuple[int, int]:
        """Return what changes when a line is added to the log or dropped from it."""
        path = self.out / "log.jsonl"
        return (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else (0, 0)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that it started, as hard as the system can."""
    if process.poll() is None:
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def plan(num_kills: int, seed: int) -> list[tuple[str, int, float]]:
    """Return for each kill its kind, its position in the run and a number in [0, 1] for its moment; in their order."""
    draw = random.Random(seed)
    ends = {"encode": STAGES.index("ar") * NUM_STEPS, "model": len(STAGES) * NUM_STEPS}
    kinds = [KINDS[number % len(KINDS)] for number in range(num_kills)]
    free = [kind for kind in kinds if kind not in ends]
    stretch = (len(STAGES) * NUM_STEPS - 1) / max(1, len(free))  # one kill in each, so that none of the run is left out
    kills, num_starts = [], 0
    for number, kind in enumerate(free):
        share = draw.random()
        if kind == "start":  # the first one early, while the run folder is being made
            share, num_starts = (num_starts + share) / free.count("start"), num_starts + 1
        kills.append((kind, int(stretch * (number + draw.random())), share))
    kills += [(kind, ends[kind], draw.random()) for kind in kinds if kind in ends]
    return sorted(kills, key=lambda kill: (kill[1], kill[0] in ends))


def moment(
    run: Run, kind: str, position: int, share: float, paces: dict[str, float]
) -> Callable[[float], float | None]:
    """Return a function of the seconds since the start that says when to kill, in the same seconds, once it is known.

    Args:
        paces: Seconds that the straight run took for `start`, a `step`, a `save`, to `encode` and to write the `model`.
    """
    before, left = run.mark(), run.saving()  # what an earlier process left says nothing about this one

    follows = {"encode": "glyph", "model": STAGES[-1]}.get(kind)  # the stage whose end it comes after
    was_done = follows is not None and run.is_done(follows)

    def is_there() -> bool:
        if follows is not None:
            return run.is_done(follows)
        if run.mark() == before or run.progress() < position:
            return False
        return kind == "step" or bool(run.saving() - left)

    def when(now_s: float) -> float | None:
        if kind == "start" or was_done:  # by the clock, but never later than the first step
            by_clock = share * paces["start"] + (share * paces[kind] if was_done else 0)
            return now_s if run.mark() != before else by_clock if now_s >= by_clock else None
        return now_s + share * paces[kind] if is_there() else None

    return when


def kill_once(run: Run, kind: str, position: int, share: float, paces: dict[str, float]) -> Kill | None:
    """Take the run up, kill it at its moment and say where it was; None when it came to its end before."""
    when, left = moment(run, kind, position, share, paces), run.saving()
    begun = time.perf_counter()
    process = run.start(resume=True)
    due: float | None = None
    try:
        while (code := process.poll()) is None:
            now_s = time.perf_counter() - begun
            due = when(now_s) if due is None else due
            if due is not None and now_s >= due:
                break
            if now_s > LONGEST_S:
                sys.exit(f"the kill of kind {kind} at {position} found nothing to hit")
            time.sleep(POLL_S)
    finally:
        end(process)
    if code is not None:
        run.check(code)
        return None
    lines = run.lines()
    last = lines[-1] if lines else {"stage": None, "step": None}
    after_s = round(time.perf_counter() - begun, 3)
    return Kill(kind, position, after_s, last["stage"], last["step"], bool(run.saving() - left))


def paces(run: Run) -> dict[str, float]:
    """Train straight through and return how long each kind of work takes."""
    begun = time.perf_counter()
    process = run.start(resume=False)
    marks: dict[str, float] = {}
    try:
        while (code := process.poll()) is None:
            now_s = time.perf_counter() - begun
            lines = run.lines()
            if lines:
                marks.setdefault("first line", now_s)
                if lines[-1]["stage"] == "ar":
                    marks.setdefault("ar", now_s)
            for stage in ("glyph", STAGES[-1]):
                if run.is_done(stage):
                    marks.setdefault(f"{stage} done", now_s)
            time.sleep(0.01)
        run.check(code)
    finally:
        end(process)
    total = time.perf_counter() - begun
    step = (marks["decoder done"] - marks["first line"]) / (len(STAGES) * NUM_STEPS)
    return {
        "start": marks["first line"],
        "step": step,
        "save": min(step, 0.05),
        "encode": marks["ar"] - marks["glyph done"],
        "model": total - marks["decoder done"],
        "total": total,
    }


def digests(folder: Path, pattern: str) -> dict[str, str]:
    """Return the sha256 of each file below a folder that fits a pattern."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob(pattern))
        if path.is_file()
    }


def compare(straight: Run, killed: Run) -> dict[str, Any]:
    """Return what is the same in both runs and what differs."""
    facts: dict[str, Any] = {}
    for what, pattern in (("model", "model/**/*"), ("checkpoints", f"stages/*/step-{NUM_STEPS:08d}/*.safetensors")):
        one, other = digests(straight.out, pattern), digests(killed.out, pattern)
        names = sorted(one.keys() | other.keys())
        facts[what] = {"files": len(one), "differ": [name for name in names if one.get(name) != other.get(name)]}
    ours, theirs = (
        [(line["stage"], line["step"], *(line.get(number) for number in NUMBERS)) for line in run.lines()]
        for run in (straight, killed)
    )
    facts["log"] = {"lines": len(ours), "differ": [list(a[:2]) for a in ours if a not in theirs]}
    facts["log"]["once each"] = len(theirs) == len(ours)
    facts["same"] = bool(
        facts["model"]["files"]
        and not any(facts[what]["differ"] for what in ("model", "checkpoints", "log"))
        and facts["log"]["once each"]
    )
    return facts


def prove(place: Path, num_kills: int, seed: int) -> dict[str, Any]:
    """Train twice in a folder, killing one of them, and return what happened."""
    pictures = [sys.executable, "-m", "sampan", "data", "emoji", "pictures"]
    subprocess.run(
        [*pictures, "--count", "8", "--size", "64", "--edits", "1"], cwd=place, check=True, capture_output=True
    )
    settings = ["data.path=pictures", f"train.save_every={SAVE_EVERY}"]
    settings += [f"stage.{stage}.num_steps={NUM_STEPS}" for stage in STAGES]
    straight, killed = Run(place, "straight", settings), Run(place, "killed", settings)
    found = paces(straight)
    kills = []
    for kind, position, share in plan(num_kills, seed):
        # where the end came first, nothing is left but to write the model again: earlier, then
        tries = (kill_once(killed, kind, position, share / 2**attempt, found) for attempt in range(5))
        kills += itertools.islice(filter(None, tries), 1)
    last_s = killed.finish(resume=True)
    return {
        "seconds": {name: round(value, 3) for name, value in {**found, "last attempt": last_s}.items()},
        "kills": [asdict(kill) for kill in kills],
        "not_hit": num_kills - len(kills),
        "compared": compare(straight, killed),
    }


def main() -> int:
    """Run the proof, write its record and say in a line whether it holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "results")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        facts = prove(Path(folder), given.kills, given.seed)
    record = {
        "what": "a small training killed with SIGKILL and resumed, compared with one that ran straight through",
        "job": JOB.relative_to(ROOT).as_posix(),
        "settings": {"num_steps": NUM_STEPS, "save_every": SAVE_EVERY, "seed": given.seed, "kills": given.kills},
        "machine": {"system": platform.system(), "cpu": platform.machine(), "cores": os.cpu_count(), "threads": 1},
        "versions": {"python": platform.python_version(), **{p: version(p) for p in ("sampan", "numpy", "torch")}},
        **facts,
    }
    target = results.add("kill-resume", record, given.out)
    for kill in facts["kills"]:
        where = "before the first step" if kill["stage"] is None else f"{kill['stage']} step {kill['step']}"
        print(f"{kill['kind']:>7}  {kill['after_s']:6.2f} s  {where}{', saving' if kill['saving'] else ''}")
    compared = facts["compared"]
    print(f"{len(facts['kills'])} kills; {'the same' if compared['same'] else 'NOT the same'}: {target}")
    return 0 if compared["same"] and facts["not_hit"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
