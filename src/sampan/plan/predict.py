"""How long an update takes, with an interval that holds 80 % of such predictions, and what it rests on.

The model's time (sampan.plan.time) is multiplied by fitted effects (sampan.plan.efficiency) of what a run is made of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sampan.catalog.frameworks import family
from sampan.catalog.records import Chip
from sampan.errors import PlanError
from sampan.plan import efficiency
from sampan.plan.device_work import DeviceWork, device_work
from sampan.plan.efficiency import Efficiency, Levels
from sampan.plan.records import Interval, ParallelLayout, Workload
from sampan.plan.time import PART_NAMES, ChipSpeeds, StepTime, speeds, step_time


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

    @property
    def span(self) -> Interval:
        """Seconds of the update, with their interval."""
        return Interval(low=self.low_s, typical=self.step_s, high=self.high_s)

    @property
    def rests_on(self) -> str:
        """How many published runs it rests on, and which, in words."""
        return f"{self.num_measurements} {self.basis}" if self.num_measurements else self.basis


def predict(
    workload: Workload,
    layout: ParallelLayout,
    chip: Chip,
    *,
    framework: str = "torch",
    precision: str = "bf16",
    method: str = "full",
    fitted: Efficiency | None = None,
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
    return predict_work(
        device_work(workload, layout, hides=family(framework).hides), workload, chip, speed, framework=framework,
        precision=precision, method=method, model=workload.name, fitted=fitted,
    )  # fmt: skip


def predict_work(
    work: DeviceWork,
    workload: Workload,
    chip: Chip,
    speed: ChipSpeeds,
    *,
    framework: str,
    precision: str,
    method: str,
    model: str,
    fitted: Efficiency | None = None,
) -> StepPrediction:
    """Return the same of work that has been counted, for a model under the name that runs give it."""
    known = fitted or efficiency.load()
    levels = efficiency.levels(workload, chip, speed, framework, precision, method, model)
    return predict_time(step_time(work, speed, known.rates), levels, known)


def predict_time(time: StepTime, levels: Levels, fitted: Efficiency, *, repeats: int = 1) -> StepPrediction:
    """Return the same of the model's time for `repeats` such steps, one after another, of a run that is made of `levels`."""
    factor = repeats * math.exp(fitted.offset(levels, efficiency.shares(time)))
    step_s = time.total_s * factor
    low, high = efficiency.interval(step_s, fitted.half_width(levels))
    number, basis = fitted.count(levels)
    return StepPrediction(
        step_s=step_s, low_s=low, high_s=high, parts={name: getattr(time, name) * factor for name in PART_NAMES},
        num_measurements=number, basis=basis,
    )  # fmt: skip
