"""How wrong predictions are on published runs: each run predicted from its own columns, held against what it measured.

A prediction looks at no run's value, id or source. Runs of doubtful `quality` are predicted and not judged. Beside it
stands the one-line rule that most people use: everything is computed again in the backward pass, at 45 % of the peak.
"""

from __future__ import annotations

import csv
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sampan.catalog import load
from sampan.catalog.load import RUN_COLUMNS
from sampan.errors import NotPredictable, PlanError, did_you_mean
from sampan.plan import efficiency, published_run
from sampan.plan.measured_throughput import quantile
from sampan.plan.predict import predict_work
from sampan.plan.published_run import PublishedRun, Row

RULE_SHARE_OF_PEAK = 0.45
_NUMBERS = (
    "params_b", "active_params_b", "layers", "hidden", "ffn", "heads", "kv_heads", "vocab", "seq_len", "global_batch",
    "micro_batch", "chips", "tp", "pp", "dp", "cp", "ep", "zero_stage", "tokens_total",
)  # fmt: skip
_COLUMNS = "the columns are those of src/sampan/catalog/runs/measured.csv"
_WHOLE = (
    "layers", "hidden", "heads", "kv_heads", "global_batch", "micro_batch", "chips", "tp", "pp", "dp", "cp", "ep",
    "zero_stage",
)  # fmt: skip
_MAY_BE_ZERO = ("zero_stage", "ffn", "vocab")


@dataclass(frozen=True, kw_only=True)
class RunPrediction:
    """A run beside its prediction, all in the run's own metric."""

    id: str
    predicted: float
    low: float
    high: float
    measured: float
    row: Row

    @property
    def is_good(self) -> bool:
        """Whether the run is one to judge by: its `quality` is "ok", or not stated."""
        return self.row["quality"] in ("", "ok")

    @property
    def error(self) -> float:
        """Predicted over measured, less 1."""
        return self.predicted / self.measured - 1


@dataclass(frozen=True, kw_only=True)
class ErrorSummary:
    """How good some predictions are; errors are shares of what was measured, None where there is nothing to judge."""

    count: int
    median_abs_rel_err: float | None = None
    mean_abs_rel_err: float | None = None
    p90_abs_rel_err: float | None = None
    bias: float | None = None
    coverage_80: float | None = None

    def __str__(self) -> str:
        """Return them in a line."""
        if not self.count:
            return "0 runs"
        held = "" if self.coverage_80 is None else f", 80 % intervals hold {self.coverage_80:.0%}"
        return (
            f"{self.count} runs, median {self.median_abs_rel_err:.1%}, mean {self.mean_abs_rel_err:.1%}, "
            f"p90 {self.p90_abs_rel_err:.1%}, bias {self.bias:+.1%}{held}"
        )


@dataclass(frozen=True, kw_only=True)
class ValidationReport:
    """Predictions of the runs of a file.

    Args:
        num_fitted: Of them, those that the efficiencies were fitted to.
    """

    judged: tuple[RunPrediction, ...]
    rule: tuple[RunPrediction, ...]
    skipped: tuple[tuple[str, str], ...]
    num_fitted: int = 0

    def good(self) -> list[RunPrediction]:
        """Return the runs to judge by."""
        return [one for one in self.judged if one.is_good]

    def rule_summary(self) -> ErrorSummary:
        """Return how good the one-line rule is; it has no intervals."""
        return replace(summary(one for one in self.rule if one.is_good), coverage_80=None)

    def groups(self) -> dict[str, dict[str, ErrorSummary]]:
        """Return summaries by vendor, family, framework and source."""
        keys: dict[str, Callable[[Row], str]] = {
            "by_vendor": lambda row: row["vendor"],
            "by_family": lambda row: row["family"],
            "by_framework": lambda row: row["framework"],
            "by_source": lambda row: row["source_title"],
        }
        found = {}
        for name, key in keys.items():
            parts: dict[str, list[RunPrediction]] = defaultdict(list)
            for one in self.good():
                parts[key(one.row) or "not stated"].append(one)
            found[name] = {part: summary(parts[part]) for part in sorted(parts)}
        return found

    def about_the_fit(self) -> list[str]:
        """Return what is to be said where runs are among those that the efficiencies were fitted to."""
        if not self.num_fitted:
            return []
        return [
            f"{self.num_fitted} of these runs are among those that the efficiencies were fitted to: others go less well;",
            f"left out of the fit with all runs of their source on the same model: {efficiency.load().left_out}",
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return what --json writes."""
        return {
            "overall": asdict(summary(self.good())),
            "rule_of_thumb": asdict(self.rule_summary()),
            **{name: {part: asdict(errors) for part, errors in parts.items()} for name, parts in self.groups().items()},
            "ratios": asdict(ratios(self.good())),
            "rows": [
                {
                    "id": one.id, "predicted": one.predicted, "low": one.low, "high": one.high, "measured": one.measured,
                    "is_judged": one.is_good,
                }
                for one in self.judged
            ],
            "skipped": [{"id": name, "reason": reason} for name, reason in self.skipped],
        }  # fmt: skip

    def lines(self) -> list[str]:
        """Return the report as text."""
        said = [
            f"predictions    {summary(self.good())}",
            f"one-line rule  {self.rule_summary()}",
            f"ratios         {ratios(self.good())}".replace(" runs", " pairs", 1),
        ]
        for title, parts in self.groups().items():
            said += ["", title.replace("_", " ")]
            width = max((min(len(name), 48) for name in parts), default=0)
            said += [f"  {name[:48]:<{width}}  {part}" for name, part in parts.items()]
        about = self.about_the_fit()
        said += ["", *about] if about else []
        doubtful = len(self.judged) - len(self.good())
        if doubtful:
            said += ["", f"predicted, and not judged: {doubtful} runs whose `quality` is not ok"]
        if self.skipped:
            reasons: dict[str, list[str]] = defaultdict(list)
            for name, reason in self.skipped:
                reasons[reason].append(name)
            said += ["", f"left out: {len(self.skipped)} runs"]
            for reason, names in sorted(reasons.items(), key=lambda item: -len(item[1])):
                shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
                said.append(f"  {len(names)} x {reason} ({shown})")
        return said


def validate(path: Path) -> ValidationReport:
    """Return predictions of all runs of a CSV file with the columns of the catalogue's runs.

    Raises:
        PlanError: The file cannot be read, lacks a column, or a cell is junk; names line and column.
    """
    found, rule, skipped = [], [], []
    for row in read(path):
        try:
            case = published_run.read(row)
            prediction = predict_work(
                case.device_work, case.workload, case.chip, case.speeds, framework=case.framework,
                precision=case.precision, method=case.method, model=case.model,
            )  # fmt: skip
            found.append(run_prediction(row, case, prediction.step_s, prediction.low_s, prediction.high_s))
            rule.append(rule_of_thumb(row, case))
        except NotPredictable as reason:
            skipped.append((row["id"], str(reason)))
    known = {_measured(row) for row in load.runs()}
    num_fitted = sum(one.is_good and _measured(one.row) in known for one in found)
    return ValidationReport(judged=tuple(found), rule=tuple(rule), skipped=tuple(skipped), num_fitted=num_fitted)


def _measured(row: Row) -> tuple[str, ...]:
    """Return what makes a run the same run under another id."""
    return tuple(row[name] for name in ("model", "chip", "framework", "chips", "global_batch", "metric", "value"))


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file of runs, their numbers checked.

    Raises:
        PlanError: As `validate`.
    """
    rows: list[dict[str, str]] = []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            names = reader.fieldnames or ()
            missing = [name for name in RUN_COLUMNS if name not in names]
            if missing:
                near = did_you_mean(missing[0], [n for n in names if n not in RUN_COLUMNS])
                raise PlanError(
                    f"`{path}` cannot be used as a file of runs",
                    f"it has no column {', '.join(f'`{name}`' for name in missing)}",
                    near if near and near.startswith("did you mean") else _COLUMNS,
                )
            for row in reader:
                if None in row or None in row.values():
                    raise PlanError(
                        f"`{path}` cannot be used as a file of runs",
                        f"line {reader.line_num} has not as many cells as there are columns",
                    )
                _check(path, reader.line_num, row)
                rows.append(row)
    except OSError as error:
        raise PlanError(f"`{path}` cannot be read as a file of runs", error.strerror or str(error)) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise PlanError(f"`{path}` cannot be read as a file of runs", str(error)) from error
    return rows


def _check(path: Path, line: int, row: Row) -> None:
    for name in (*_NUMBERS, "value"):
        text = row[name].strip()
        if not text and name != "value":
            continue
        try:
            value = float(text)
            is_good = math.isfinite(value) and (value > 0 or (value == 0 and name in _MAY_BE_ZERO))
            is_good = is_good and (name not in _WHOLE or value == int(value))
        except ValueError:
            is_good = False
        if not is_good:
            raise PlanError(
                f"`{path}` cannot be used as a file of runs",
                f"line {line}, column `{name}`: {row[name]!r} is not a {'whole ' if name in _WHOLE else ''}number above 0",
                "leave a cell empty where a run does not say",
            )


def run_prediction(row: Row, case: PublishedRun, step_s: float, low_s: float, high_s: float) -> RunPrediction:
    """Return a run beside a prediction of its update's time."""
    ends = [case.value(s) if s > 0 else math.nan for s in (low_s, high_s)]
    return RunPrediction(
        id=row["id"], predicted=case.value(step_s), low=min(ends), high=max(ends), measured=float(row["value"]), row=row
    )


def rule_of_thumb(row: Row, case: PublishedRun) -> RunPrediction:
    """Return what the one-line rule says of a run."""
    flops = case.workload.flops + case.workload.forward_flops
    rate = RULE_SHARE_OF_PEAK * case.speeds.matmul_flops_per_s * case.layout.num_chips
    return run_prediction(row, case, case.samples * flops / rate, 0, 0)


def summary(some: Iterable[RunPrediction]) -> ErrorSummary:
    """Return how good predictions are."""
    some = list(some)
    if not some:
        return ErrorSummary(count=0)
    errors = sorted(abs(one.error) for one in some)
    held = [one.low <= one.measured <= one.high for one in some if not math.isnan(one.low)]
    return ErrorSummary(
        count=len(errors),
        median_abs_rel_err=statistics.median(errors),
        mean_abs_rel_err=statistics.fmean(errors),
        p90_abs_rel_err=quantile(errors, 0.9),
        bias=statistics.median(one.error for one in some),
        coverage_80=sum(held) / len(held) if held else None,
    )


def ratios(some: Sequence[RunPrediction]) -> ErrorSummary:
    """Return how good predicted ratios are, of an Ascend run over the other runs of its pair with the same metric."""
    pairs: dict[tuple[str, str], list[RunPrediction]] = defaultdict(list)
    for one in some:
        if one.row["pair_id"]:
            pairs[one.row["pair_id"], one.row["metric"]].append(one)
    found = []
    for members in pairs.values():
        ascend = [one for one in members if one.row["vendor"] == "ascend"]
        for a in ascend:
            for b in members:
                if b.row["vendor"] != "ascend":
                    # the ends of a ratio's interval: spreads add up as those of independent logarithms do
                    half = math.hypot(math.log(a.high / a.low), math.log(b.high / b.low)) / 2
                    ratio = a.predicted / b.predicted
                    found.append(
                        RunPrediction(
                            id=f"{a.id}/{b.id}", predicted=ratio, low=ratio * math.exp(-half), high=ratio * math.exp(half),
                            measured=a.measured / b.measured, row=a.row,
                        )
                    )  # fmt: skip
    return summary(found)
