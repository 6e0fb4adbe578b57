"""The user's own measurements (`sampan bench`, and runs of `sampan train`), and how they move and narrow what is predicted.

A measured step is predicted too, and the ratio of the two says by how much this chip with this software differs from what
runs of others make one expect. How much of that carries over to another step is what remains uncertain between runs once
their chip and software have been measured (the narrowest interval of their kind of model, or half of the variance where
that is all there is); so one measurement moves a prediction part of the way, and several move it further.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sampan import documents
from sampan.catalog import frameworks
from sampan.catalog.records import Chip
from sampan.errors import BadDocumentError, PlanError, SampanError, UnusableMeasurement
from sampan.models import presets
from sampan.plan import efficiency
from sampan.plan.efficiency import Efficiency
from sampan.plan.measured_run import run_steps
from sampan.plan.measured_step import MeasuredStep, chip_of
from sampan.plan.predict import StepPrediction, predict
from sampan.plan.records import ParallelLayout, Workload
from sampan.plan.workloads.own.stages import stage_workload

_GROUP = "pictures"  # of sampan.plan.efficiency.GROUPS: what jobs train
_SOURCE = "sampan bench --kit --json FILE"


@dataclass(frozen=True, kw_only=True)
class MeasuredSteps:
    """Measurements by chip and software.

    Args:
        left_out: What was given and says nothing, with its reason, in sentences.
    """

    steps: tuple[MeasuredStep, ...]
    left_out: tuple[str, ...] = ()
    fitted: Efficiency | None = None

    def lines(self) -> Iterator[str]:
        """Yield what was measured and what was left out, in sentences."""
        for (chip, family), ratios in self._by_part().items():
            middle = math.exp(_mean(ratios.values()))
            yield (
                f"Measured by you: {chip} with {family} takes {middle:.2f} times what is predicted ({', '.join(ratios)}); "
                "predictions there move toward it, and their intervals narrow."
            )
        yield from dict.fromkeys(step.says for step in self.steps if step.says)
        yield from self.left_out

    def _by_part(self) -> dict[tuple[str, str], dict[str, float]]:
        """Return the mean logarithm of ratios by chip and software, then by what was measured."""
        logs: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for step in self.steps:
            key = step.chip.name, frameworks.family(step.framework).name
            logs[key][f"{step.part} in {step.precision}"].append(math.log(step.ratio))
        return {key: {part: _mean(values) for part, values in parts.items()} for key, parts in logs.items()}

    def calibrate(self, prediction: StepPrediction, chip: Chip, framework: str) -> StepPrediction:
        """Return a prediction moved toward what was measured on its chip with its software, and surer of it."""
        ratios = self._by_part().get((chip.name, frameworks.family(framework).name))
        if not ratios:
            return prediction
        known = self.fitted or efficiency.load()
        half = math.log(prediction.high_s / prediction.step_s)
        shift, narrower = combine(half, least_half(known), list(ratios.values()))
        step_s = prediction.step_s * math.exp(shift)
        low, high = efficiency.interval(step_s, narrower)
        number = "1 measurement" if len(ratios) == 1 else f"{len(ratios)} measurements"
        return replace(
            prediction, step_s=step_s, low_s=low, high_s=high,
            parts={name: seconds * math.exp(shift) for name, seconds in prediction.parts.items()},
            num_measurements=prediction.num_measurements + len(ratios),
            basis=f"{prediction.basis}, and {number} of your own",
        )  # fmt: skip


def combine(half: float, least: float, logs: Sequence[float]) -> tuple[float, float]:
    """Return by how much a logarithm moves, and half of its interval afterwards.

    What a prediction is off by is the sum of two normal errors: one that all steps on a chip with a software share, and one
    of each step's own. Measured steps have both; the first is estimated from them.

    Args:
        half: Of the interval before.
        least: Of the interval of steps whose chip and software are known.
        logs: Logarithms of measured over predicted, each of a step of its own.
    """
    of_step = min(least * least, half * half / 2)  # variances, in units of the interval
    shared = half * half - of_step
    of_mean = of_step / len(logs)
    weight = shared / (shared + of_mean)
    return weight * _mean(logs), math.sqrt(of_step + shared * (1 - weight))


def least_half(fitted: Efficiency) -> float:
    """Return half of the narrowest interval among runs of models that make or see pictures."""
    return min(
        fitted.spreads[name].half
        for software in efficiency.SOFTWARE
        for chip in efficiency.CHIP
        if (name := efficiency.spread_name(_GROUP, software, chip)) in fitted.spreads
    )


def _mean(values: Collection[float]) -> float:
    return sum(values) / len(values)


def read(paths: Iterable[Path], *, fitted: Efficiency | None = None, compiled: bool = False) -> MeasuredSteps:
    """Return the measurements in files that `sampan bench` wrote, and in run folders of `sampan train`.

    A pattern stands for the files that it matches.

    Args:
        compiled: Which mode the job trains in: only sides of this mode count.

    Raises:
        PlanError: A file is not there or not JSON, or no file measures a chip of the catalogue.
    """
    steps: list[MeasuredStep] = []
    left_out: list[str] = []
    others: list[str] = []
    for path in _files(paths):
        if path.is_dir():
            try:
                steps += run_steps(path, fitted=fitted, compiled=compiled)
            except UnusableMeasurement as reason:
                left_out.append(f"`{path}` is left out: {reason}.")
            continue
        document = _document(path)
        if not ("rows" in document or "shape" in document) or "machine" not in document:
            others.append(f"`{path}`")
            continue
        reasons: dict[str, None] = {}
        try:
            steps += _benches(document, fitted, compiled, reasons)
            left_out += [f"Of `{path}` is left out: {reason}." for reason in reasons]
        except UnusableMeasurement as reason:
            left_out.append(f"`{path}` is left out: {reason}.")
    if others:
        says = "are not results" if len(others) > 1 else "is not a result"
        left_out.append(f"{', '.join(others)} {says} of a race or of the kit of `sampan bench`.")
    if not steps:
        raise PlanError(
            "--measured: nothing that was given measures a chip of the catalogue",
            tuple(line.removesuffix(".") for line in left_out),
            f"on the chip: {_SOURCE}",
        )
    return MeasuredSteps(steps=tuple(steps), left_out=tuple(left_out), fitted=fitted)


def _matches(path: Path) -> list[Path]:
    """Return the files that a name with * or ? means, for terminals that leave that to the program."""
    if not any(letter in str(path) for letter in "*?["):
        return [path]
    root = Path(path.anchor) if path.is_absolute() else Path()
    return sorted(root.glob(str(path.relative_to(root) if path.is_absolute() else path)))


def _files(paths: Iterable[Path]) -> list[Path]:
    files: dict[Path, None] = {}
    for path in paths:
        matches = _matches(path)
        if not matches and not path.exists():
            raise PlanError(f"--measured: no file is named like `{path}`", (), f"make one on the chip: {_SOURCE}")
        files.update(dict.fromkeys(matches or [path]))
    return list(files)


def _document(path: Path) -> Mapping[str, Any]:
    try:
        document = documents.parse_json(documents.read_text(path))
    except OSError as error:
        raise PlanError(f"--measured: `{path}` cannot be read", error.strerror or str(error)) from error
    except BadDocumentError as error:
        raise PlanError(f"--measured: `{path}` is not JSON", str(error)) from error
    return document if isinstance(document, dict) else {}


def _benches(
    document: Mapping[str, Any], fitted: Efficiency | None, compiled: bool, reasons: dict[str, None]
) -> list[MeasuredStep]:
    """Return the measurements of one document; why parts of it say nothing goes to `reasons`."""
    steps: list[MeasuredStep] = []
    try:
        for side in list(_sides(document)):
            if side.device == "cpu":
                cpu = document["machine"]["cpu"] or "name not known"
                reasons[f"it was measured on a CPU ({cpu}), and the catalogue has accelerators alone"] = None
                continue
            if side.mode != ("compiled" if compiled else "eager"):
                reasons[f"its {side.mode} sides are not how the job trains"] = None
                continue
            try:
                steps.append(_bench(document, side, fitted))
            except UnusableMeasurement as reason:
                reasons[str(reason)] = None
    except SampanError as error:  # of a model that there is none of
        raise UnusableMeasurement("; ".join([error.what, *error.because])) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UnusableMeasurement("it is not a result of `sampan bench`") from error
    if not steps:
        raise UnusableMeasurement("; ".join(reasons) or "it is not a result of `sampan bench`")
    return steps


@dataclass(frozen=True, kw_only=True)
class _Side:
    """One framework's time for one part in a document."""

    device: str
    device_name: str | None
    framework: str
    mode: str
    dtype: str
    part: str
    seconds: float
    is_block: bool


def _sides(document: Mapping[str, Any]) -> Iterator[_Side]:
    if "rows" in document:
        for row in document["rows"]:
            if "step" in row and row["step"] is not None:
                yield _Side(
                    device=row["device"], device_name=row["device_name"], framework=row["framework"], mode=row["mode"],
                    dtype=row["dtype"], part=row["part"], seconds=float(row["step"]["seconds"]["median"]), is_block=True,
                )  # fmt: skip
        return
    if "shape" not in document:
        raise KeyError("shape")
    sides = {(side["framework"], side["mode"]): side for side in document["sides"]}
    for part, measured in document["parts"].items():
        for result in measured["results"]:
            side = sides[result["framework"], result["mode"]]
            yield _Side(
                device=side["device"], device_name=side["device_name"], framework=side["framework"], mode=side["mode"],
                dtype=side["dtype"], part=part, seconds=float(result["step_s"]["median"]), is_block=False,
            )  # fmt: skip


def _bench(document: Mapping[str, Any], side: _Side, fitted: Efficiency | None) -> MeasuredStep:
    chip = chip_of(side.device_name or "")
    if not side.seconds > 0:
        raise UnusableMeasurement(f"its time of {side.part} is {side.seconds:g} s")
    workload, layout = _block(document, side.part) if side.is_block else _whole(document, side.part)
    try:
        predicted = predict(
            workload, layout, chip, framework=side.framework, precision=side.dtype, fitted=fitted
        )  # fmt: skip
    except SampanError as error:
        raise UnusableMeasurement("; ".join([error.what, *error.because])) from error
    return MeasuredStep(
        chip=chip, framework=side.framework, precision=side.dtype,
        part=f"block of {side.part}" if side.is_block else f"{side.part} of {document['shape']['preset']}",
        measured_s=side.seconds, predicted_s=predicted.step_s,
    )  # fmt: skip


def _whole(document: Mapping[str, Any], part: str) -> tuple[Workload, ParallelLayout]:
    shape = document["shape"]
    config = presets.get(shape["preset"], shape["override"])
    batch = shape["micro_batch_size"][part]
    workload = stage_workload(part, config, resolution_px=shape["px"], ema=False, batch=batch, name=shape["preset"])
    return workload, ParallelLayout(micro_batch=batch)


def _block(document: Mapping[str, Any], part: str) -> tuple[Workload, ParallelLayout]:
    """Return one block of the released size, as `sampan bench --kit` times it."""
    if document["px"] is None:
        raise UnusableMeasurement("its number of tokens was set by hand")
    config = presets.get("glm-image")
    workload = stage_workload(part, config, resolution_px=document["px"], ema=False, name="glm-image")
    trunk = next(block for block in workload.blocks if block.is_trunk)
    return replace(workload, name=f"block of {workload.name}", blocks=(replace(trunk, repeat=1),)), ParallelLayout()
