"""The ways to do a job: for a chip, a count and a framework the fastest layout of each stage, or why there is none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sampan.catalog import frameworks
from sampan.catalog.records import Chip
from sampan.plan import efficiency
from sampan.plan.assumptions import Assumptions, Interval
from sampan.plan.device_work import DeviceWork, quantities
from sampan.plan.efficiency import Efficiency
from sampan.plan.jobs import JobWork, StageWork
from sampan.plan.measured import MeasuredSteps
from sampan.plan.memory import MemoryModel
from sampan.plan.predict import StepPrediction, of_quantities
from sampan.plan.records import ParallelLayout
from sampan.plan.search import Infeasible, LayoutLimits, LayoutOption, LayoutSearch, NoLayout
from sampan.plan.time import ChipSpeeds, speeds, step_time

_PREPARED = (16, 8, 4, 2, 1)  # samples of a pass where nothing is trained


@dataclass(frozen=True, kw_only=True)
class StageCandidate:
    """A stage on chips.

    Args:
        num_steps: Updates, or passes where nothing is trained.
    """

    name: str
    num_steps: float
    option: LayoutOption

    @property
    def time_s(self) -> Interval:
        """Seconds of the stage."""
        step = self.option.prediction
        return Interval(low=step.low_s, typical=step.step_s, high=step.high_s).times(self.num_steps)


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
        return label(self.chip)

    @property
    def time_s(self) -> Interval:
        """Seconds of the job. Stages are off in the same direction: the ends of their intervals are added up."""
        times = [stage.time_s for stage in self.stages]
        return Interval(
            low=sum(one.low for one in times),
            typical=sum(one.typical for one in times),
            high=sum(one.high for one in times),
        )

    @property
    def chip_hours(self) -> Interval:
        """Hours of chips that are paid for."""
        return self.time_s.times(self.count / 3600)


class Planner:
    """Plans one job on chips; what chips share is counted once.

    Args:
        fitted: Efficiencies; None for those of the package.
        benches: The user's own measurements.
    """

    def __init__(
        self,
        work: JobWork,
        assumptions: Assumptions,
        fitted: Efficiency | None = None,
        benches: MeasuredSteps | None = None,
    ):
        self.work = work
        self.assumptions = assumptions
        self.fitted = fitted or efficiency.load()
        self.benches = benches
        self._searches: dict[tuple[str, str], tuple[LayoutSearch, MemoryModel]] = {}
        self._quantities: dict[tuple[int, ParallelLayout, bool], DeviceWork] = {}

    def ways(
        self, chips: Sequence[Chip], counts: Sequence[int], names: Sequence[str]
    ) -> Iterator[Candidate | Infeasible]:
        """Yield a way, or why there is none, for every chip, framework and count."""
        for chip in chips:
            for name in names:
                for count in counts:
                    yield self.way(chip, count, name)

    def way(self, chip: Chip, count: int, framework: str) -> Candidate | Infeasible:
        """Return a job on so many chips, or why it cannot be done."""
        family = frameworks.family(framework)
        if not family.runs_on(chip.vendor):
            return _cannot(chip, count, framework, f"it is written for chips of {' and '.join(family.makers)}")
        speed = speeds(chip, self.work.precision)
        room = chip.memory.bytes
        if isinstance(speed, str):
            return _cannot(chip, count, framework, f"its time cannot be computed: nobody has published {speed}")
        if room is None:
            return _cannot(
                chip, count, framework, "whether it fits cannot be computed: nobody has published its memory"
            )
        room *= self.assumptions.memory_share
        done = []
        for stage in self.work.stages:
            found = self._stage(stage, chip, speed, room, count, framework)
            if isinstance(found, str):
                return _cannot(chip, count, framework, f"{stage.name}: {found}")
            done.append(found)
        return Candidate(chip=chip, count=count, framework=framework, stages=tuple(done))

    def _stage(
        self, stage: StageWork, chip: Chip, speed: ChipSpeeds, room: float, count: int, framework: str
    ) -> StageCandidate | str:
        search, needs = self._search(stage, framework)
        if stage.global_batch is None:
            fits = (ParallelLayout(dp=count, micro_batch=samples) for samples in _PREPARED)
            layout = next((one for one in fits if needs.total(one) <= room), None)
            if layout is None:
                return "one picture at a time does not fit"
            num_steps = math.ceil(stage.num_samples / layout.global_batch)
        else:
            found = search.best(count, speed.domain, room, self._timer(stage, chip, speed, framework))
            if isinstance(found, NoLayout):
                return found.reason
            layout, num_steps = found.layout, stage.num_steps
        return StageCandidate(
            name=stage.name,
            num_steps=num_steps,
            option=LayoutOption(
                chip=label(chip), count=count, framework=framework, layout=layout,
                prediction=self._predict(stage, layout, chip, speed, framework), memory=needs(layout),
                samples_per_step=layout.global_batch,
            ),
        )  # fmt: skip

    def _search(self, stage: StageWork, framework: str) -> tuple[LayoutSearch, MemoryModel]:
        key = stage.name, framework
        if key not in self._searches:
            family = frameworks.family(framework)
            needs = MemoryModel(stage.workload, self.work.convention(family.convention))
            has = {axis: axis in family.axes for axis in ("tp", "pp", "cp", "ep")}
            most = LayoutLimits()
            limits = LayoutLimits(
                max_tp=most.max_tp if has["tp"] else 1,
                max_pp=most.max_pp if has["pp"] else 1,
                max_cp=most.max_cp if has["cp"] else 1,
                max_ep=most.max_ep if has["ep"] else 1,
                max_virtual=most.max_virtual if family.interleaves else 1,
                zero_stages=tuple(sorted(family.zero_stages)),
            )
            self._searches[key] = LayoutSearch(stage.workload, stage.global_batch or 1, needs.total, limits), needs
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
            time = step_time(self._of(stage, layout, framework), speed, rates)
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
        found = of_quantities(
            self._of(stage, layout, framework), stage.workload, chip, speed, framework=framework,
            precision=self.work.precision, method=stage.method, model=stage.workload.name, fitted=self.fitted,
        )  # fmt: skip
        return found if self.benches is None else self.benches.tightened(found, chip, framework)

    def _of(self, stage: StageWork, layout: ParallelLayout, framework: str) -> DeviceWork:
        hides = frameworks.family(framework).hides
        key = id(stage.workload), layout, hides
        if key not in self._quantities:
            self._quantities[key] = quantities(stage.workload, layout, hides=hides)
        return self._quantities[key]


def label(chip: Chip) -> str:
    """Return what a chip is called in a plan: its name, or the variant that was asked for."""
    return chip.variant or chip.name


def _cannot(chip: Chip, count: int, framework: str, reason: str) -> Infeasible:
    return Infeasible(chip=label(chip), count=count, framework=framework, reason=reason)
