"""Windows of a run's steps taken again: from a kept checkpoint to the next, on this framework and device.

The steps are `StageTrainer.step`, as in training. Nothing is written into the run's folder.
"""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sampan import frameworks
from sampan.checkpoint import run
from sampan.checkpoint.provenance import StageSession, machine, place_of, taken_by
from sampan.checkpoint.run_metadata import read_steps
from sampan.errors import CheckpointError
from sampan.frameworks import device as dev
from sampan.frameworks import io
from sampan.job import STAGES, Job, parse
from sampan.samplers import noise
from sampan.train import compare
from sampan.train.compare import RelativeDifference
from sampan.train.run_state import RunState, reopen_run
from sampan.train.stage_trainer import StageTrainer

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ReplayWindow:
    """Steps between two neighbouring kept checkpoints of a stage.

    Args:
        begin: The first of the two; None is the stage's beginning, which needs no checkpoint.
        end: The second.
    """

    stage: str
    begin: Path | None
    end: Path

    @cached_property
    def state(self) -> dict[str, Any]:
        """The state.json of the second checkpoint, whose job was in force."""
        return run.state_of(self.end)

    @property
    def first(self) -> int:
        """Steps taken before it."""
        return int(run.state_of(self.begin)["step"]) if self.begin else 0

    @property
    def last(self) -> int:
        """Steps taken at its end."""
        return int(self.state["step"])

    @cached_property
    def job(self) -> Job:
        """The job of its steps."""
        return parse(self.state["job"], name=f"the job in {self.end / 'state.json'}")

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """Who took its steps."""
        return taken_by(self.state.get("history", ()), self.first, self.last)

    @property
    def name(self) -> str:
        """The window in words, by the numbers of its steps."""
        return f"{self.stage} {self.first + 1}-{self.last}"


def windows(out: Path) -> tuple[list[ReplayWindow], list[str]]:
    """Return all windows of a run that can be replayed, and in words which steps cannot be, and why.

    From a stage's beginning to its first kept checkpoint is a window too where no save between them is gone.
    """
    found, gone = [], []
    for stage in STAGES:
        folders = run.steps(out, stage)
        if not folders:
            continue
        first = ReplayWindow(stage, None, folders[0])
        train = first.job.train
        if first.last <= train.save_every:
            found.append(first)
        else:
            saves = math.ceil(getattr(first.job.stage, stage).num_steps / train.save_every)
            kept = f"train.keep_last = {train.keep_last}"
            why = f"{kept}; {saves} keeps them all" if train.keep_last < saves else f"removed; {kept} had kept them"
            gone.append(
                f"{stage}: steps 1-{first.last} cannot be replayed: the checkpoints before step {first.last} are gone ({why})"
            )
        found += [ReplayWindow(stage, begin, end) for begin, end in itertools.pairwise(folders)]
    return found, gone


def choose(every: Sequence[ReplayWindow], count: int, seed: int) -> list[ReplayWindow]:
    """Return `count` of the windows, or all where there are no more, drawn by a seed; in the order of training."""
    drawn = noise.generator(seed, "verify").permutation(len(every))[:count]
    return [every[i] for i in sorted(drawn)]


@dataclass(frozen=True)
class ReplayResult:
    """What came of a window.

    Args:
        recorded: What took its steps: framework, version, device, dtype, threads.
        now: What took them again.
        same_place: Both are the same, and so is the machine: then the bits should be.
        loss: The largest relative difference of a loss, and its step.
        differences: Of `weights`, `ema` and the two moments at its end.
        problems: What makes no number: a step that the log lacks, a count that differs.
    """

    window: ReplayWindow
    recorded: tuple[Mapping[str, Any], ...]
    now: Mapping[str, Any]
    same_place: bool
    loss: tuple[float, int]
    differences: Mapping[str, RelativeDifference]
    problems: tuple[str, ...]

    @property
    def is_same(self) -> bool:
        """Every loss and every tensor is the same, bit for bit."""
        return not self.problems and self.loss[0] == 0 and all(d.identical for d in self.differences.values())

    def faults(self, tolerances: Mapping[str, float]) -> list[str]:
        """Return in words what is further off than it may be."""
        faults = list(self.problems)
        worst, step = self.loss
        if worst > tolerances["loss"]:
            most = tolerances["loss"]
            faults.append(f"the loss of step {step} is off by {worst:.2g} of the recorded one (at most {most:g})")
        for name, difference in self.differences.items():
            most = tolerances[name if name in tolerances else "moments"]
            if difference.relative > most:
                faults.append(f"{name} end {difference.relative:.2g} of the window's way apart (at most {most:g})")
            tensor, off = difference.worst_tensor
            if off > tolerances["tensor"]:
                faults.append(
                    f"`{tensor}` in {name} ends {off:.2g} of the way apart (at most {tolerances['tensor']:g})"
                )
        return faults


class Replayer:
    """Takes windows of one run again. A run is opened once for all windows of the same job, device and dtype.

    Args:
        scratch: A folder to write to.
        device, dtype: As a job has them, or None for those of the window's steps.
    """

    def __init__(self, out: Path, scratch: Path, device: str | None, dtype: str | None, console: Any):
        self.out, self.scratch, self.device, self.dtype, self.console = out, scratch, device, dtype, console
        self._runs: dict[tuple[str, str, str], RunState] = {}

    def replay(self, window: ReplayWindow, progress: Progress) -> ReplayResult:
        """Take a window's steps and return how far they end from what was recorded.

        Raises:
            SampanError: It cannot be done here: no such device, no pictures, not enough memory.
        """
        sessions = window.sessions
        if not sessions:
            raise CheckpointError(
                f"{window.name} cannot be replayed", f"`{window.end / 'state.json'}` has no history of these steps"
            )
        state = self._open(window, sessions[-1])
        trainer = StageTrainer(state, window.stage)
        begin = _Begin(window, trainer)
        if window.begin:
            for note in trainer.restore(window.begin):
                self.console.print(note, highlight=False)
        logged = read_steps(self.out / "log.jsonl", window.stage)
        problems, loss = [], (0.0, window.last)
        for step in range(window.first, window.last):
            progress(f"replaying {window.name}", step - window.first, window.last - window.first)
            report = trainer.step(step).report
            line = logged.get(step + 1)
            if line is None:
                problems.append(f"log.jsonl has no step {step + 1}")
                continue
            recorded = math.nan if line["loss"] is None else float(line["loss"])
            off = compare.relative_error(recorded, report.loss)
            loss = max(loss, (off, step + 1), key=lambda pair: pair[0])
            if bool(line.get("skipped")) != report.skipped:
                problems.append(
                    f"step {step + 1} {'was' if line.get('skipped') else 'was not'} skipped when it was taken"
                )
        progress(f"replaying {window.name}", window.last - window.first, window.last - window.first)
        differences, counts = self._differences(window, begin, trainer.groups())
        session = StageSession(
            window.first, frameworks.chosen(), state.device, dtype=state.dtype, threads=dev.set_threads(None)
        )
        recorded_on = tuple(place_of(entry) for entry in sessions)
        same_place = all(place == session.place() for place in recorded_on) and all(
            entry.get("machine") == machine() and entry.get("ranks") in (None, 1) for entry in sessions
        )
        return ReplayResult(window, recorded_on, session.place(), same_place, loss, differences, (*problems, *counts))

    def _open(self, window: ReplayWindow, session: Mapping[str, Any]) -> RunState:
        """Return the run as the window's job sees it, on the device."""
        place, job = place_of(session), window.job
        device = dev.resolve(self.device or place["device"])
        dtype = dev.resolve_dtype(self.dtype or place["dtype"] or job.place.dtype, device)
        key = window.state["job"], device, dtype
        if key not in self._runs:
            dev.set_threads(job.place.threads)
            cache = self.scratch / f"cache-{len(self._runs)}"
            _link(job.data.cache or self.out / "cache", cache)
            self._runs[key] = reopen_run(job, self.out, device, dtype, cache=cache, console=self.console)
        return self._runs[key]

    def _differences(
        self, window: ReplayWindow, begin: _Begin, groups: Mapping[str, Mapping[str, Any]]
    ) -> tuple[dict[str, RelativeDifference], list[str]]:
        found, again = {}, groups["optimizer"]
        for group in ("weights", "ema"):
            # against the way gone now: one that was recorded falsely could be as long as it likes
            mine, reader = groups[group], _of_file(window.end / f"{group}.safetensors")
            found[group] = compare.relative_difference(
                mine, begin.read(group), lambda name, mine=mine: dev.to_numpy(mine[name]), reader
            )
        recorded = io.read_tensors(window.end / "optimizer.safetensors", "cpu")
        names = compare.moment_names(recorded, again)
        for moment in compare.MOMENTS:
            found[moment] = compare.relative_difference(
                [name for name in names if name.endswith(f".{moment}")],
                compare.moments(begin.optimizer, dev.to_numpy),
                compare.moments(again, dev.to_numpy),
                compare.moments(recorded, dev.to_numpy),
            )
        keys = {key for key in (*recorded, *again) if key == "num_updates" or key.endswith(".step")}
        counts = [
            f"`{key}` is {_count(again, key)} and was recorded as {_count(recorded, key)}"
            for key in sorted(keys)
            if _count(again, key) != _count(recorded, key)
        ]
        return found, counts


class _Begin:
    """The state that a window begins from."""

    def __init__(self, window: ReplayWindow, trainer: StageTrainer):
        self.window = window
        self.optimizer: Mapping[str, Any] = {}
        self._first: dict[str, Any] = {}
        if window.begin:
            self.optimizer = io.read_tensors(window.begin / "optimizer.safetensors", "cpu")
        else:  # before the first step average and weights are the same
            self._first = {name: dev.to_numpy(t).copy() for name, t in trainer.groups()["weights"].items()}

    def read(self, group: str) -> compare.Reader:
        """Return a reader of the group's tensors."""
        return _of_file(self.window.begin / f"{group}.safetensors") if self.window.begin else self._first.get


def _of_file(path: Path) -> compare.Reader:
    """Return a reader of one tensor at a time: all of them would be a second model in memory."""
    return lambda name: dev.to_numpy(io.read_tensors(path, "cpu", (name,))[name])


def _count(optimizer: Mapping[str, Any], key: str) -> int | None:
    return int(dev.to_numpy(optimizer[key])) if key in optimizer else None


def _link(cache: Path, scratch: Path) -> None:
    """Make a cache in the scratch folder that has what the run's has: shards by link, what is rewritten as a copy."""
    scratch.mkdir(parents=True)
    for path in sorted(cache.rglob("*")) if cache.is_dir() else ():
        target = scratch / path.relative_to(cache)
        if path.is_dir():
            target.mkdir()
        elif path.suffix == ".safetensors":
            try:
                target.symlink_to(path.resolve())
            except OSError:  # not every system lets everybody make links
                shutil.copy2(path, target)
        elif path.name != ".lock":
            shutil.copy2(path, target)
