"""Two sides in lockstep from the same weights, on the same batch: where they first part.

Of every step are compared, in this order: each operation's output as the model calls them, the loss, each parameter's
gradient from the loss backwards, and each parameter's weights. Nothing is carried from one side to the other.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampan.bench import shapes
from sampan.bench.backends import Backend
from sampan.bench.compare import FLOOR, relative
from sampan.bench.process import BackendProcess, ComputeTarget, facts_of, running
from sampan.bench.shapes import BenchShape
from sampan.bench.timing import load
from sampan.bench.trace import output_file
from sampan.report import results

TOLERANCE, NUM_STEPS = 1e-3, 3
_SETTLED = 1e-3  # of a tensor's largest gradient: below it rounding decides which way AdamW moves a weight


@dataclass(frozen=True)
class FirstDifference:
    """Where two sides first differ by more than is allowed.

    Args:
        step: Counted from 0.
        kind: "operation", "calls", "loss", "gradient" or "weights".
        what: Name of the operation or parameter.
        layer: Path of the layer that called the operation, or that has the parameter; None for the loss.
        error: Of the largest value; of weights, the length of the difference over that of the way since the start.
    """

    step: int
    kind: str
    what: str
    layer: str | None
    error: float | None

    def __str__(self) -> str:
        """Say it in a sentence."""
        error = "" if self.error is None else f" by {self.error:.1e}"
        where = f" in `{self.layer}`" if self.layer else ""
        if self.kind == "calls":
            return f"step {self.step}: {self.what}{where}"
        return f"step {self.step}: the {self.kind} {self.what}{where} differs{error}"


def diverge(
    sides: tuple[Backend, Backend],
    parts: Sequence[str],
    shape: BenchShape,
    *,
    steps: int = NUM_STEPS,
    tolerance: float = TOLERANCE,
    place: ComputeTarget,
    seed: int = 0,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Run two sides in lockstep and return the record; `parted` of a part is None where they do not part.

    Raises:
        SampanError: A side cannot run the step.
    """
    before = results.load_average()
    found: dict[str, Any] = {}
    facts: list[Any] = []
    # a compiled step calls its operations once, while it is compiled, and without values
    watched = all(side.mode == "eager" for side in sides)
    for part in parts:
        with tempfile.TemporaryDirectory() as folder, running(sides, Path(folder), place) as processes:
            facts = [dict(facts_of(process)) for process in processes]
            arrays = shapes.batch(part, shape, seed)
            shapes.save(Path(folder) / "batch.npz", arrays)
            for process in processes:
                load(process, part, shape, Path(folder) / "batch.npz", seed)
            found[part] = _Lockstep(processes, Path(folder), watched).run(part, steps, tolerance, say)
            found[part]["arrays"] = {name: list(array.shape) for name, array in arrays.items()}
    notes = (
        [] if watched else ["operations of a compiled step cannot be watched: loss, gradients and weights are compared"]
    )
    return {
        "what": "two sides in lockstep: the first operation, layer and step that differ",
        **results.conditions(before),
        "shape": shape.as_dict(),
        "seed": seed,
        "steps": steps,
        "tolerance": tolerance,
        "sides": facts,
        "parts": found,
        "notes": notes,
    }


class _Lockstep:
    """One part on two sides, which are loaded."""

    def __init__(self, processes: Sequence[BackendProcess], folder: Path, watched: bool):
        self.processes, self.folder, self.watched = processes, folder, watched
        start = folder / "start.npz"
        self.names = processes[0].ask("weights", path=str(start))["names"]
        with np.load(start) as weights:
            self.start = {name: weights[name] for name in self.names}
        self.settled: dict[str, NDArray[np.bool_]] = {}
        self.num_calls = 0

    def run(self, part: str, steps: int, tolerance: float, say: Callable[[str], None]) -> dict[str, Any]:
        """Take steps until the sides part; return what was seen."""
        rows: list[dict[str, Any]] = []
        for step in range(steps):
            say(f"{part}: step {step + 1} of {steps}")
            row: dict[str, Any] = {"step": step}
            rows.append(row)
            parting = self._step(step, tolerance, row)
            if parting:
                return {"parted": asdict(parting), "said": str(parting), "num_calls": self.num_calls, "steps": rows}
        return {"parted": None, "said": None, "num_calls": self.num_calls, "steps": rows}

    def _step(self, step: int, tolerance: float, row: dict[str, Any]) -> FirstDifference | None:
        folders, answers = [], []
        for number, process in enumerate(self.processes):
            folder = self.folder / f"{number}"
            folder.mkdir()
            answers.append(process.ask("trace", folder=str(folder), record=self.watched))
            folders.append(folder)
        try:
            return (
                self._operations(step, tolerance, row, folders, [answer["calls"] for answer in answers])
                or self._loss(step, tolerance, row, [answer["loss"] for answer in answers])
                or self._gradients(step, tolerance, row, folders)
                or self._weights(step, tolerance, row, folders)
            )
        finally:
            for folder in folders:
                shutil.rmtree(folder)

    def _operations(
        self, step: int, tolerance: float, row: dict[str, Any], folders: Sequence[Path], calls: Sequence[Any]
    ) -> FirstDifference | None:
        self.num_calls, row["operation"] = len(calls[0]), 0.0
        for number, (mine, theirs) in enumerate(zip(*calls, strict=False)):
            if mine != theirs:
                return FirstDifference(
                    step,
                    "calls",
                    f"call {number} is {mine[0]} on one side and {theirs[0]} on the other,",
                    mine[1],
                    None,
                )
            operation, layer, count = mine
            errors = [
                relative(*(np.load(output_file(folder, number, place)) for folder in reversed(folders)))
                for place in range(count)
            ]
            worst = max(errors, default=0.0)
            row["operation"] = max(row["operation"], worst)
            if not worst <= tolerance:
                return FirstDifference(step, "operation", operation, layer, worst)
        if len(calls[0]) != len(calls[1]):
            return FirstDifference(
                step, "calls", f"one side makes {len(calls[0])} calls and the other {len(calls[1])}", None, None
            )
        return None

    def _loss(
        self, step: int, tolerance: float, row: dict[str, Any], losses: Sequence[float]
    ) -> FirstDifference | None:
        row["losses"] = list(losses)
        error = abs(losses[1] - losses[0]) / max(abs(losses[0]), 1e-30)
        row["loss"] = error
        return None if error <= tolerance else FirstDifference(step, "loss", "of the step", None, error)

    def _gradients(
        self, step: int, tolerance: float, row: dict[str, Any], folders: Sequence[Path]
    ) -> FirstDifference | None:
        with np.load(folders[0] / "gradients.npz") as mine, np.load(folders[1] / "gradients.npz") as theirs:
            floor = FLOOR * max((float(np.abs(mine[name]).max(initial=0.0)) for name in mine.files), default=0.0)
            row["gradient"] = 0.0
            for name in reversed(self.names):  # the loss first
                if name not in mine.files and name not in theirs.files:
                    continue
                both = name in mine.files and name in theirs.files
                error = relative(theirs[name], mine[name], floor) if both else math.inf
                row["gradient"] = max(row["gradient"], error)
                if not error <= tolerance:
                    return _of_parameter(step, "gradient", name, error)
                sizes = np.abs(mine[name])
                settled = sizes > _SETTLED * max(float(sizes.max(initial=0.0)), floor)
                self.settled[name] = settled & self.settled.get(name, settled)
        return None

    def _weights(
        self, step: int, tolerance: float, row: dict[str, Any], folders: Sequence[Path]
    ) -> FirstDifference | None:
        """Compare how far weights have come. At their size alone, a wrong step would hardly be seen."""
        row["weights"] = 0.0
        with np.load(folders[0] / "weights.npz") as mine, np.load(folders[1] / "weights.npz") as theirs:
            for name in self.names:
                chosen = self.settled.get(name)
                if chosen is None or not chosen.any():
                    continue
                way = np.linalg.norm((mine[name] - self.start[name])[chosen])
                error = float(np.linalg.norm((theirs[name] - mine[name])[chosen]) / max(float(way), 1e-30))
                error = error if math.isfinite(error) else math.inf
                row["weights"] = max(row["weights"], error)
                if not error <= tolerance:
                    return _of_parameter(step, "weights", name, error)
        return None


def _of_parameter(step: int, kind: str, name: str, error: float) -> FirstDifference:
    layer, _, parameter = name.rpartition(".")
    return FirstDifference(step, kind, f"of {parameter}", layer or None, error)
