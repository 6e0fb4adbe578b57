"""Fit the efficiencies of `sampan plan` to published runs, and say how well runs that were left out are predicted.

The model's rates and the effects of chips and software (see sampan.plan.efficiency) are the maximum of a posterior: a
robust least-squares fit of logarithms, each value with a normal prior around what it would be if nothing had been measured.
Groups of runs are left out in turn, everything is fitted again without them, and they are predicted.

    python scripts/fit_plan.py [--runs FILE] [--cross-validate] [--out src/sampan/catalog/efficiency.json]
"""

# over 400 lines because the fit, what is left out of it and the file it writes are one experiment, read from top to bottom

from __future__ import annotations

import argparse
import collections
import csv
import datetime
import hashlib
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sampan.catalog import load
from sampan.errors import NotPredictable
from sampan.files import write_text
from sampan.plan import efficiency, validate
from sampan.plan import published_run as cases
from sampan.plan.efficiency import PARTS
from sampan.plan.time import RATE_NAMES, Rates, step_time
from sampan.report import results

ROOT = Path(__file__).resolve().parent.parent

NOISE = 0.07  # standard deviation of the logarithm of a time, of runs that say all their sizes
NOISE_ASSUMED = 0.5  # and of runs whose resolution, frames or length had to be assumed
ROBUST = 1.5  # standard deviations from which on a run pulls no harder
RATE_SD = {
    "matmul": 0.15, "thin": 0.5, "attention": 0.4, "low_precision": 0.3, "memory": 0.25, "launch_s": 0.4, "blend": 0.4,
    "scale_up": 0.3, "scale_out": 0.25, "message_s": 0.5, "hidden": 0.25, "shared_hidden": 0.5, "sent": 0.5,
    "step_s": 0.3, "bubble": 0.15,
}  # fmt: skip
EFFECT_SD = {
    "maker": 0.1, "silicon": 0.1, "chip": 0.05, "engine": 0.05, "engine on maker": 0.1, "family": 0.1,
    "family on silicon": 0.08, "product": 0.2, "product on silicon": 0.1, "release": 0.08, "precision": 0.1,
    "precision on silicon": 0.08, "method": 0.2, "kind": 0.1, "kind on maker": 0.1, "kind in product": 0.1, "model": 0.03,
}  # fmt: skip
MODEL_SD_ASSUMED = 1.0  # a model whose runs do not say their sizes is dearer or cheaper by what those sizes were
PART_SD = {"family": 0.15, "product": 0.3, "silicon": 0.15}
FOLDS = 12


@dataclass(frozen=True)
class Run:
    """A published run as the fit takes it."""

    row: Mapping[str, str]
    case: cases.PublishedRun
    levels: Mapping[str, str]
    log_s: float


def runs_of(rows: Sequence[Mapping[str, str]]) -> list[Run]:
    """Return the runs that can be predicted, those of doubtful quality left out."""
    found = []
    for row in rows:
        if row["quality"] != "ok":
            continue
        try:
            case = cases.read(row)
            step_s = case.step_s(float(row["value"]))
        except NotPredictable:
            continue
        levels = efficiency.levels(
            case.workload, case.chip, case.speeds, case.framework, case.precision, case.method, case.model
        )
        found.append(Run(row, case, levels, math.log(step_s)))
    return found


class Fit:
    """Rates and effects that were fitted to runs."""

    def __init__(self, runs: Sequence[Run], start: Fit | None = None, iterations: int = 10):
        self.runs = runs
        prior = np.log([getattr(Rates(), name) for name in RATE_NAMES])
        self.x = prior.copy() if start is None else start.x.copy()
        self.columns, sd = _columns(runs)
        self.b = np.zeros(len(sd))
        rate_sd = np.array([RATE_SD[name] for name in RATE_NAMES])
        penalty = NOISE**2 / np.concatenate([rate_sd, sd]) ** 2
        y = np.array([run.log_s for run in runs])
        noise = np.array([_noise(run) for run in runs]) / NOISE
        for iteration in range(iterations):
            predicted, shares = model(self.x, runs)
            design = self._design(runs, shares)
            slopes = np.empty((len(runs), len(self.x)))
            for k in range(len(self.x)):
                moved = self.x.copy()
                moved[k] += 0.02
                slopes[:, k] = (model(moved, runs)[0] - predicted) / 0.02
            residual = y - predicted
            far = np.abs(residual - design @ self.b) / noise if iteration else np.zeros(len(runs))
            weights = 1 / np.maximum(1, far / (ROBUST * NOISE)) / noise**2
            both = np.hstack([slopes, design])
            self.hessian = both.T @ (weights[:, None] * both) + np.diag(penalty)
            solved = np.linalg.solve(self.hessian, both.T @ (weights * (residual + slopes @ (self.x - prior))))
            step = np.clip(prior + solved[: len(self.x)] - self.x, -0.4, 0.4)
            self.x, self.b = self.x + step, solved[len(self.x) :]
            if np.abs(step).max() < 2e-3:
                break

    def _design(self, runs: Sequence[Run], shares: np.ndarray) -> np.ndarray:
        design = np.zeros((len(runs), len(self.columns)))
        for i, run in enumerate(runs):
            for level, name in run.levels.items():
                at = self.columns.get((level, name, "all"))
                if at is None:
                    continue
                design[i, at] = 1
                if level in PART_SD:
                    for j, part in enumerate(PARTS):
                        design[i, self.columns[level, name, part]] = shares[i, j]
        return design

    def predict(self, runs: Sequence[Run]) -> np.ndarray:
        """Return logarithms of seconds."""
        predicted, shares = model(self.x, runs)
        return predicted + self._design(runs, shares) @ self.b

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how many runs there are of each level's names."""
        found: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        for run in self.runs:
            for level, name in run.levels.items():
                found[level][name] += 1
        return {level: dict(counter) for level, counter in found.items()}


def _noise(run: Run) -> float:
    return NOISE_ASSUMED if run.levels["geometry"] == "assumed" else NOISE


def _columns(runs: Sequence[Run]) -> tuple[dict[tuple[str, str, str], int], np.ndarray]:
    columns: dict[tuple[str, str, str], int] = {}
    sd: list[float] = []
    assumed = {run.levels["model"] for run in runs if run.levels["geometry"] == "assumed"}
    for level, spread in EFFECT_SD.items():
        for name in sorted({run.levels[level] for run in runs}):
            columns[level, name, "all"] = len(sd)
            sd.append(MODEL_SD_ASSUMED if level == "model" and name in assumed else spread)
            for part in PARTS if level in PART_SD else ():
                columns[level, name, part] = len(sd)
                sd.append(PART_SD[level])
    return columns, np.array(sd)


def model(x: np.ndarray, runs: Sequence[Run]) -> tuple[np.ndarray, np.ndarray]:
    """Return logarithms of seconds without effects, and the shares of each part."""
    rates = Rates(**{name: float(value) for name, value in zip(RATE_NAMES, np.exp(x), strict=True)})
    times = [step_time(run.case.device_work, run.case.speeds, rates) for run in runs]
    shared = [efficiency.shares(time) for time in times]
    return np.log([time.total_s for time in times]), np.array([[share[part] for part in PARTS] for share in shared])


@dataclass(frozen=True)
class Left:
    """A run that was left out: what was predicted of it, and how much of it the fit knew."""

    run: Run
    log_s: float
    spread_class: str

    @property
    def error(self) -> float:
        """Predicted over measured time, as a logarithm."""
        return self.log_s - self.run.log_s


def leave_out(runs: Sequence[Run], group: Callable[[Run], str], whole: Fit, folds: int = FOLDS) -> list[Left]:
    """Return every run predicted by a fit without its group."""
    # a hash, not a draw: a new run does not move the others to another fold
    fold = {name: int(hashlib.sha256(name.encode()).hexdigest(), 16) % folds for name in {group(run) for run in runs}}
    found = []
    for number in range(folds):
        outside = [run for run in runs if fold[group(run)] == number]
        if not outside:
            continue
        fit = Fit([run for run in runs if fold[group(run)] != number], whole, iterations=3)
        counts = fit.counts()
        found += [
            Left(run, float(log_s), efficiency.spread_class(run.levels, counts))
            for run, log_s in zip(outside, fit.predict(outside), strict=True)
        ]
        print(f"  fold {number + 1} of {folds}: {len(outside)} runs", file=sys.stderr, flush=True)
    return found


_FEW = 12  # runs of a class that weigh as much as what wider classes say of it


def spreads_of(left: Sequence[Left]) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Return the half-width of each class, and the factors of products that are steadier or rougher than their class."""
    half: dict[str, dict[str, float]] = {}
    by_class = collections.defaultdict(list)
    by_group = collections.defaultdict(list)
    for one in left:
        by_class[one.spread_class].append(abs(one.error))
        by_group[one.spread_class.split(";")[0]].append(abs(one.error))
    for name in efficiency.classes():
        errors = by_class.get(name, [])
        outer = float(np.quantile(by_group[name.split(";")[0]], 0.8))
        own = float(np.quantile(errors, 0.8)) if errors else outer
        weight = len(errors) / (len(errors) + _FEW)
        half[name] = {"half": math.exp(weight * math.log(own) + (1 - weight) * math.log(outer)), "runs": len(errors)}
    for group in efficiency.GROUPS:
        _widen(half, group)
    by_product = collections.defaultdict(list)
    for one in left:
        by_product[one.run.levels["product"]].append(abs(one.error) / half[one.spread_class]["half"])
    factors = {}
    for name, scaled in sorted(by_product.items()):
        weight = len(scaled) / (len(scaled) + _FEW)
        factors[name] = math.exp(weight * math.log(max(0.2, float(np.quantile(scaled, 0.8)))))
    # the factors change how many runs the intervals hold: one more factor brings that back
    again = [
        abs(one.error) / half[one.spread_class]["half"] / factors[one.run.levels["product"]] for one in left
    ]  # fmt: skip
    common = float(np.quantile(again, 0.8))
    return half, {name: factor * common for name, factor in factors.items()}


def _widen(half: Mapping[str, dict[str, float]], group: str) -> None:
    """Make what is less known never surer than what is more known."""
    for i, software in enumerate(efficiency.SOFTWARE):
        for j, chip in enumerate(efficiency.CHIP):
            one = half[efficiency.spread_name(group, software, chip)]
            if i:
                one["half"] = max(
                    one["half"], half[efficiency.spread_name(group, efficiency.SOFTWARE[i - 1], chip)]["half"]
                )
            if j:
                one["half"] = max(
                    one["half"], half[efficiency.spread_name(group, software, efficiency.CHIP[j - 1])]["half"]
                )


def summary(left: Sequence[Left], halves: Sequence[float]) -> validate.ErrorSummary:
    """Return how good predictions of left-out runs were, in the runs' own metrics."""
    judged = []
    for one, half in zip(left, halves, strict=True):
        low, high = efficiency.interval(math.exp(one.log_s), half)
        judged.append(validate.run_prediction(one.run.row, one.run.case, math.exp(one.log_s), low, high))
    return validate.summary(judged)


def ratio_spread(left: Sequence[Left]) -> dict[str, float]:
    """Return half of the interval, of the logarithm, that held 80 % of the ratios of runs published side by side."""
    pairs = collections.defaultdict(list)
    for one in left:
        if one.run.row["pair_id"]:
            pairs[one.run.row["pair_id"], one.run.row["metric"]].append(one)
    apart = [
        abs(a.error - b.error)
        for members in pairs.values()
        for i, a in enumerate(members)
        for b in members[i + 1 :]
        if a.run.row["vendor"] != b.run.row["vendor"]
    ]
    return {"half": round(float(np.quantile(apart, 0.8)), 4), "pairs": len(apart)}


def halves_without(left: Sequence[Left], group: Callable[[Run], str], folds: int = 8) -> list[float]:
    """Return every run's half-width, from spreads of the other groups alone."""
    fold = {name: int(hashlib.md5(name.encode()).hexdigest(), 16) % folds for name in {group(one.run) for one in left}}
    found = [0.0] * len(left)
    for number in range(folds):
        half, factors = spreads_of([one for one in left if fold[group(one.run)] != number])
        for i, one in enumerate(left):
            if fold[group(one.run)] == number:
                found[i] = half[one.spread_class]["half"] * factors.get(one.run.levels["product"], 1.0)
    return found


def by_source_and_model(run: Run) -> str:
    """Return a run's source and model."""
    return f"{run.row['source_title']} | {run.row['model']}"


def by_source(run: Run) -> str:
    """Return a run's source."""
    return run.row["source_title"]


def by_silicon(run: Run) -> str:
    """Return what a run's chip is made of."""
    return run.levels["silicon"]


def by_maker(run: Run) -> str:
    """Return who makes a run's chip."""
    return run.levels["maker"]


def is_full(run: Run) -> bool:
    """Return whether a run says its whole shape, and on which chip."""
    row = run.row
    return all(row[name] for name in ("layers", "hidden", "seq_len", "chips")) and row["vendor"] != "refgpu"


def document(
    fit: Fit, spreads: Mapping[str, Any], products: Mapping[str, float], table: Mapping[str, Any], said: str, today: str
) -> dict[str, Any]:
    """Return the file that sampan.plan.efficiency reads."""
    covariance = np.linalg.inv(fit.hessian) * NOISE**2
    sd = np.sqrt(np.diag(covariance))
    num = len(RATE_NAMES)
    effects: dict[str, dict[str, Any]] = {
        level: {name: {"runs": runs, "of": {}} for name, runs in of.items()}
        for level, of in fit.counts().items()
        if level != "geometry"
    }
    for (level, name, part), at in fit.columns.items():
        if abs(fit.b[at]) >= 5e-4:
            effects[level][name]["of"][part] = round(float(fit.b[at]), 4)
        if part == "all":
            effects[level][name]["sd"] = round(float(sd[num + at]), 3)
    return {
        "made": today,
        "by": "scripts/fit_plan.py; source: the catalogue's runs",
        "runs": len(fit.runs),
        "left_out": said,
        "cross_validation": table,
        "rates": {
            name: {"value": float(f"{math.exp(value):.5g}"), "sd_of_log": round(float(s), 3)}
            for name, value, s in zip(RATE_NAMES, fit.x, sd, strict=False)
        },
        "spreads": {name: {"half": round(s["half"], 4), "runs": s["runs"]} for name, s in spreads.items()},
        "products": {name: round(factor, 3) for name, factor in products.items()},
        "effects": effects,
    }


def main() -> None:
    """Fit, cross-validate and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="default: the catalogue's")
    parser.add_argument("--out", type=Path, default=efficiency.FILE)
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    if arguments.runs is None:
        rows: Sequence[Mapping[str, str]] = load.runs()
    else:
        with open(arguments.runs, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    runs = runs_of(rows)
    fit = Fit(runs)
    print(
        f"{len(runs)} runs; rates { ({n: float(f'{v:.3g}') for n, v in zip(RATE_NAMES, np.exp(fit.x), strict=True)}) }"
    )
    asked: dict[str, Callable[[Run], str]] = {
        "models of a source left out": by_source_and_model,
        "sources left out": by_source,
        "silicon left out": by_silicon,
        "makers left out": by_maker,
    }
    found_left = {title: leave_out(runs, group, fit) for title, group in asked.items()}
    every = [one for left in found_left.values() for one in left]
    table: dict[str, Any] = {}
    said = ""
    for title, left in found_left.items():
        halves = {id(one): half for one, half in zip(every, halves_without(every, asked[title]), strict=True)}
        parts = {
            "whole shape": [one for one in left if is_full(one.run)],
            "whole shape, Ascend": [one for one in left if is_full(one.run) and one.run.row["vendor"] == "ascend"],
            "vTrain, several nodes": [one for one in left if "ground_truth_multi" in one.run.row["source_url"]],
            "all": left,
            **{kind: [o for o in left if o.run.row["family"] == kind] for kind in ("llm-moe", "dit", "unet", "vlm")},
        }
        for name, some in parts.items():
            if some:
                found = summary(some, [halves[id(one)] for one in some])
                rule = validate.summary([validate.rule_of_thumb(one.run.row, one.run.case) for one in some])
                table[f"{title}: {name}"] = {**asdict(found), "rule_of_thumb_median": rule.median_abs_rel_err}
                if (title, name) == ("models of a source left out", "all"):
                    said = str(found)
                print(f"{title}: {name}: {found}; rule of thumb {rule.median_abs_rel_err:.3f}")
    models = [
        validate.run_prediction(one.run.row, one.run.case, math.exp(one.log_s), 0, 0)
        for one in found_left["models of a source left out"]
    ]
    for name, kinds in (("all", None), ("pictures", ("dit", "unet", "vlm"))):
        ratios = validate.ratios([one for one in models if kinds is None or one.row["family"] in kinds])
        table[f"models of a source left out: Ascend to GPU ratios, {name}"] = asdict(ratios)
        print(f"ratios, {name}: {ratios}")
    table["spread of ratios"] = ratio_spread(found_left["models of a source left out"])
    today = datetime.date.today().isoformat()
    if not arguments.dry:
        half, products = spreads_of(every)
        write_text(
            arguments.out,
            json.dumps(document(fit, half, products, table, said, today), indent=1, ensure_ascii=False) + "\n",
        )
        print(results.add("plan-cross-validation", {"runs": len(runs), "errors": table}, arguments.results))


if __name__ == "__main__":
    main()
