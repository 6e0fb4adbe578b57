"""A plan as one HTML file: the answer, drawings, tables, and where every number comes from. No script, nothing loaded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from html import escape
from typing import Any

from sampan.catalog.records import Chip, Site
from sampan.plan import inference
from sampan.plan.charts import Bar, Point, TornadoBar, curves, scatter, stacked, tornado
from sampan.plan.cost import HOUR_S
from sampan.plan.memory import ChipMemory
from sampan.plan.planner import Candidate
from sampan.plan.rank import PlanRow, best_inference_sites, best_sites
from sampan.plan.records import Interval
from sampan.plan.report import Plan
from sampan.plan.sensitivity import InputSwing, sensitivity, share
from sampan.plan.table import amount, between, layouts, marks, money, reasons
from sampan.report.frame import page as frame
from sampan.report.frame import table
from sampan.units import UNKNOWN, format_bytes, format_seconds

_BEST = 8  # rows that are drawn
_FIRST = 15  # rows that are seen at once; the others unfold
_STYLE = """
body { max-width: 76rem; } figure { max-width: 60rem; } td.wrap { min-width: 22rem; } td { vertical-align: top; }
p.answer { font-size: 1.15rem; } .answers { border-left: 4px solid #2f6f9f; padding-left: 1rem; }
.small { font-size: 13px; } li { margin: .2rem 0; }
"""


def page(plan: Plan) -> str:
    """Return the whole file."""
    title = f"sampan plan: {plan.work.name}"
    # where rules differ from site to site, every site has its row
    best = list(plan.rows) if plan.notes_on_rows else best_sites(plan.rows)
    return frame(title, [f"<h1>{escape(title)}</h1>", *_answer(plan, best), *_body(plan, best)], _STYLE)


def plain(title: str, lines: Sequence[str]) -> str:
    """Return a page of lines."""
    return frame(title, [f"<h1>{escape(title)}</h1>", f"<pre>{escape(chr(10).join(lines))}</pre>"])


def _answer(plan: Plan, best: Sequence[PlanRow]) -> Iterator[str]:
    """Yield the first row in plain words."""
    if not best:
        yield '<div class="answers"><p class="answer">Nothing that was asked for can do this job.</p></div>'
        return
    row = best[0]
    used = row.energy
    carbon = "carbon unknown" if used.kg_co2 is None else f"{amount(used.kg_co2.typical)} kg CO2"
    said = [
        (
            f"First by {plan.sort}: {row.candidate.count} x {row.candidate.chip.title} with {row.candidate.framework} "
            f"in {row.site.region}."
        ),
        f"It takes {between(row.candidate.time_s)} and costs {_usd(row)} USD ({_BASIS[row.money.basis]}).",
        f"It uses {_of(used.kwh)} kWh; {carbon}.",
        f"80 % of times lie within the range; the speeds rest on {_rests_on(row)}.",
    ]
    if row.note is not None:
        said.append(f"Rules say of it: {row.note.text}.")
    if row.misses:
        said.append(f"It does not keep the limits: {'; '.join(row.misses)}.")
    yield '<div class="answers">' + "".join(f'<p class="answer">{escape(line)}</p>' for line in said) + "</div>"


_BASIS = {"rent": "rented", "bought": "bought and paid off", "owned": "owned: electricity alone"}


def _usd(row: PlanRow) -> str:
    return "an unknown number of" if row.money.usd is None else money(row).removesuffix(" o")


def _of(span: Interval | None) -> str:
    return UNKNOWN if span is None else amount(span.typical)


def _rests_on(row: PlanRow) -> str:
    numbers = [stage.prediction for stage in row.candidate.stages]
    return min(numbers, key=lambda one: one.num_measurements).rests_on


def _body(plan: Plan, best: Sequence[PlanRow]) -> Iterator[str]:
    if best:
        yield _title("Rows")
        yield _ranking(best[:_FIRST])
        if len(best) > _FIRST:
            yield f"<details><summary>{len(best) - _FIRST} more rows</summary>{_ranking(best[_FIRST:], _FIRST)}</details>"
        yield _words([_LEGEND])
        if plan.notes_on_rows:
            yield _title("Rules")
            yield _words(plan.notes_on_rows)
        yield _title("Time against money")
        yield from _time_and_money(best)
        yield _title("How time falls with the number of chips")
        yield from _scaling(plan, best)
        shown = _distinct(best)
        yield _title("What a step is made of")
        yield stacked("seconds of an update, or of a pass where nothing is trained, by what takes them", _steps(shown))
        yield _title("Memory of a chip")
        yield stacked(
            "bytes of the fullest chip by what takes them; the line is what the chip has", _memory(plan, shown)
        )
        yield _title("What moves the first row")
        yield from _tornados(plan, best[0])
        yield _title("Layouts of the first row")
        yield _words(layouts(best[0].candidate))
    if plan.recipe is not None and plan.pictures:
        yield _title(f"Then {inference.NUM_PICTURES:,} pictures, on one chip")
        yield _words(
            [f"{plan.recipe.said()}; what its rent pays for is power, wear (the chip's price over years) and mark-up."]
        )
        yield _pictures(plan)
    if plan.infeasible or plan.not_made:
        yield _title("What cannot be done")
        made = [f"pictures on {one.chip} with {one.framework}: {one.reason}" for one in plan.not_made]
        yield _words([*reasons(plan.infeasible), *made])
    yield _title("What was supposed")
    yield _words(plan.notes())
    yield _title("The job")
    yield _stages(plan)
    yield _title("Sources: chips")
    yield _chips(plan, best)
    yield _title("Sources: sites")
    yield _sites(plan.sites)
    yield _title("Sources: speeds")
    yield _words([*_speeds(best), plan.efficiency or "Efficiencies were given by the caller."])


_LEGEND = (
    "* no other row is both quicker and cheaper; ! misses a limit; § and grey: a rule restricts it; o owned: its electricity "
    "alone. In parentheses 80 % intervals of times; of money the low price over the short time and the high one over the "
    "long. Without an actor each row stands at the first of its sites."
)


def _ranking(rows: Sequence[PlanRow], after: int = 0) -> str:
    head = [
        "", "chip", "chips", "framework", "site", "rules", "time", "chip-hours", "USD", "USD if bought", "kWh", "kg CO2",
        "layout",
    ]  # fmt: skip
    body = [
        [
            f"{number}{marks(row)}", row.candidate.chip.title, f"{row.candidate.count:,}", row.candidate.framework,
            row.site.name, "" if row.note is None else row.note.text,
            between(row.candidate.time_s), amount(row.candidate.chip_hours.typical), money(row), _of(row.bought.usd),
            _of(row.energy.kwh), _of(row.energy.kg_co2),
            "; ".join(dict.fromkeys(str(stage.layout) for stage in row.candidate.stages)),
        ]
        for number, row in enumerate(rows, start=after + 1)
    ]  # fmt: skip
    classes = ["", "", "number", "", "", "wrap", "", "number", "", "number", "number", "number", "wrap"]
    grey = [number for number, row in enumerate(rows) if row.is_restricted]
    asked = any(row.note is not None for row in rows)
    at = head.index("rules")
    if not asked:
        head, classes = ([*one[:at], *one[at + 1 :]] for one in (head, classes))
        body = [[*line[:at], *line[at + 1 :]] for line in body]
    return table([head, *body], classes, grey)


def _time_and_money(best: Sequence[PlanRow]) -> Iterator[str]:
    points = [
        Point(
            name=_name(row.candidate), x=row.candidate.time_s.typical / HOUR_S, y=usd.typical,
            x_ends=(row.candidate.time_s.low / HOUR_S, row.candidate.time_s.high / HOUR_S), y_ends=(usd.low, usd.high),
            is_on_front=row.is_on_front,
        )
        for row in best
        if (usd := row.money.usd) is not None and usd.low > 0
    ]  # fmt: skip
    if not points:
        yield _words(["No row's money is known."])
        return
    unit, size = ("days", 24.0) if max(p.x for p in points) > 48 else ("hours", 1.0)
    scaled = [
        Point(
            name=p.name, x=p.x / size, y=p.y, x_ends=(p.x_ends[0] / size, p.x_ends[1] / size), y_ends=p.y_ends,
            is_on_front=p.is_on_front,
        )
        for p in points
    ]  # fmt: skip
    caption = "each point is a row; joined and with intervals those that none beats in both"
    yield scatter(caption, scaled, unit, "USD", _mark, _mark)
    unknown = sorted({row.candidate.label for row in best if row.money.usd is None})
    if unknown:
        yield _words([f"Not drawn, because their price is not known: {', '.join(unknown)}."])


def _scaling(plan: Plan, best: Sequence[PlanRow]) -> Iterator[str]:
    order = list(dict.fromkeys((row.candidate.label, row.candidate.framework) for row in best))
    lines = []
    for key in order[:_BEST]:
        candidates = sorted(
            (candidate for candidate in plan.curves if (candidate.label, candidate.framework) == key),
            key=lambda candidate: candidate.count,
        )
        lines.append(
            (key[0], [(float(candidate.count), candidate.time_s.typical / HOUR_S) for candidate in candidates])
        )
    caption = "time of the whole job; dotted where twice the chips would take half the time"
    yield curves(caption, [line for line in lines if line[1]], "chips", "hours", _mark, _mark)
    if len(order) > _BEST:
        yield _words([f"Drawn are the {_BEST} chips that come first; the others are in the table."])


def _distinct(best: Sequence[PlanRow]) -> list[PlanRow]:
    """Return the first row of each chip, as many as are drawn."""
    first: dict[str, PlanRow] = {}
    for row in best:
        first.setdefault(row.candidate.label, row)
    return list(first.values())[:_BEST]


def _steps(rows: Iterable[PlanRow]) -> list[Bar]:
    return [
        Bar(
            name=f"{_name(row.candidate)}: {stage.name}",
            parts=[
                (name.removesuffix("_s").replace("_", " "), seconds) for name, seconds in stage.prediction.parts.items()
            ],
            said=format_seconds(stage.prediction.step_s),
        )
        for row in rows
        for stage in row.candidate.stages
    ]


def _memory(plan: Plan, rows: Iterable[PlanRow]) -> list[Bar]:
    found = []
    for row in rows:
        fullest = max((stage.memory for stage in row.candidate.stages), key=lambda memory: memory.total)
        parts = [(f.name, getattr(fullest, f.name)) for f in fields(ChipMemory)]
        found.append(
            Bar(
                name=_name(row.candidate),
                parts=parts,
                said=format_bytes(fullest.total),
                limit=row.candidate.chip.memory.bytes,
            )
        )
    return found


def _tornados(plan: Plan, row: PlanRow) -> Iterator[str]:
    moved = sensitivity(row, plan.work, plan.assumptions)
    yield from _tornado("time", moved, [share(one.time_s, row.candidate.time_s) for one in moved])
    basis = _BASIS[row.money.basis]
    yield from _tornado(f"money, {basis}", moved, [share(one.usd, row.money.usd) for one in moved])
    yield from _tornado("money, if bought", moved, [share(one.bought_usd, row.bought.usd) for one in moved])


def _tornado(what: str, moved: Sequence[InputSwing], shares: Sequence[tuple[float, float] | None]) -> Iterator[str]:
    swings = [
        TornadoBar(
            name=one.name, low=ends[0], high=ends[1],
            said=f"{ends[0] - 1:+.0%} to {ends[1] - 1:+.0%} ({one.ends[0]} to {one.ends[1]})",
        )
        for one, ends in zip(moved, shares, strict=True)
        if ends is not None and max(abs(ends[0] - 1), abs(ends[1] - 1)) >= 0.005
    ]  # fmt: skip
    swings.sort(key=lambda one: -abs(one.high - one.low))
    if swings:
        yield tornado(f"{what}: what becomes of it when one input moves and the others stay", swings)


def _pictures(plan: Plan) -> str:
    head = [
        "chip", "framework", "site", "time", "at once", "one alone", "rent, USD", "power", "wear", "mark-up", "kWh", "kg CO2",
        "measurements",
    ]  # fmt: skip
    body = [
        [
            row.estimate.chip.title, row.estimate.framework, row.site.name, between(row.estimate.time_s),
            f"{row.estimate.batch}{', one part at a time' if row.estimate.is_offloaded else ''}",
            between(row.estimate.alone_s), _of(row.split.rent), _of(row.split.power), _of(row.split.depreciation),
            _of(row.split.markup), _of(row.energy.kwh), _of(row.energy.kg_co2),
            f"{row.estimate.num_measurements or ''} {row.estimate.basis}".strip(),
        ]
        for row in best_inference_sites(plan.pictures)
    ]  # fmt: skip
    return table([head, *body], ["", "", "", "", "number", "", *["number"] * 6, "wrap"])


def _stages(plan: Plan) -> str:
    head = ["stage", "parameters", "trained", "FLOPs of a sample", "steps", "samples of a step", "samples"]
    body = [
        [
            stage.name, f"{stage.workload.params:,.0f}", f"{stage.workload.trained_params:,.0f}",
            f"{stage.workload.flops:.4g}", f"{stage.num_steps:,.0f}",
            "as suits the chip" if stage.global_batch is None else f"{stage.global_batch:,}", f"{stage.num_samples:,.0f}",
        ]
        for stage in plan.work.stages
    ]  # fmt: skip
    return table([head, *body], ["", *["number"] * 6])


def _chips(plan: Plan, best: Sequence[PlanRow]) -> str:
    used = {row.candidate.label for row in best} | {one.chip for one in plan.infeasible}
    head = [
        "chip", "launched", "peak bf16", "memory", "bandwidth", "power", "rent, USD an hour", "price, USD", "confidence",
        "from memory", "sources",
    ]  # fmt: skip
    body = [_chip(chip) for chip in plan.chips if chip.label in used]
    return table([head, *body], ["", "", "number", "number", "number", "number", "", "", "", "wrap", "wrap"])


def _chip(chip: Chip) -> list[str]:
    rent, price, peak = chip.rent, chip.price, chip.peak("bf16") or chip.peak("fp16")
    return [
        chip.title,
        chip.launched or UNKNOWN,
        UNKNOWN if peak is None else f"{peak / 1e12:,.0f} TFLOP/s",
        UNKNOWN if chip.memory.bytes is None else f"{chip.memory.bytes / 1e9:,.0f} GB",
        UNKNOWN if chip.memory.bytes_per_s is None else f"{chip.memory.bytes_per_s / 1e12:.2f} TB/s",
        UNKNOWN if chip.board_power_w is None else f"{chip.board_power_w:,.0f} W",
        UNKNOWN
        if rent is None
        else f"{rent.low_usd_per_h:g} / {rent.typical_usd_per_h:g} / {rent.high_usd_per_h:g} ({rent.region or '?'}, "
        f"{rent.as_of or '?'})",
        UNKNOWN if price is None else f"{price.usd:,.0f} ({price.region or '?'}, {price.year or '?'})",
        chip.confidence,
        ", ".join(chip.from_memory) or "nothing",
        "; ".join(chip.sources) or "none",
    ]


def _sites(sites: Sequence[Site]) -> str:
    head = ["site", "region", "USD a kWh", "overhead (PUE)", "g CO2 a kWh", "confidence", "from memory", "sources"]
    body = [
        [
            site.name, site.region, _with_year(site.electricity_usd_per_kwh, site.electricity_year),
            UNKNOWN if site.pue is None else f"{site.pue:g}", _with_year(site.grid_g_co2_per_kwh, site.grid_year),
            site.confidence, ", ".join(site.from_memory) or "nothing", "; ".join(site.sources) or "none",
        ]
        for site in sites
    ]  # fmt: skip
    return table([head, *body], ["", "", "", "number", "", "", "wrap", "wrap"])


def _with_year(value: float | None, year: str | None) -> str:
    return UNKNOWN if value is None else f"{value:g} ({year or '?'})"


def _speeds(best: Sequence[PlanRow]) -> Iterator[str]:
    seen: Mapping[str, Any] = {}
    for row in best:
        for stage in row.candidate.stages:
            prediction = stage.prediction
            line = f"{row.candidate.label}, {row.candidate.framework}: {prediction.rests_on}"
            if line not in seen:
                seen = {**seen, line: None}
                yield line


def _mark(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.6g}"


def _name(candidate: Candidate) -> str:
    return f"{candidate.count} x {candidate.label}"


def _title(words: str) -> str:
    return f"<h2>{escape(words)}</h2>"


def _words(lines: Iterable[str]) -> str:
    return '<ul class="small">' + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"
