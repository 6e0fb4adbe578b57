"""Two chips beside each other: what was measured on both, what is predicted, and which earlier chip was as fast.

Three kinds of evidence are kept apart: runs that their source sets side by side, runs of the same work from different
sources, and predictions. Money is rent, energy is what the chips' share of their servers draws; sites do not enter.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sampan.catalog import frameworks, load
from sampan.catalog.records import Chip
from sampan.errors import PlanError, did_you_mean
from sampan.models import presets
from sampan.plan import efficiency, measured_throughput
from sampan.plan.cost import Assumptions, hourly_rent, power
from sampan.plan.jobs import JobWork, StageWork
from sampan.plan.measured_throughput import EarlierChip, MeasuredRatio, quantile
from sampan.plan.planner import Candidate, Planner
from sampan.plan.records import Interval, Workload
from sampan.plan.workloads.named import workload_of
from sampan.plan.workloads.own.stages import stage_workload

MODELS = {
    "llm-dense": ("Llama-3.1-8B", "Llama-3.1-70B"),
    "llm-moe": ("Mixtral-8x7B", "Qwen3-30B-A3B"),
    "dit": ("SD3", "FLUX.1"),
    "unet": ("SDXL",),
    "vlm": ("Qwen2.5-VL-7B",),
}
"""What is predicted where nobody names a model, by kind; and GLM-Image's two large stages."""
_OWN = "glm-image"
_KIND = {"ar": "llm-dense"}  # under which kind runs like it are published
_ENOUGH = (
    10  # runs on a chip, or bins of it, from which on it is as well known as chips that were measured side by side
)
_BATCH = 256  # samples of an update
_COUNTS = tuple(1 << power for power in range(3, 11))  # chips, the fewest on which the model fits on both sides


@dataclass(frozen=True, kw_only=True)
class PredictedRatio:
    """A predicted ratio: how long, how much money, how much energy for what the second chip does in, for or with 1.

    Args:
        num_chips: On each side.
        slower: With an interval.
        dearer: None where a rent is not known.
        hungrier: None where a power is not known.
    """

    kind: str
    model: str
    num_chips: int
    slower: Interval
    dearer: Interval | None
    hungrier: Interval | None
    basis: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that is known of two chips side by side.

    Args:
        not_predicted: Models that could not be predicted, with the reason.
        assumed: How intervals of ratios are made, in sentences.
    """

    first: Chip
    second: Chip
    frameworks: tuple[str, str]
    pairs: tuple[MeasuredRatio, ...]
    matched: tuple[MeasuredRatio, ...]
    predicted: tuple[PredictedRatio, ...]
    not_predicted: tuple[tuple[str, str], ...]
    earlier: tuple[tuple[str, EarlierChip], ...]
    rent: Interval | None
    power: float | None
    assumed: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON can hold it."""
        return {
            "what": "sampan plan --compare",
            "first": self.first.label,
            "second": self.second.label,
            "frameworks": list(self.frameworks),
            "measured_pairs": [_ratio(one) for one in self.pairs],
            "measured_on_the_same_work": [_ratio(one) for one in self.matched],
            "predicted": [
                {
                    "kind": one.kind, "model": one.model, "num_chips": one.num_chips, "slower": one.slower.as_dict(),
                    "dearer": one.dearer and one.dearer.as_dict(),
                    "hungrier": one.hungrier and one.hungrier.as_dict(), "basis": list(one.basis),
                }
                for one in self.predicted
            ],
            "not_predicted": [{"model": model, "reason": reason} for model, reason in self.not_predicted],
            "earlier_as_fast": [
                {
                    "of": name, "kind": one.kind, "chip": one.chip.name, "launched": one.chip.launched,
                    "years_before": one.years, "useful_flops_per_s": one.flops_per_s, "num_runs": one.num_runs,
                }
                for name, one in self.earlier
            ],
            "rent_ratio": self.rent and self.rent.as_dict(),
            "power_ratio": self.power,
            "notes": list(self.assumed),
        }  # fmt: skip

    def lines(self) -> list[str]:
        """Return all of it as text."""
        a, b = self.first.label, self.second.label
        lines = [
            f"{a} beside {b}: how many times as long, as dear, as hungry the first is; below 1 it is better",
            f"{a}: {self.first.title}, {self.first.launched or 'launch not known'}",
            f"{b}: {self.second.title}, {self.second.launched or 'launch not known'}",
        ]
        lines += ["", "Measured, side by side in one source (time):", *_measured(self.pairs, a, b)]
        lines += ["", "Measured, the same work in different sources (time; weaker):", *_measured(self.matched, a, b)]
        lines += ["", f"Predicted, with 80 % intervals ({' and '.join(self.frameworks)}):"]
        for ratio in self.predicted:
            lines.append(
                f"  {ratio.kind:<9}  {ratio.model}, {ratio.num_chips} chips: {_plain(ratio.slower)} as long, "
                f"{_plain(ratio.dearer)} as dear, {_plain(ratio.hungrier)} as hungry"
            )
            lines.append(f"             {a}: {ratio.basis[0]}; {b}: {ratio.basis[1]}")
        lines += [f"  {model}: cannot be predicted: {reason}" for model, reason in self.not_predicted]
        lines += ["", "Earlier chips whose good runs were as fast:"]
        lines += [
            f"  {name}, {chip.kind}: {chip.chip.title} ({chip.chip.launched}), {chip.years:g} years before, "
            f"{chip.flops_per_s / 1e12:.0f} TFLOP/s in {chip.num_runs} runs"
            for name, chip in self.earlier
        ] or ["  none is known"]
        return [*lines, "", *self.assumed]


def compare(
    first: str, second: str, *, framework_a: str | None = None, framework_b: str | None = None, model: str | None = None
) -> Comparison:
    """Return what is known of two chips side by side.

    Args:
        framework_a, framework_b: Of either chip. None takes runs under any, and predicts "torch".
        model: Of the catalogue, or "glm-image"; None for several.

    Raises:
        CatalogError: A chip or the model is not known.
        PlanError: A framework is not known.
    """
    chips = load.chip(first), load.chip(second)
    for name in (framework_a, framework_b):
        if name is not None and frameworks.family(name) is frameworks.UNKNOWN:
            words = [word for family in frameworks.families() for word in family.words]
            raise PlanError(f"`{name}` is not a framework that can be planned", (), did_you_mean(name.lower(), words))
    works = list(_works(model))
    kinds = {_KIND.get(kind := work.stages[0].workload.family, kind) for work in works} if model else None
    sides = [
        [run for run in measured_throughput.runs_on(chip, framework) if kinds is None or run.kind in kinds]
        for chip, framework in zip(chips, (framework_a, framework_b), strict=True)
    ]
    under = framework_a or "torch", framework_b or "torch"
    rent = _rents(*chips)
    watts = [power(chip).w for chip in chips]
    hungrier = watts[0] / watts[1] if watts[0] and watts[1] else None
    predicted, not_predicted = [], []
    for work in works:
        ratio = _predict(work, chips, under, rent, hungrier)
        if isinstance(ratio, str):
            not_predicted.append((work.name, ratio))
        else:
            predicted.append(ratio)
    # by chip and kind: both chips may be one, and then what came before is said once
    before = {}
    for chip in chips:
        for kind in MODELS if kinds is None else sorted(kinds & MODELS.keys()):
            earlier = measured_throughput.earlier(chip, kind)
            if earlier is not None:
                before[chip.label, kind] = chip.label, earlier
    same = chips[0].name == chips[1].name and under[0] == under[1]
    return Comparison(
        first=chips[0], second=chips[1], frameworks=under, pairs=tuple(measured_throughput.pairs(*sides)),
        matched=() if same else tuple(measured_throughput.match_work(*sides)), predicted=tuple(predicted),
        not_predicted=tuple(not_predicted), earlier=tuple(before.values()), rent=rent, power=hungrier,
        assumed=tuple(_assumed(chips)),
    )  # fmt: skip


def _works(model: str | None) -> Iterator[JobWork]:
    if model == _OWN or model is None:
        config = presets.get(_OWN, {})
        for stage in ("ar", "decoder"):
            name = f"GLM-Image's {'generator' if stage == 'ar' else 'decoder'}, 1024 px"
            yield _work(name, stage_workload(stage, config, resolution_px=1024, name=name))
    if model != _OWN:
        for name in (model,) if model else (name for names in MODELS.values() for name in names):
            # what a catalogue entry is taken to have is what is asked here, not a guess about somebody's run
            yield _work(name, replace(workload_of(name), notes=()))


def _work(name: str, workload: Workload) -> JobWork:
    stage = StageWork(name=name, workload=workload, num_steps=1, global_batch=_BATCH, num_samples=_BATCH)
    return JobWork(name=name, stages=(stage,))


def _predict(
    work: JobWork, chips: tuple[Chip, Chip], under: tuple[str, str], rent: Interval | None, hungrier: float | None
) -> PredictedRatio | str:
    """Return the ratio on the fewest chips on which both can, or why there is none."""
    planner = Planner(work, Assumptions())
    reason = ""
    for count in _COUNTS:
        candidates = [planner.candidate(chip, count, framework) for chip, framework in zip(chips, under, strict=True)]
        failed = [candidate for candidate in candidates if not isinstance(candidate, Candidate)]
        if not failed:
            break
        reason = f"{failed[0].chip}: {failed[0].reason}"
    else:
        return reason
    steps = [candidate.stages[0].prediction for candidate in candidates if isinstance(candidate, Candidate)]
    halves = [math.log(step.high_s / step.low_s) / 2 for step in steps]
    half = math.hypot(*halves)
    spread = planner.fitted.ratio
    if chips[0].name == chips[1].name and under[0] == under[1]:
        half = 0.0
    elif spread is not None and all(_runs(chip, planner.fitted.counts["chip"]) >= _ENOUGH for chip in chips):
        half = min(half, spread.half)
    ratio = steps[0].step_s / steps[1].step_s
    slower = Interval(low=ratio * math.exp(-half), typical=ratio, high=ratio * math.exp(half))
    return PredictedRatio(
        kind=work.stages[0].workload.family, model=work.name, num_chips=count, slower=slower,
        dearer=rent and _both(slower, rent),
        hungrier=None if hungrier is None else slower.times(hungrier),
        basis=(steps[0].rests_on, steps[1].rests_on),
    )  # fmt: skip


def _runs(chip: Chip, counts: Mapping[str, int]) -> int:
    """Return how many fitted runs are of a chip or of bins of it: cut-down chips of the same silicon do not count."""
    names = (name.split(" at ")[0] for name in counts)
    return sum(
        number
        for name, number in zip(names, counts.values(), strict=True)
        if measured_throughput.alike(load.chip(name), chip)
    )


def _both(first: Interval, second: Interval) -> Interval:
    """Return the product of two that are not known exactly; their intervals have nothing to do with each other."""
    typical = first.typical * second.typical
    down = math.hypot(*(math.log(one.typical / one.low) for one in (first, second)))
    up = math.hypot(*(math.log(one.high / one.typical) for one in (first, second)))
    return Interval(low=typical * math.exp(-down), typical=typical, high=typical * math.exp(up))


def _rents(first: Chip, second: Chip) -> Interval | None:
    """Return the ratio of rents."""
    if first.rent is None or second.rent is None:
        return None
    if first.name == second.name:
        return Interval(low=1.0, typical=1.0, high=1.0)
    above, below = hourly_rent(first.rent), hourly_rent(second.rent)
    return _both(above, Interval(low=1 / below.high, typical=1 / below.typical, high=1 / below.low))


def _assumed(chips: tuple[Chip, Chip]) -> Iterator[str]:
    spread = efficiency.load().ratio
    if spread is not None:
        yield (
            f"Intervals: {spread.num} ratios of runs that their sources set side by side, left out of the fit, lay within "
            f"a factor {math.exp(spread.half):.2f} in 80 % of cases: what one prediction is off by, the other often is too. "
            f"Chips with fewer than {_ENOUGH} runs of their own have both intervals added up as if nothing were shared."
        )
    for chip in chips:
        rent = chip.rent
        if rent is None:
            yield f"{chip.label}: no rental price is known, so nobody can say how dear it is."
        else:
            yield (
                f"{chip.label}: {rent.typical_usd_per_h:g} USD an hour ({rent.low_usd_per_h:g} to {rent.high_usd_per_h:g}; "
                f"{rent.region or 'region not known'}, {rent.as_of or 'date not known'}); power: {power(chip).basis}."
            )
    likes = sorted(
        {run.chip.name for chip in chips for run in measured_throughput.runs_on(chip)} - {c.name for c in chips}
    )
    if likes:
        yield f"Runs on {', '.join(likes)} stand for chips of the same silicon: sources seldom say which bin ran."


def _measured(ratios: Sequence[MeasuredRatio], first: str, second: str) -> list[str]:
    """Return a line for each kind of model: median and range of ratios, and how many."""
    by_kind: dict[str, list[MeasuredRatio]] = defaultdict(list)
    for ratio in ratios:
        by_kind[ratio.kind].append(ratio)
    lines = []
    for kind, some in sorted(by_kind.items()):
        values = sorted(ratio.value for ratio in some)
        sources = {run.source for ratio in some for run in (*ratio.first, *ratio.second)}
        lines.append(
            f"  {kind:<9}  {quantile(values, 0.5):.2f} in the middle, {quantile(values, 0.1):.2f} to "
            f"{quantile(values, 0.9):.2f} in four of five; {len(values)} ratios, {len(sources)} sources"
        )
    return lines or [f"  nothing is known that was measured on both {first} and {second}"]


def _plain(span: Interval | None) -> str:
    return "unknown times" if span is None else f"{span.typical:.2f} times ({span.low:.2f}-{span.high:.2f})"


def _ratio(ratio: MeasuredRatio) -> dict[str, Any]:
    return {
        "kind": ratio.kind, "model": ratio.model, "slower": ratio.value,
        "first": [_run(run) for run in ratio.first], "second": [_run(run) for run in ratio.second],
    }  # fmt: skip


def _run(run: measured_throughput.MeasuredThroughput) -> dict[str, Any]:
    return {
        "id": run.id, "chip": run.chip.name, "framework": run.framework, "num_chips": run.num_chips,
        "source": run.source, "url": run.url,
    }  # fmt: skip
