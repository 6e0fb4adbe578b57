"""Published runs as throughput per chip: what was measured on a chip, pair by pair or on the same work.

Predictions are elsewhere. Runs of doubtful quality are left out, and those whose work cannot be counted.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from sampan.catalog import frameworks, load
from sampan.catalog.records import Chip
from sampan.errors import NotPredictable
from sampan.plan import published_run as cases
from sampan.plan.efficiency import is_assumed

_SAME_WORK = 0.01  # share by which FLOPs and parameters of the same work may differ
_ALIKE = 1.5  # ratio of peaks up to which chips of one silicon count as one: bins of a chip, not cut-down ones
_ALIKE_MEMORY = 1.35  # and of their memories' bandwidths


@dataclass(frozen=True, kw_only=True)
class MeasuredThroughput:
    """A published run.

    Args:
        kind: Of its model: "llm-dense", "dit", …
        sample_s: Seconds of one chip for one sample.
        flops_per_s: Useful FLOP/s of one chip: what is computed again does not count.
        is_sure: Whether the run says its resolution, frames or length, so that its FLOPs are known.
    """

    id: str
    chip: Chip
    kind: str
    model: str
    method: str
    framework: str
    precision: str
    num_chips: int
    sample_s: float
    flops: float
    params: float
    flops_per_s: float
    metric: str
    pair: str
    source: str
    url: str
    is_sure: bool

    @property
    def work(self) -> tuple[str, str, int, int]:
        """What runs of the same work share, whatever they call it."""
        step = math.log1p(_SAME_WORK)
        return self.kind, self.method, round(math.log(self.flops) / step), round(math.log(self.params) / step)


@cache
def measured() -> tuple[MeasuredThroughput, ...]:
    """Return every run of the catalogue that can be counted."""
    return tuple(_each(row for row in load.runs() if row["quality"] == "ok"))


def _each(rows: Iterable[cases.Row]) -> Iterable[MeasuredThroughput]:
    for row in rows:
        try:
            case = cases.read(row)
            step_s = case.step_s(float(row["value"]))
        except NotPredictable:
            continue
        sample_s = step_s * case.layout.num_chips / case.samples
        yield MeasuredThroughput(
            id=row["id"], chip=case.chip, kind=case.workload.family, model=row["model"], method=case.method,
            framework=row["framework"], precision=row["precision"], num_chips=case.layout.num_chips, sample_s=sample_s,
            flops=case.workload.flops, params=case.workload.params, flops_per_s=case.workload.flops / sample_s,
            metric=row["metric"], pair=row["pair_id"], source=row["source_title"], url=row["source_url"],
            is_sure=not is_assumed(case.workload),
        )  # fmt: skip


def alike(first: Chip, second: Chip) -> bool:
    """Return whether runs on one chip say something of the other: one chip, or bins of one silicon."""
    if first.name == second.name:
        return True
    if first.silicon != second.silicon:
        return False
    both = first, second
    return _near([chip.peak("bf16") or chip.peak("fp16") for chip in both], _ALIKE) and _near(
        [chip.memory.bytes_per_s for chip in both], _ALIKE_MEMORY
    )


def _near(values: Sequence[float | None], most: float) -> bool:
    known = [value for value in values if value]
    return len(known) == len(values) and max(known) / min(known) <= most


def runs_on(chip: Chip, framework: str | None = None) -> list[MeasuredThroughput]:
    """Return the runs on a chip and its like, under a family of frameworks if one is named."""
    return [run for run in measured() if alike(run.chip, chip) and under(run, framework)]


def under(run: MeasuredThroughput, framework: str | None) -> bool:
    """Return whether a run's software is of the family, or, for an engine's own name, of the engine of `framework`."""
    if framework is None:
        return True
    asked, ran = frameworks.family(framework), frameworks.family(run.framework)
    return ran.engine == asked.engine if asked.name == asked.engine else ran.name == asked.name


@dataclass(frozen=True, kw_only=True)
class MeasuredRatio:
    """How long the first chip took for what the second did in 1, and the runs that say so.

    Args:
        is_pair: Published side by side; else the same work in different places.
    """

    value: float
    kind: str
    model: str
    first: tuple[MeasuredThroughput, ...]
    second: tuple[MeasuredThroughput, ...]
    is_pair: bool


def pairs(first: Sequence[MeasuredThroughput], second: Sequence[MeasuredThroughput]) -> list[MeasuredRatio]:
    """Return ratios of runs that their source sets side by side."""
    others: dict[tuple[str, str], list[MeasuredThroughput]] = defaultdict(list)
    for run in second:
        if run.pair:
            others[run.pair, run.metric].append(run)
    return [
        MeasuredRatio(
            value=one.sample_s / other.sample_s,
            kind=one.kind,
            model=one.model,
            first=(one,),
            second=(other,),
            is_pair=True,
        )
        for one in first
        for other in others.get((one.pair, one.metric), ())
        if one.pair and one.id != other.id
    ]


def match_work(first: Sequence[MeasuredThroughput], second: Sequence[MeasuredThroughput]) -> list[MeasuredRatio]:
    """Return ratios of the median runs of the same work that no source sets side by side."""
    sides = [_by_work(run for run in side if run.is_sure and not run.pair) for side in (first, second)]
    found = []
    for work in sorted(sides[0].keys() & sides[1].keys()):
        ones, others = sides[0][work], sides[1][work]
        found.append(
            MeasuredRatio(
                value=_median(ones) / _median(others), kind=work[0], model=ones[0].model, first=tuple(ones),
                second=tuple(others), is_pair=False,
            )
        )  # fmt: skip
    return found


def _by_work(runs: Iterable[MeasuredThroughput]) -> dict[tuple[str, str, int, int], list[MeasuredThroughput]]:
    found: dict[tuple[str, str, int, int], list[MeasuredThroughput]] = defaultdict(list)
    for run in runs:
        found[run.work].append(run)
    return found


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return a quantile of ordered values, between two of them where it falls there."""
    at = share * (len(ordered) - 1)
    below = math.floor(at)
    return ordered[below] + (at - below) * (ordered[min(below + 1, len(ordered) - 1)] - ordered[below])


def _median(runs: Sequence[MeasuredThroughput]) -> float:
    ordered = sorted(run.sample_s for run in runs)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else math.sqrt(ordered[middle - 1] * ordered[middle])


_FEWEST = 3  # runs of a kind of model without which a chip has no usual throughput
_REACHED = 0.95  # of another chip's throughput that counts as the same


@dataclass(frozen=True, kw_only=True)
class EarlierChip:
    """A chip that came out before another and reached its throughput.

    Args:
        flops_per_s: Useful FLOP/s of its good runs: three quarters of its runs are slower.
        years: From its launch to the other's.
    """

    kind: str
    chip: Chip
    flops_per_s: float
    num_runs: int
    years: float


def usual(chip: Chip, kind: str) -> tuple[float, int] | None:
    """Return the useful FLOP/s of a chip's good 16-bit runs of a kind, and how many runs there are; None for too few."""
    rates = sorted(
        run.flops_per_s
        for run in measured()
        if run.chip.name == chip.name
        and run.kind == kind
        and run.method == "full"
        and run.is_sure
        and is_16_bit(run.precision)
    )
    return (rates[math.ceil(0.75 * (len(rates) - 1))], len(rates)) if len(rates) >= _FEWEST else None


def is_16_bit(precision: str) -> bool:
    """Return whether a run computed in 16 bits, as runs that say nothing of it did."""
    return precision in ("", "bf16", "fp16")


def earlier(chip: Chip, kind: str) -> EarlierChip | None:
    """Return the earliest chip that reached a chip's usual throughput of a kind and came out before it, if there is one."""
    own = next((found for like in _likes(chip) if (found := usual(like, kind))), None)
    launched = launch_year(chip)
    if own is None or launched is None:
        return None
    found = []
    for other in load.chips().values():
        year, rate = launch_year(other), usual(other, kind)
        if year is None or rate is None or year >= launched or alike(other, chip):
            continue
        if rate[0] >= _REACHED * own[0]:
            found.append(
                EarlierChip(
                    kind=kind, chip=other, flops_per_s=rate[0], num_runs=rate[1], years=round(launched - year, 1)
                )
            )
    return max(found, key=lambda one: one.years, default=None)


def _likes(chip: Chip) -> list[Chip]:
    """Return the chip, then those whose runs stand for it."""
    others = [other for other in load.chips().values() if other.name != chip.name and alike(other, chip)]
    return [chip, *others]


def launch_year(chip: Chip) -> float | None:
    """Return when a chip came out, in years: 2022-09 is 2022.67; None where nobody knows."""
    found = re.match(r"(\d{4})(?:-(?:(\d\d)|Q([1-4])|H([12])))?", chip.launched or "")
    if not found:
        return None
    year, month, quarter, half = found.groups()
    if month:
        return int(year) + (int(month) - 1) / 12
    if quarter:
        return int(year) + (int(quarter) - 1) / 4
    return int(year) + ((int(half) - 1) / 2 if half else 0.5)
