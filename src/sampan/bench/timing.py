"""A training step on several sides: compared first, then timed in turns, so that outside load hits all alike."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sampan.bench import compare, shapes
from sampan.bench.backends import Backend, installed
from sampan.bench.process import BackendProcess, ComputeTarget, facts_of, running
from sampan.bench.shapes import BenchShape
from sampan.errors import SampanError
from sampan.report import results

# after the first, before any that counts. MindSpore's runtime tries out how to run a compiled step: on a CPU its calls 6 to
# 15 take four times as long as those before and after
WARM_UP_STEPS = {"eager": 2, "compiled": 15}
METERS = ("torch", "mindspore")  # frameworks whose meter counts a step, in the order they are asked
Say = Callable[[str], None]


def race(
    sides: Sequence[Backend],
    parts: Sequence[str],
    shape: BenchShape,
    *,
    rounds: int,
    place: ComputeTarget,
    seed: int = 0,
    say: Say,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Measure every part on every side; return the record. Ratios are to the first side.

    Args:
        say: Is told in words what is being done.
        notes: Go into the record.

    Raises:
        SampanError: A side cannot run the step, or gives another answer than the first.
    """
    before = results.load_average()
    measured: dict[str, Any] = {}
    facts: list[Any] = []
    for part in parts:
        with tempfile.TemporaryDirectory() as folder, running(sides, Path(folder), place) as processes:
            facts = [dict(facts_of(process)) for process in processes]
            measured[part] = _Race(processes, part, shape, Path(folder), seed, say).run(rounds)
    return {
        "what": "one training step, the same weights and batch on every side",
        **results.conditions(before),
        "shape": shape.as_dict(),
        "seed": seed,
        "rounds": rounds,
        "warm_up_steps": {mode: 1 + WARM_UP_STEPS[mode] for mode in dict.fromkeys(side.mode for side in sides)},
        "ratios_to": sides[0].label,
        "sides": facts,
        "parts": measured,
        "notes": list(notes),
    }


class _Race:
    """One part on all sides, which are running."""

    def __init__(
        self, processes: Sequence[BackendProcess], part: str, shape: BenchShape, folder: Path, seed: int, say: Say
    ):
        self.processes, self.part, self.shape, self.folder, self.seed = processes, part, shape, folder, seed
        self.say = say
        self.batch = folder / "batch.npz"

    def run(self, rounds: int) -> dict[str, Any]:
        arrays = shapes.batch(self.part, self.shape, self.seed)
        shapes.save(self.batch, arrays)
        loaded = [self._load(process) for process in self.processes]
        firsts, differences = self._compare()
        for process in self.processes:
            self.say(f"{self.part}: warm-up of {process.side.label}")
            for _ in range(WARM_UP_STEPS[process.side.mode]):
                _step(process)
        taken: list[list[dict[str, Any]]] = [[] for _ in self.processes]
        order = list(range(len(self.processes)))
        for number in range(rounds):
            self.say(f"{self.part}: round {number + 1} of {rounds}")
            begin = number % len(order)  # another side begins each round
            for place in order[begin:] + order[:begin]:
                taken[place].append(_step(self.processes[place]))
        memory = [process.ask("memory") for process in self.processes]
        flops, counted_by = self._flops()
        self.say(f"{self.part}: how fast matrices are multiplied here")
        peak = max(process.ask("rate")["flops_per_s"] for process in self.processes)
        seconds, cpu = ([[step[key] for step in steps] for steps in taken] for key in ("seconds", "cpu_seconds"))
        rows = [
            {
                "framework": process.side.framework,
                "mode": process.side.mode,
                "first_step_s": first["seconds"],
                "step_s": quartiles(seconds[place]),
                "ratio": quartiles(np.divide(seconds[place], seconds[0])),
                "cpu_step_s": quartiles(cpu[place]),
                "cpu_ratio": _ratio(cpu[place], cpu[0]),
                "mfu": flops / float(np.median(seconds[place])) / peak if flops else None,
                **memory[place],
                "error": different.as_dict() if different else None,
                "steps_s": seconds[place],
            }
            for place, (process, first, different) in enumerate(zip(self.processes, firsts, differences, strict=True))
        ]
        return {
            "num_parameters": loaded[0],
            "arrays": {name: list(array.shape) for name, array in arrays.items()},
            "flops_per_step": flops,
            "flops_counted_by": counted_by,
            "peak_flops_per_s": peak,
            "results": rows,
        }

    def _load(self, process: BackendProcess) -> int:
        self.say(f"{self.part}: weights for {process.side.label}")
        return load(process, self.part, self.shape, self.batch, self.seed)

    def _compare(self) -> tuple[list[dict[str, Any]], list[compare.OutputDifference | None]]:
        """Take the first step on every side, which changes nothing, and compare what came of it.

        Raises:
            SampanError: An answer is wrong; steps that were to follow are not taken.
        """
        firsts, answers, differences = [], [], []
        for process in self.processes:
            self.say(f"{self.part}: first step of {process.side.label}")
            file = self.folder / f"{process.side.label}.npz"
            firsts.append(_step(process, lr=0.0, gradients=str(file)))
            answers.append(compare.StepOutput(process.side, firsts[-1]["loss"], file))
            first = len(answers) == 1
            differences.append(None if first else compare.check(answers[0], answers[-1], process.facts["dtype"]))
        return firsts, differences

    def _flops(self) -> tuple[int | None, str | None]:
        """Return the arithmetic of a step, and which framework's meter counted it; None where none of them is here."""
        by_name = {process.side.framework: process for process in self.processes}
        for name in METERS:
            if name in by_name:
                return int(by_name[name].ask("flops")["step_flops"]), name
        for name in METERS:
            if name in installed():  # not among the sides, but it can count
                with running([Backend(name, "eager")], self.folder, ComputeTarget("cpu", "fp32")) as [process]:
                    load(process, self.part, self.shape, self.batch, self.seed)
                    return int(process.ask("flops")["step_flops"]), name
        return None, None


def load(process: BackendProcess, part: str, shape: BenchShape, batch: Path, seed: int) -> int:
    """Give a side a part and a batch; return how many parameters the part has."""
    model = {"preset": shape.preset, "override": shape.as_dict()["override"]}
    compiled = process.side.mode == "compiled"
    return process.ask("load", part=part, batch=str(batch), seed=seed, compiled=compiled, model=model)["num_parameters"]


def quartiles(numbers: Any) -> dict[str, float]:
    """Return the median and both quartiles."""
    low, middle, high = (float(n) for n in np.percentile(numbers, [25, 50, 75]))
    return {"median": middle, "low": low, "high": high}


def _ratio(mine: Sequence[float], first: Sequence[float]) -> dict[str, float] | None:
    """Return the quartiles of the ratios; None where a clock of cores is too coarse for steps so short."""
    return quartiles(np.divide(mine, first)) if all(first) else None


def _step(process: BackendProcess, **arguments: Any) -> dict[str, Any]:
    """Take a step.

    Raises:
        SampanError: Its loss or gradient is not a number, so that nothing was updated.
    """
    answer = process.ask("step", **arguments)
    if answer["skipped"]:
        raise SampanError(
            f"{process.side.label} makes a step that is not finite, and is not timed", f"its loss is {answer['loss']}"
        )
    return answer
