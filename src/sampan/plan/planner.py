"""Candidates for a job: for a chip, a count and a framework the fastest layout of each stage, or why there is none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

from sampan.catalog import frameworks
from sampan.catalog.records import Chip
from sampan.plan import efficiency
from sampan.plan.cost import Assumptions
from sampan.plan.device_work import DeviceWork, device_work
from sampan.plan.efficiency import Efficiency
from sampan.plan.jobs import JobWork, StageWork
from sampan.plan.measured import MeasuredSteps
from sampan.plan.memory import ChipMemory, MemoryModel
from sampan.plan.predict import StepPrediction, predict_work
from sampan.plan.records import Interval, ParallelLayout
from sampan.plan.runnable import TrainableLayouts, trainable
from sampan.plan.search import LayoutLimits, LayoutSearch
from sampan.plan.time import ChipSpeeds, speeds, step_time

_PREPARATION_BATCHES = (16, 8, 4, 2, 1)  # samples of a pass where nothing is trained


@dataclass(frozen=True, kw_only=True)
class StageCandidate:
    """A stage on chips.

    Args:
        num_steps: Updates, or passes where nothing is trained.
    """

    name: str
    num_steps: float
    layout: ParallelLayout
    prediction: StepPrediction
    memory: ChipMemory

    @property
    def time_s(self) -> Interval:
        """Seconds of the stage."""
        return self.prediction.span.times(self.num_steps)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A job on chips: all stages, one after another."""

    chip: Chip
    count: int
    framework: str
    stages: tuple[StageCandidate, ...]

    @property
    def label(self) -> str:
        """The chip as it was asked for."""
        return self.chip.label

    @property
    def time_s(self) -> Interval:
        """Seconds of the job. Stages are off in the same direction: the ends of their intervals are added up."""
        return reduce(add, (stage.time_s for stage in self.stages))

    @property
    def chip_hours(self) -> Interval:
        """Hours of chips that are paid for."""
        return self.time_s.times(self.count / 3600)


@dataclass(frozen=True, kw_only=True)
class Infeasible:
    """A chip, a count and a framework with which something cannot be done, or nobody can say how fast, and why.

    Args:
        smallest_count: Of making pictures: the least power of two of chips over which the weights could be spread; None
            where there is none, or where memory is not what fails.
    """

    chip: str
    count: int = 1
    framework: str
    reason: str
    smallest_count: int | None = None


def usable(chip: Chip, framework: str, precision: str, memory_share: float) -> tuple[ChipSpeeds, float] | str:
    """Return a chip's speeds and the bytes of its memory that a job may take, or why it cannot be planned with."""
    family = frameworks.family(framework)
    if not family.runs_on(chip.vendor):
        return f"it is written for chips of {' and '.join(family.makers)}"
    speed = speeds(chip, precision)
    if isinstance(speed, str):
        return f"its time cannot be computed: nobody has published {speed}"
    if chip.memory.bytes is None:
        return "whether it fits cannot be computed: nobody has published its memory"
    return speed, chip.memory.bytes * memory_share


class Planner:
    """Plans one job on chips; what chips share is counted once.

    Args:
        fitted: Efficiencies; None for those of the package.
        benches: The user's own measurements.
        only_trainable: Whether layouts that `sampan train` cannot run are left out.
    """

    def __init__(
        self,
        work: JobWork,
        assumptions: Assumptions,
        fitted: Efficiency | None = None,
        benches: MeasuredSteps | None = None,
        *,
        only_trainable: bool = False,
    ):
        self.work = work
        self.assumptions = assumptions
        self.fitted = fitted or efficiency.load()
        self.benches = benches
        self.only_trainable = only_trainable
        self._searches: dict[tuple[str, str], tuple[LayoutSearch, MemoryModel]] = {}
        self._work: dict[tuple[int, ParallelLayout, bool], DeviceWork] = {}

    def candidates(
        self, chips: Sequence[Chip], counts: Sequence[int], names: Sequence[str]
    ) -> Iterator[Candidate | Infeasible]:
        """Yield a candidate, or why there is none, for every chip, framework and count."""
        for chip in chips:
            for name in names:
                for count in counts:
                    yield self.candidate(chip, count, name)

    def candidate(self, chip: Chip, count: int, framework: str) -> Candidate | Infeasible:
        """Return the job on so many chips, or why it cannot be done."""
        limits = usable(chip, framework, self.work.precision, self.assumptions.memory_share)
        if isinstance(limits, str):
            return Infeasible(chip=chip.label, count=count, framework=framework, reason=limits)
        can = trainable(chip, framework) if self.only_trainable else None
        if isinstance(can, str):
            return Infeasible(chip=chip.label, count=count, framework=framework, reason=can)
        stages = []
        for stage in self.work.stages:
            placed = self._stage(stage, chip, *limits, count, framework, can)
            if isinstance(placed, str):
                reason = f"{stage.name}: {placed}"
                return Infeasible(chip=chip.label, count=count, framework=framework, reason=reason)
            stages.append(placed)
        return Candidate(chip=chip, count=count, framework=framework, stages=tuple(stages))

    def _stage(
        self,
        stage: StageWork,
        chip: Chip,
        speed: ChipSpeeds,
        room: float,
        count: int,
        framework: str,
        can: TrainableLayouts | None,
    ) -> StageCandidate | str:
        search, memory = self._search(stage, framework, can)
        if stage.global_batch is None:
            layouts = (ParallelLayout(dp=count, micro_batch=samples) for samples in _PREPARATION_BATCHES)
            layout = next((layout for layout in layouts if memory.total(layout) <= room), None)
            if layout is None:
                return "one picture at a time does not fit"
            num_steps = math.ceil(stage.num_samples / layout.global_batch)
        else:
            layout = search.best(count, speed.domain, room, self._timer(stage, chip, speed, framework))
            if isinstance(layout, str):
                return layout
            num_steps = stage.num_steps
        return StageCandidate(
            name=stage.name,
            num_steps=num_steps,
            layout=layout,
            prediction=self._predict(stage, layout, chip, speed, framework),
            memory=memory(layout),
        )

    def _search(
        self, stage: StageWork, framework: str, can: TrainableLayouts | None
    ) -> tuple[LayoutSearch, MemoryModel]:
        key = stage.name, framework
        if key not in self._searches:
            family = frameworks.family(framework)
            memory = MemoryModel(stage.workload, self.work.convention(family.convention))
            lacking = [f"max_{axis}" for axis in ("tp", "pp", "cp", "ep") if axis not in family.axes]
            if not family.interleaves:
                lacking.append("max_virtual")
            limits = replace(LayoutLimits(), zero_stages=tuple(sorted(family.zero_stages)), **dict.fromkeys(lacking, 1))
            if can is not None:
                limits = can.narrow(limits)
            self._searches[key] = LayoutSearch(stage.workload, stage.global_batch or 1, memory.total, limits), memory
        return self._searches[key]

    def _timer(
        self, stage: StageWork, chip: Chip, speed: ChipSpeeds, framework: str
    ) -> Callable[[ParallelLayout], float]:
        """Return what a layout takes in seconds, as `predict` has it, without its interval."""
        fitted, rates = self.fitted, self.fitted.rates
        levels = efficiency.levels(
            stage.workload, chip, speed, framework, self.work.precision, stage.method, stage.workload.name
        )

        # the effect is linear in the parts' shares: its coefficients are found once, not at every layout
        none: dict[str, float] = dict.fromkeys(efficiency.PARTS, 0.0)
        at_all = fitted.offset(levels, none)
        of = {part: fitted.offset(levels, none | {part: 1.0}) - at_all for part in efficiency.PARTS}
        of_rest = of.pop("other_s")
        by_part = tuple(of.items())

        def time_of(layout: ParallelLayout) -> float:
            time = step_time(self._device_work(stage, layout, framework), speed, rates)
            total = time.total_s
            rest, effect = total, at_all
            for part, of_part in by_part:
                seconds = getattr(time, part)
                rest -= seconds
                effect += of_part * seconds / total
            return total * math.exp(effect + of_rest * rest / total)

        return time_of

    def _predict(
        self, stage: StageWork, layout: ParallelLayout, chip: Chip, speed: ChipSpeeds, framework: str
    ) -> StepPrediction:
        prediction = predict_work(
            self._device_work(stage, layout, framework), stage.workload, chip, speed, framework=framework,
            precision=self.work.precision, method=stage.method, model=stage.workload.name, fitted=self.fitted,
        )  # fmt: skip
        return prediction if self.benches is None else self.benches.calibrate(prediction, chip, framework)

    def _device_work(self, stage: StageWork, layout: ParallelLayout, framework: str) -> DeviceWork:
        hides = frameworks.family(framework).hides
        key = id(stage.workload), layout, hides
        if key not in self._work:
            self._work[key] = device_work(stage.workload, layout, hides=hides)
        return self._work[key]
