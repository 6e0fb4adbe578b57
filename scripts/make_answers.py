"""Write docs/answers.md: what the catalogue's runs and the planner say to the questions that people ask first.

Every number is computed here from the catalogue, the fitted efficiencies, jobs/glm-image.toml and results/; none is typed in.

    python scripts/make_answers.py [--check]
"""

# over 400 lines because it is one page, question after question, and each is read beside its words

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sampan.catalog import load
from sampan.files import write_text
from sampan.job import read
from sampan.plan import efficiency, measured_throughput, verb
from sampan.plan.compare import Comparison, PredictedRatio, compare
from sampan.plan.cost import DAY_S
from sampan.plan.measured_throughput import MeasuredRatio, MeasuredThroughput, is_16_bit, quantile
from sampan.plan.rank import InferenceRow, PlanRow
from sampan.plan.records import Interval
from sampan.plan.report import Plan
from sampan.plan.table import amount, between

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "answers.md"
JOB = ROOT / "jobs" / "glm-image.toml"
ASCEND = ("ascend_910b2", "ascend_910c")
OTHERS = ("a100_80", "h100_sxm", "h200", "h20")
HOME, ABROAD = "cn_inner_mongolia", ("my_johor", "sg")
FACTOR = 3.0  # either way, of what nobody published about GLM-Image's training

Table = Sequence[Sequence[str]]


def main() -> None:
    """Write the page, or say whether it is what the data say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the page is not current")
    arguments = parser.parse_args()
    text = page()
    if arguments.check:
        is_current = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text
        print(f"{PAGE.relative_to(ROOT)} is {'current' if is_current else 'not what the data say: make answers'}")
        sys.exit(0 if is_current else 1)
    write_text(PAGE, text)
    print(f"wrote {PAGE.relative_to(ROOT)}")


def page() -> str:
    """Return the whole page."""
    found = {(a, b): compare(a, b) for a in ASCEND for b in OTHERS}
    parts = [*_head(), *_slower(found), *_dearer(found), *_mindspore(), *_training(), *_pictures()]
    return "\n".join(parts) + "\n"


def _head() -> Iterator[str]:
    known = efficiency.load()
    yield "# Answers"
    yield ""
    yield "<!-- written by scripts/make_answers.py: change the data or the script, then `make answers` -->"
    yield ""
    yield (
        f"From {len(measured_throughput.measured()):,} published runs that can be counted, efficiencies fitted to "
        f"{known.num_runs:,} of them ({known.made}), and prices and grids of the catalogue, each with its date and source in "
        "`src/sampan/catalog/`. Predictions carry intervals that held 80 % of runs that were left out of the fit "
        f"({known.left_out}). What is not known is said to be unknown. Export and procurement rules bear on several of the "
        "combinations below; this page computes what they would take and says nothing about whether they may be had."
    )


# ------------------------------------------------------------------------------------------------------------ 1: slower


def _slower(found: dict[tuple[str, str], Comparison]) -> Iterator[str]:
    yield from _title("Is Ascend 910B or 910C slower than A100, H100, H200, H20?")
    pairs = found["ascend_910b2", "a100_80"].pairs
    values = sorted(one.value for one in pairs)
    near, far, cut = (("a100_80",), ("h100_sxm", "h200"), ("h20",))
    words = [
        (
            f"Beside an A100, {_verdict(values)}: in {len(values)} runs published side by side a 910B took "
            f"{quantile(values, 0.5):.2f} times as long in the middle, {quantile(values, 0.1):.2f} to "
            f"{quantile(values, 0.9):.2f} in four of five; a 910C, by prediction, {_range(found, 'ascend_910c', near)} times."
        ),
        (
            f"Beside an H100 or H200, a 910B is {_predicted_verdict(found, 'ascend_910b2', far)}: "
            f"{_range(found, 'ascend_910b2', far)} times as long by prediction; a 910C is "
            f"{_predicted_verdict(found, 'ascend_910c', far)}: {_range(found, 'ascend_910c', far)} times."
        ),
        (
            f"Beside an H20, a 910B is {_predicted_verdict(found, 'ascend_910b2', cut)}: "
            f"{_range(found, 'ascend_910b2', cut)} times by prediction, a 910C {_range(found, 'ascend_910c', cut)} times."
        ),
    ]
    yield from _three(words)
    yield "Time of the Ascend chip over that of the other, for the same work; below 1 the Ascend chip is faster."
    yield ""
    yield from _table(
        [["Ascend", "beside", "kind of model", "published side by side", "same work, other sources", "predicted"]]
        + [row for (a, b), one in found.items() for row in _kinds(a, b, one)]
    )
    early = {(name, one.kind): one for comparison in found.values() for name, one in comparison.earlier}
    yield "Which earlier chip was as fast, by useful FLOP/s of good 16-bit runs (three quarters are slower):"
    yield ""
    yield from _table(
        [["chip", "kind of model", "as fast before it", "came out", "years before", "its runs"]]
        + [
            [name, kind, one.chip.title, one.chip.launched or "unknown", f"{one.years:g}", str(one.num_runs)]
            for (name, kind), one in sorted(early.items())
            if name in ASCEND
        ]
    )
    sources = sorted({(run.source, run.url) for one in pairs for run in one.first})
    paired = {name for (a, b), one in found.items() for name in (a, b) if one.pairs}
    alone = ", ".join(name for name in (*ASCEND, *OTHERS) if name not in paired)
    yield "Not known: sources seldom say which bin of the 910B ran, and the chip beside it in most pairs is an unnamed GPU of"
    yield "A100 class that the Ascend software's own makers measured. Rows of the same work in other sources are few and mix"
    yield "software with chips (MindFormers on Ascend beside Megatron or PyTorch), and predictions are of PyTorch on both. A"
    yield "launch of which only the year is known is taken to be its middle."
    if alone:
        yield f"No pair was published with {alone}: their rows are predictions."
    yield ""
    yield "Sources of the pairs: " + "; ".join(f"[{title}]({url})" for title, url in sources) + "."


def _kinds(a: str, b: str, one: Comparison) -> Iterator[list[str]]:
    by_kind: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for ratio in (*one.pairs, *one.matched):
        by_kind[ratio.kind]["pairs" if ratio.is_pair else "matched"].append(ratio.value)
    predicted: dict[str, list[PredictedRatio]] = defaultdict(list)
    for some in one.predicted:
        predicted["llm-dense" if some.kind == "ar" else some.kind].append(some)
    for kind in sorted(by_kind.keys() | predicted.keys()):
        yield [
            a, b, kind, _spread(by_kind[kind]["pairs"]), _spread(by_kind[kind]["matched"]),
            "; ".join(f"{some.model}: {_span(some.slower)}" for some in predicted[kind]) or "-",
        ]  # fmt: skip


def _verdict(values: Sequence[float]) -> str:
    """Return what the middle of measured ratios of time says."""
    middle = statistics.median(values)
    return "slower" if middle > 1.1 else "faster" if middle < 0.9 else "about as fast"


def _predicted_verdict(found: dict[tuple[str, str], Comparison], a: str, others: Sequence[str]) -> str:
    """Return what predicted ratios say, in words that their intervals carry."""
    spans = [one.slower for b in others for one in found[a, b].predicted]
    slower, faster = sum(span.low > 1 for span in spans), sum(span.high < 1 for span in spans)
    if slower > 2 * len(spans) / 3:
        return f"slower ({slower} of {len(spans)} intervals lie above 1)"
    if faster > 2 * len(spans) / 3:
        return f"faster ({faster} of {len(spans)} intervals lie below 1)"
    return f"not to be told apart ({len(spans) - slower - faster} of {len(spans)} intervals hold 1)"


def _typicals(found: dict[tuple[str, str], Comparison], a: str, others: Sequence[str]) -> list[float]:
    return [one.slower.typical for b in others for one in found[a, b].predicted]


def _range(found: dict[tuple[str, str], Comparison], a: str, others: Sequence[str]) -> str:
    values = _typicals(found, a, others)
    return f"{min(values):.2f} to {max(values):.2f}"


def _spread(values: Iterable[float]) -> str:
    ordered = sorted(values)
    if not ordered:
        return "-"
    middle = f"{quantile(ordered, 0.5):.2f}"
    return (
        f"{middle} ({len(ordered)})"
        if len(ordered) < 3
        else f"{middle}, {quantile(ordered, 0.1):.2f}-{quantile(ordered, 0.9):.2f} ({len(ordered)})"
    )


def _span(span: Interval | None) -> str:
    return "unknown" if span is None else f"{span.typical:.2f} ({span.low:.2f}-{span.high:.2f})"


# ------------------------------------------------------------------------------------------------------------ 2: dearer


def _dearer(found: dict[tuple[str, str], Comparison]) -> Iterator[str]:
    yield from _title("Is it dearer in time and resources?")
    middle = {
        key: {
            "time": _middle(one.slower.typical for one in comparison.predicted),
            "money": _middle(one.dearer.typical for one in comparison.predicted if one.dearer),
            "energy": _middle(one.hungrier.typical for one in comparison.predicted if one.hungrier),
        }
        for key, comparison in found.items()
    }

    def said(a: str, b: str) -> str:
        at = middle[a, b]
        return ", ".join(f"{_or_unknown(at[name])} times the {name}" for name in ("time", "money", "energy"))

    yield from _three(
        [
            f"A 910B2 beside an A100: {said('ascend_910b2', 'a100_80')}; beside an H100: {said('ascend_910b2', 'h100_sxm')}.",
            f"A 910C beside an H100: {said('ascend_910c', 'h100_sxm')}; beside an H200: {said('ascend_910c', 'h200')}.",
            (
                "Chip-hours go as time does; money is at each chip's own rent where it is let, so it holds what makers, "
                "landlords and scarcity do to prices as well as what chips do."
            ),
        ]
    )
    rows = [["Ascend", "beside", "time and chip-hours", "money at rents", "energy", "rents, USD an hour"]]
    for (a, b), at in middle.items():
        rents = [load.chip(name).rent for name in (a, b)]
        rows.append(
            [
                a, b, _or_unknown(at["time"]), _or_unknown(at["money"]), _or_unknown(at["energy"]),
                " and ".join("unknown" if rent is None else f"{rent.typical_usd_per_h:g} ({rent.as_of})" for rent in rents),
            ]
        )  # fmt: skip
    yield "Middles over kinds of models, by prediction; the intervals of time are in the table above."
    yield ""
    yield from _table(rows)
    yield "Its spread: rents differ by a factor of two to four between landlords (low and high are in the catalogue),"
    yield "which is more than what the chips' speeds differ by. Energy is that of the chip's share of its server under load."
    yield "Not known: what Chinese buyers really pay, discounts, and how much of rented time is idle."


def _middle(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.median(found) if found else None


def _or_unknown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


# --------------------------------------------------------------------------------------------------------- 3: MindSpore


_SAME_MODEL = 0.05  # share by which parameters of one model may differ


def same_model(first: Sequence[MeasuredThroughput], second: Sequence[MeasuredThroughput]) -> list[MeasuredRatio]:
    """Return ratios of time for the same useful FLOPs, of the median runs of one model on each side.

    Lengths, batches and layouts differ: this is the weakest of the three.
    """
    sides: list[dict[tuple[str, str, int], list[MeasuredThroughput]]] = []
    for side in (first, second):
        found: dict[tuple[str, str, int], list[MeasuredThroughput]] = defaultdict(list)
        for run in side:
            if run.is_sure and is_16_bit(run.precision):
                found[run.kind, run.method, round(math.log(run.params) / math.log1p(_SAME_MODEL))].append(run)
        sides.append(found)
    ratios = []
    for key in sorted(sides[0].keys() & sides[1].keys()):
        ones, others = sides[0][key], sides[1][key]
        rates = [statistics.median(run.flops_per_s for run in runs) for runs in (ones, others)]
        ratios.append(
            MeasuredRatio(
                value=rates[1] / rates[0], kind=key[0], model=ones[0].model, first=tuple(ones), second=tuple(others),
                is_pair=False,
            )
        )  # fmt: skip
    return ratios


def _mindspore() -> Iterator[str]:
    yield from _title("How efficient is MindSpore beside PyTorch on the same chip?")
    chip = load.chip("ascend_910b2")
    sides = measured_throughput.runs_on(chip, "mindspore"), measured_throughput.runs_on(chip, "torch")
    exact, ratios = measured_throughput.match_work(*sides), same_model(*sides)
    values = sorted(one.value for one in ratios)
    predicted = compare("ascend_910b2", "ascend_910b2", framework_a="mindspore", framework_b="torch").predicted
    own = [one for one in predicted if one.model.startswith("GLM-Image")]
    bench = _bench()
    words = [
        f"On Ascend 910B, over {len(values)} sizes under both (parameters within 5 %, seldom the same model): MindSpore "
        f"took "
        f"{quantile(values, 0.5):.2f} times as long for the same useful FLOPs in the middle, {values[0]:.2f} to "
        f"{values[-1]:.2f}; lengths, batches and layouts differ."
        if values
        else "On Ascend 910B no model was published under both.",
        "GLM-Image's own stages on a 910B2, by prediction: "
        + "; ".join(
            f"{one.model.split(' ')[1].strip(',')} {one.slower.typical:.2f} times PyTorch's time" for one in own
        )
        + ".",
        "On this project's own model on a CPU, measured: MindSpore compiled took "
        + " and ".join(f"{ratio:.2f} times ({part})" for part, ratio in bench.items())
        + " PyTorch's eager time, which says little about Ascend, for which MindSpore is made.",
    ]
    yield from _three(words)
    yield (
        f"MindSpore's time over PyTorch's for the same useful FLOPs, of the median runs on each side ({len(exact)} of them "
        "were published with the same lengths too):"
    )
    yield ""
    yield from _table(
        [["kind", "size, by one of its names", "time", "runs", "software"]]
        + [
            [
                one.kind, one.model, f"{one.value:.2f}", f"{len(one.first)} and {len(one.second)}",
                "; ".join(sorted({run.framework for run in (*one.first, *one.second)})),
            ]
            for one in ratios
        ]
    )  # fmt: skip
    effects = efficiency.load().effects
    share = {
        name: effect.get("all")
        for level in ("engine", "engine on maker", "family")
        for name, effect in effects.get(level, {}).items()
        if "mindspore" in name.lower() and effect.get("all") is not None
    }
    said = "; ".join(f"`{name}` {math.expm1(value or 0.0):+.0%}" for name, value in share.items())
    yield f"What the fit says of MindSpore against its prior of no difference, as a share of time: {said or 'nothing'}."
    yield ""
    yield "Not known: the same job on the same machine under both, published by somebody who sells neither; no such run was"
    yield "found. `sampan bench` measures it on yours."


def _bench() -> dict[str, float]:
    """Return the newest measurement's ratios of MindSpore, compiled, to PyTorch, eager, by part."""
    found: dict[str, float] = {}
    for path in sorted((ROOT / "results").glob("bench_*.json")):
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for part, table in record.get("parts", {}).items():
            for row in table["results"]:
                if (row["framework"], row["mode"]) == ("mindspore", "compiled") and row.get("ratio"):
                    found[part] = row["ratio"]["median"]
    return found


# ---------------------------------------------------------------------------------------------------------- 4: training


def _plan() -> Plan:
    job = read(JOB, [])
    return verb.plan(job, verb.PlanArguments(all=True), name=f"jobs/{JOB.name}")


def _training() -> Iterator[str]:
    plan = _plan()
    yield from _title("What would training GLM-Image take?")
    rows = {(row.candidate.label, row.candidate.framework, row.site.name): row for row in plan.rows}
    home = [row for (_, _, site), row in rows.items() if site == HOME]
    best: dict[str, PlanRow] = {}
    for row in home:
        if (
            row.candidate.label not in best
            or row.candidate.time_s.typical < best[row.candidate.label].candidate.time_s.typical
        ):
            best[row.candidate.label] = row
    count = home[0].candidate.count
    chips = ", ".join(
        f"{row.candidate.chip.title} {amount(row.candidate.time_s.typical / DAY_S)} days" for row in best.values()
    )
    rents = {name: row.money.usd for name, row in best.items() if row.money.usd is not None}
    low = min(usd.typical for usd in rents.values())
    high = max(usd.typical for usd in rents.values())
    words = [
        f"On {count:,} chips, under the assumption below: {chips}, each within its interval.",
        (
            f"Rented, {amount(low)} to {amount(high)} USD in the middle; nobody but its makers knows tokens and steps, so "
            f"a factor of {FACTOR:g} either way is allowed for: {amount(low / FACTOR)} to {amount(high * FACTOR)} USD."
        ),
        (
            "At home or abroad makes a difference of electricity and carbon; rents are those of the region where the chip is "
            "let, wherever the site is."
        ),
    ]
    yield from _three(words)
    yield f"The assumption is [jobs/{JOB.name}](../jobs/{JOB.name}), with its reasons:"
    yield ""
    for stage in plan.work.stages:
        steps = "" if stage.global_batch is None else f"{stage.num_steps:,.0f} steps of {stage.global_batch:,}, "
        yield (
            f"- {stage.name}: {steps}{stage.num_samples:,.0f} samples, "
            f"{stage.num_samples * stage.workload.flops:.2g} FLOPs"
        )
    yield ""
    yield from _table(
        [
            [
                "chip", "framework", "days (80 %)", f"days, a factor {FACTOR:g} either way", "chip-hours", "rented, USD",
                "bought, USD at home", "layout of the decoder at 1024 px",
            ]
        ]
        + [
            [
                row.candidate.label, row.candidate.framework, between(row.candidate.time_s),
                (f"{amount(row.candidate.time_s.typical / DAY_S / FACTOR)}-"
                f"{amount(row.candidate.time_s.typical / DAY_S * FACTOR)}"),
                amount(row.candidate.chip_hours.typical), _money(row.money.usd), _money(row.bought.usd),
                str(row.candidate.stages[-1].layout),
            ]
            for row in sorted(home, key=lambda row: row.candidate.time_s.typical)
        ]
    )  # fmt: skip
    yield "Energy and carbon at home and abroad, of the faster framework:"
    yield ""
    yield from _table(
        [["chip", "site", "MWh", "t CO2", "electricity alone, USD", "bought and paid off, USD"]]
        + [
            [
                name, site, _thousand(at.energy.kwh), _thousand(at.energy.kg_co2), _electricity(at),
                _money(at.bought.usd),
            ]
            for name, row in best.items()
            for site in (HOME, *ABROAD)
            for at in [rows[name, row.candidate.framework, site]]
        ]
    )  # fmt: skip
    yield "Supposed:"
    yield ""
    yield from (f"- {note}" for note in plan.notes())
    yield ""
    if plan.infeasible:
        yield (
            "Not possible: "
            + "; ".join(f"{one.chip} with {one.framework}: {one.reason}" for one in plan.infeasible)
            + "."
        )
        yield ""
    yield "Not known: samples, tokens and steps of the release; restarts, failures and experiments that lead to a run, which"
    yield "often take as much again; and whether any of these chips can be had in such numbers at any of these places."


def _money(usd: Interval | None) -> str:
    return "unknown" if usd is None else f"{amount(usd.typical)} ({amount(usd.low)}-{amount(usd.high)})"


def _thousand(span: Interval | None) -> str:
    return "unknown" if span is None else amount(span.typical / 1000)


def _electricity(row: PlanRow) -> str:
    kwh, price = row.energy.kwh, row.site.electricity_usd_per_kwh
    return "unknown" if kwh is None or price is None else amount(kwh.typical * price)


# ---------------------------------------------------------------------------------------------------------- 5: pictures


def _pictures() -> Iterator[str]:
    job = read(JOB, [f"plan.chips = {json.dumps([*ASCEND, *OTHERS, 'mlu590', 'b200', 'rtx4090'])}"])
    plan = verb.plan(job, verb.PlanArguments(stages=("preparation",), all=True), name=f"jobs/{JOB.name}")
    assert plan.recipe is not None, "a plan has one"
    yield from _title("What does a thousand pictures cost?")
    first: dict[tuple[str, str], InferenceRow] = {}
    for row in plan.pictures:
        if row.estimate.framework == "torch":
            first.setdefault((row.estimate.label, row.site.name), row)
    home = [row for (_, site), row in first.items() if site == HOME and row.usd is not None]
    home.sort(key=lambda row: row.usd.typical if row.usd else math.inf)
    cheap, dear = home[0], home[-1]
    wear = [row for row in home if row.split.power and row.split.depreciation and row.split.markup and row.split.rent]
    words = [
        (
            f"Rented, from {_money(cheap.usd)} USD ({cheap.estimate.chip.title}) to {_money(dear.usd)} USD "
            f"({dear.estimate.chip.title}), for {plan.recipe.said()}."
        ),
        (
            f"Power is {_share(wear, 'power')} of the rent in the middle, wear {_share(wear, 'depreciation')}, and the "
            f"rest, {_share(wear, 'markup')}, is mark-up: server, building, staff, interest, profit and empty hours."
        ),
        (
            "The generator writes tokens one by one and waits for memory; the decoder computes: which chip is cheap depends "
            "on both, and a chip that cannot hold both parts at once does one after the other."
        ),
    ]
    yield from _three(words)
    yield from _table(
        [
            [
                "chip",
                "site",
                "time",
                "at once",
                "one alone",
                "rent, USD",
                "of it power",
                "wear",
                "mark-up",
                "kWh",
                "kg CO2",
                "rests on",
            ]
        ]
        + [
            [
                row.estimate.label,
                row.site.name,
                between(row.estimate.time_s),
                f"{row.estimate.batch}{', one part at a time' if row.estimate.is_offloaded else ''}",
                between(row.estimate.alone_s),
                _money(row.split.rent),
                _typical(row.split.power),
                _typical(row.split.depreciation),
                _typical(row.split.markup),
                _typical(row.energy.kwh),
                _typical(row.energy.kg_co2),
                f"{row.estimate.num_measurements or ''} {row.estimate.basis}".strip(),
            ]
            for row in first.values()
        ]
    )  # fmt: skip
    for one in plan.not_made:
        if one.framework == "torch":
            yield f"- {one.chip}: {one.reason}"
    yield ""
    yield "Its spread: the interval of the time times the span of rents. A chip that is owned already costs its power alone."
    yield "Not known: how a server with many users fills its"
    yield "chips; published times for GLM-Image exist for an H100 alone (its README), and are behind one number of the model."


def _share(rows: Sequence[InferenceRow], part: str) -> str:
    values = [getattr(row.split, part).typical / row.split.rent.typical for row in rows if row.split.rent]
    return f"{statistics.median(values):.0%}" if values else "an unknown share"


def _typical(span: Interval | None) -> str:
    return "unknown" if span is None else amount(span.typical)


# ---------------------------------------------------------------------------------------------------------------- words


def _title(words: str) -> Iterator[str]:
    yield ""
    yield f"## {words}"
    yield ""


def _three(lines: Sequence[str]) -> Iterator[str]:
    assert len(lines) == 3, "each answer is three lines first"
    for line in lines:
        yield f"> {line}  "
    yield ""


def _table(rows: Table) -> Iterator[str]:
    head, *rest = rows
    if not rest:
        yield "Nothing is known."
    else:
        yield "| " + " | ".join(head) + " |"
        yield "|" + " --- |" * len(head)
        for row in rest:
            yield "| " + " | ".join(cell.replace("|", "/") for cell in row) + " |"
    yield ""


if __name__ == "__main__":
    main()
