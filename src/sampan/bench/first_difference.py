"""Two backends in lockstep from the same weights, on the same batch: where they first differ.

Of every step are compared, in this order: each operation's output as the model calls them, the loss, each parameter's
gradient from the loss backwards, and each parameter's weights. Nothing is carried from one to the other.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampan.bench import shapes
from sampan.bench.arguments import LOCKSTEP_STEPS, LOCKSTEP_TOLERANCE
from sampan.bench.backends import Backend
from sampan.bench.compare import gradient_floor, loss_error, relative_error
from sampan.bench.process import BackendProcess, ComputeTarget, running
from sampan.bench.shapes import BenchShape, output_file
from sampan.report import results

_SETTLED = 1e-3  # of a tensor's largest gradient: below it rounding decides which way AdamW moves a weight


@dataclass(frozen=True)
class FirstDifference:
    """Where two backends first differ by more than is allowed.

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


def find_first_difference(
    backends: tuple[Backend, Backend],
    parts: Sequence[str],
    shape: BenchShape,
    *,
    steps: int = LOCKSTEP_STEPS,
    tolerance: float = LOCKSTEP_TOLERANCE,
    target: ComputeTarget,
    seed: int = 0,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Run two backends in lockstep and return the record; `parted` of a part is None where they do not differ.

    Raises:
        SampanError: A backend cannot run the step.
    """
    before = results.load_average()
    measured: dict[str, Any] = {}
    facts: list[Any] = []
    # a compiled step calls its operations once, while it is compiled, and without values
    is_watched = all(backend.mode == "eager" for backend in backends)
    for part in parts:
        with tempfile.TemporaryDirectory() as name, running(backends, Path(name), target) as processes:
            folder, arrays = Path(name), shapes.batch(part, shape, seed)
            facts = [process.describe() for process in processes]
            shapes.save(folder / "batch.npz", arrays)
            for process in processes:
                process.load(part, folder / "batch.npz", seed, shape.model)
            measured[part] = _Lockstep(processes, folder, is_watched, tolerance).run(part, steps, say)
            measured[part]["arrays"] = {name: list(array.shape) for name, array in arrays.items()}
    note = "operations of a compiled step cannot be watched: loss, gradients and weights are compared"
    return {
        "what": "two sides in lockstep: the first operation, layer and step that differ",
        **results.conditions(before),
        "shape": shape.as_dict(),
        "seed": seed,
        "steps": steps,
        "tolerance": tolerance,
        "sides": facts,
        "parts": measured,
        "notes": [] if is_watched else [note],
    }


class _Lockstep:
    """One part on two backends, which are loaded. What is seen of a step goes into its row of the record."""

    def __init__(self, processes: Sequence[BackendProcess], folder: Path, is_watched: bool, tolerance: float):
        self.processes, self.folder, self.is_watched, self.tolerance = processes, folder, is_watched, tolerance
        start = folder / "start.npz"
        self.names = processes[0].ask("weights", path=str(start))["names"]
        with np.load(start) as weights:
            self.start = {name: weights[name] for name in self.names}
        self.settled: dict[str, NDArray[np.bool_]] = {}
        self.num_calls = 0

    def run(self, part: str, steps: int, say: Callable[[str], None]) -> dict[str, Any]:
        """Take steps until the backends differ; return what was seen."""
        rows: list[dict[str, Any]] = []
        difference = None
        for step in range(steps):
            say(f"{part}: step {step + 1} of {steps}")
            rows.append({"step": step})
            if difference := self._step(rows[-1]):
                break
        parted, sentence = (asdict(difference), str(difference)) if difference else (None, None)
        return {"parted": parted, "said": sentence, "num_calls": self.num_calls, "steps": rows}

    def _step(self, row: dict[str, Any]) -> FirstDifference | None:
        with (
            tempfile.TemporaryDirectory(dir=self.folder) as first,
            tempfile.TemporaryDirectory(dir=self.folder) as other,
        ):
            folders = [Path(first), Path(other)]
            answers = [
                process.ask("trace", folder=str(folder), record=self.is_watched)
                for process, folder in zip(self.processes, folders, strict=True)
            ]
            return (
                self._operations(row, folders, [answer["calls"] for answer in answers])
                or self._loss(row, [answer["loss"] for answer in answers])
                or self._gradients(row, folders)
                or self._weights(row, folders)
            )

    def _operations(self, row: dict[str, Any], folders: Sequence[Path], calls: Sequence[Any]) -> FirstDifference | None:
        self.num_calls, row["operation"] = len(calls[0]), 0.0
        for number, (mine, theirs) in enumerate(zip(*calls, strict=False)):
            if mine != theirs:
                what = f"call {number} is {mine[0]} on one side and {theirs[0]} on the other,"
                return FirstDifference(row["step"], "calls", what, mine[1], None)
            operation, layer, count = mine
            errors = [
                relative_error(*(np.load(output_file(folder, number, place)) for folder in reversed(folders)))
                for place in range(count)
            ]
            if self._exceeds(row, "operation", worst := max(errors, default=0.0)):
                return FirstDifference(row["step"], "operation", operation, layer, worst)
        if len(calls[0]) != len(calls[1]):
            what = f"one side makes {len(calls[0])} calls and the other {len(calls[1])}"
            return FirstDifference(row["step"], "calls", what, None, None)
        return None

    def _loss(self, row: dict[str, Any], losses: Sequence[float]) -> FirstDifference | None:
        row["losses"] = list(losses)
        row["loss"] = error = loss_error(losses[1], losses[0])
        return None if error <= self.tolerance else FirstDifference(row["step"], "loss", "of the step", None, error)

    def _gradients(self, row: dict[str, Any], folders: Sequence[Path]) -> FirstDifference | None:
        row["gradient"] = 0.0
        with np.load(folders[0] / "gradients.npz") as mine, np.load(folders[1] / "gradients.npz") as theirs:
            floor = gradient_floor(mine)
            for name in reversed(self.names):  # the loss first
                if name not in mine.files and name not in theirs.files:
                    continue
                both = name in mine.files and name in theirs.files
                error = relative_error(theirs[name], mine[name], floor) if both else math.inf
                if self._exceeds(row, "gradient", error):
                    return _of_parameter(row["step"], "gradient", name, error)
                sizes = np.abs(mine[name])
                settled = sizes > _SETTLED * max(float(sizes.max(initial=0.0)), floor)
                self.settled[name] = settled & self.settled.get(name, settled)
        return None

    def _weights(self, row: dict[str, Any], folders: Sequence[Path]) -> FirstDifference | None:
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
                if self._exceeds(row, "weights", error):
                    return _of_parameter(row["step"], "weights", name, error)
        return None

    def _exceeds(self, row: dict[str, Any], kind: str, error: float) -> bool:
        """Note the largest error of a kind in the row; return whether this one is more than is allowed."""
        row[kind] = max(row[kind], error)
        return not error <= self.tolerance


def _of_parameter(step: int, kind: str, name: str, error: float) -> FirstDifference:
    layer, _, parameter = name.rpartition(".")
    return FirstDifference(step, kind, f"of {parameter}", layer or None, error)
