"""A training step on several backends: compared first, then timed in turns, so that outside load hits all alike."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sampan.bench import compare, shapes
from sampan.bench.backends import Backend, installed
from sampan.bench.process import BackendProcess, ComputeTarget, running
from sampan.bench.shapes import BenchShape
from sampan.report import results

# after the first, before any that counts. MindSpore's runtime tries out how to run a compiled step: on a CPU its calls 6 to
# 15 take four times as long as those before and after
WARM_UP_STEPS = {"eager": 2, "compiled": 15}
METERS = ("torch", "mindspore")  # frameworks whose meter counts a step, in the order they are asked
Say = Callable[[str], None]


def time_steps(
    backends: Sequence[Backend],
    parts: Sequence[str],
    shape: BenchShape,
    *,
    rounds: int,
    target: ComputeTarget,
    seed: int = 0,
    say: Say,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Measure every part on every backend; return the record. Ratios are to the first backend.

    Args:
        say: Is told in words what is being done.
        notes: Go into the record.

    Raises:
        SampanError: A backend cannot run the step, or gives another answer than the first.
    """
    before = results.load_average()
    measured: dict[str, Any] = {}
    facts: list[Any] = []
    for part in parts:
        with tempfile.TemporaryDirectory() as folder, running(backends, Path(folder), target) as processes:
            facts = [process.describe() for process in processes]
            measured[part] = _Timing(processes, part, shape, Path(folder), seed, say).run(rounds)
    modes = dict.fromkeys(backend.mode for backend in backends)
    return {
        "what": "one training step, the same weights and batch on every side",
        **results.conditions(before),
        "shape": shape.as_dict(),
        "seed": seed,
        "rounds": rounds,
        "warm_up_steps": {mode: 1 + WARM_UP_STEPS[mode] for mode in modes},
        "ratios_to": backends[0].label,
        "sides": facts,
        "parts": measured,
        "notes": list(notes),
    }


class _Timing:
    """One part on all backends, which are running."""

    def __init__(
        self, processes: Sequence[BackendProcess], part: str, shape: BenchShape, folder: Path, seed: int, say: Say
    ):
        self.processes, self.part, self.shape, self.folder, self.seed = processes, part, shape, folder, seed
        self.batch = folder / "batch.npz"
        self.say: Say = lambda words: say(f"{part}: {words}")

    def run(self, rounds: int) -> dict[str, Any]:
        arrays = shapes.batch(self.part, self.shape, self.seed)
        shapes.save(self.batch, arrays)
        num_parameters = []
        for process in self.processes:
            self.say(f"weights for {process.backend.label}")
            num_parameters.append(process.load(self.part, self.batch, self.seed, self.shape.model))
        first_s, differences = self._compare()
        for process in self.processes:
            self.say(f"warm-up of {process.backend.label}")
            for _ in range(WARM_UP_STEPS[process.backend.mode]):
                process.step()
        steps: list[list[dict[str, Any]]] = [[] for _ in self.processes]
        order = list(range(len(self.processes)))
        for number in range(rounds):
            self.say(f"round {number + 1} of {rounds}")
            begin = number % len(order)  # another backend begins each round
            for place in order[begin:] + order[:begin]:
                steps[place].append(self.processes[place].step())
        memory = [process.ask("memory") for process in self.processes]
        flops, counted_by = self._flops()
        self.say("how fast matrices are multiplied here")
        peak = max(process.ask("rate")["flops_per_s"] for process in self.processes)
        seconds, cpu = ([[step[key] for step in taken] for taken in steps] for key in ("seconds", "cpu_seconds"))
        rows = [
            {
                "framework": process.backend.framework,
                "mode": process.backend.mode,
                "first_step_s": first_s[place],
                "step_s": quartiles(seconds[place]),
                "ratio": quartiles(np.divide(seconds[place], seconds[0])),
                "cpu_step_s": quartiles(cpu[place]),
                # a clock of cores can be too coarse for steps so short
                "cpu_ratio": quartiles(np.divide(cpu[place], cpu[0])) if all(cpu[0]) else None,
                "mfu": flops / float(np.median(seconds[place])) / peak if flops else None,
                **memory[place],
                "error": different.as_dict() if different else None,
                "steps_s": seconds[place],
            }
            for place, (process, different) in enumerate(zip(self.processes, differences, strict=True))
        ]
        return {
            "num_parameters": num_parameters[0],
            "arrays": {name: list(array.shape) for name, array in arrays.items()},
            "flops_per_step": flops,
            "flops_counted_by": counted_by,
            "peak_flops_per_s": peak,
            "results": rows,
        }

    def _compare(self) -> tuple[list[float], list[compare.OutputDifference | None]]:
        """Take the first step on every backend, which changes nothing; return its seconds and its difference from the first.

        Raises:
            SampanError: An answer is wrong; steps that were to follow are not taken.
        """
        first_s: list[float] = []
        outputs: list[compare.StepOutput] = []
        differences: list[compare.OutputDifference | None] = []
        for process in self.processes:
            self.say(f"first step of {process.backend.label}")
            file = self.folder / f"{process.backend.label}.npz"
            step = process.step(lr=0.0, gradients=str(file))
            first_s.append(step["seconds"])
            output = compare.StepOutput(process.backend, step["loss"], file)
            differences.append(compare.require_alike(outputs[0], output, process.facts["dtype"]) if outputs else None)
            outputs.append(output)
        return first_s, differences

    def _flops(self) -> tuple[int | None, str | None]:
        """Return the arithmetic of a step, and which framework's meter counted it; None where none of them is here."""
        by_name = {process.backend.framework: process for process in self.processes}
        for name in METERS:
            if name in by_name:
                return int(by_name[name].ask("flops")["step_flops"]), name
        for name in METERS:
            if name in installed():  # not among the backends, but it can count
                with running([Backend(name, "eager")], self.folder, ComputeTarget("cpu", "fp32")) as [process]:
                    process.load(self.part, self.batch, self.seed, self.shape.model)
                    return int(process.ask("flops")["step_flops"]), name
        return None, None


def quartiles(numbers: Any) -> dict[str, float]:
    """Return the median and both quartiles."""
    low, middle, high = (float(n) for n in np.percentile(numbers, [25, 50, 75]))
    return {"median": middle, "low": low, "high": high}
