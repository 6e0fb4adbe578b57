"""How long an update will take, with an interval that holds 80 % of such predictions, and what it rests on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sampan.catalog.frameworks import family
from sampan.catalog.records import Chip
from sampan.errors import PlanError
from sampan.plan import efficiency
from sampan.plan.device_work import DeviceWork, quantities
from sampan.plan.records import ParallelLayout, Workload
from sampan.plan.time import PART_NAMES, ChipSpeeds, speeds, step_time


@dataclass(frozen=True, kw_only=True)
class StepPrediction:
    """An update's time.

    Args:
        step_s, low_s, high_s: The middle and the ends of an 80 % interval.
        parts: Seconds by what takes them, as in sampan.plan.time.StepTime; they add up to `step_s`.
        num_measurements: Published runs that are like it.
        basis: In what they are like it.
    """

    step_s: float
    low_s: float
    high_s: float
    parts: Mapping[str, float]
    num_measurements: int
    basis: str


def predict(
    workload: Workload,
    layout: ParallelLayout,
    chip: Chip,
    *,
    framework: str = "torch",
    precision: str = "bf16",
    method: str = "full",
    fitted: efficiency.Efficiency | None = None,
) -> StepPrediction:
    """Return how long one update takes.

    Args:
        framework: The software's name: "torch", "mindspore", "Megatron-LM", …

    Raises:
        PlanError: A fact of the chip that is needed is not known.
    """
    speed = speeds(chip, precision)
    if isinstance(speed, str):
        raise PlanError(f"a step on `{chip.name}` cannot be predicted", f"of the chip {speed} is not known")
    return of_quantities(
        quantities(workload, layout, hides=family(framework).hides), workload, chip, speed, framework=framework,
        precision=precision, method=method, model=workload.name, fitted=fitted,
    )  # fmt: skip


def of_quantities(
    q: DeviceWork,
    workload: Workload,
    chip: Chip,
    speed: ChipSpeeds,
    *,
    framework: str,
    precision: str,
    method: str,
    model: str,
    fitted: efficiency.Efficiency | None = None,
) -> StepPrediction:
    """Return the same of quantities that have been counted, for a model under the name that runs give it."""
    known = fitted or efficiency.load()
    time = step_time(q, speed, known.rates)
    levels = efficiency.levels(workload, chip, speed, framework, precision, method, model)
    factor = math.exp(known.offset(levels, efficiency.shares(time)))
    step_s = time.total_s * factor
    low, high = efficiency.interval(step_s, known.half_width(levels))
    number, basis = known.count(levels)
    return StepPrediction(
        step_s=step_s, low_s=low, high_s=high, parts={name: getattr(time, name) * factor for name in PART_NAMES},
        num_measurements=number, basis=basis,
    )  # fmt: skip
