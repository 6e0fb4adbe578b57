"""A plan as tables for a terminal; colour carries nothing. A narrow terminal leaves columns out and says which."""

from __future__ import annotations

import re
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from sampan.plan import runnable
from sampan.plan.cost import DAY_S, HOUR_S
from sampan.plan.inference import NUM_PICTURES
from sampan.plan.planner import Candidate, Infeasible
from sampan.plan.rank import PlanRow, best_inference_sites, best_sites
from sampan.plan.records import Interval
from sampan.plan.report import Plan
from sampan.units import UNKNOWN, format_bytes, format_seconds

MAX_ROWS = 20
MAX_PICTURE_ROWS = 8
_MAX_NAMES = 6  # of chips that share a reason
_FIRST = {"money": "Cheapest", "time": "Quickest", "energy": "Least energy", "carbon": "Least carbon"}
_BRACKETS = (
    "In brackets: 80 % of such predictions lie between for times; for money the low price over the short time and the "
    "high price over the long."
)
_LEAST_WIDTH = 60


def show(plan: Plan, console: Any) -> None:
    """Print a plan."""
    width = max(_LEAST_WIDTH, console.width)
    for line in lines(plan, width):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def lines(plan: Plan, width: int) -> Iterator[str]:
    """Yield a plan as lines of at most `width`, so far as their words allow."""

    def say(words: str, indent: str = "") -> Iterator[str]:
        yield from textwrap.wrap(
            words, width, initial_indent=indent, subsequent_indent=indent and f"{indent}  ", break_on_hyphens=False
        )

    yield from say(f"{plan.work.name}: {', '.join(stage.name for stage in plan.work.stages)}")
    # where rules differ from site to site, every site has its row
    configurations = list(plan.rows) if plan.notes_on_rows else best_sites(plan.rows)
    if configurations:
        shown = _shown(configurations)
        yield ""
        yield from _table(_COLUMNS, shown, width, _same(plan.rows), say)
        yield from say(_legend(plan))
        if len(shown) < len(configurations):
            yield from say(f"{len(configurations) - len(shown)} more rows: --json or --html has all.")
        yield from (line for words in (*runnable.lines(plan.rows), *unmet(plan)) for line in say(words))
        first = configurations[0]
        yield ""
        yield from say(f"{_FIRST[plan.sort]}: {_named(first)}; {first.money.said}; {first.bought.said}.")
        for words in layouts(first.candidate):
            yield from say(words, "  ")
        if plan.notes_on_rows:
            yield ""
            yield from (line for words in plan.notes_on_rows for line in say(words))
        elif len(plan.sites) > 1:
            yield ""
            yield from say("The same at each site:")
            at_sites = [(0, row) for row in plan.rows if row.key == first.key]
            yield from _table(_COLUMNS, at_sites, width, set(_COLUMNS) - set(_AT_SITES), say)
    if plan.recipe is not None:
        yield ""
        yield from _pictures(plan, width, say)
    if plan.infeasible:
        yield ""
        yield from say("Left out:")
        for words in reasons(plan.infeasible):
            yield from say(words, "  ")
    yield ""
    yield from say("Supposed:")
    for note in plan.notes():
        yield from say(note, "  ")


def _pictures(plan: Plan, width: int, say: Callable[..., Iterator[str]]) -> Iterator[str]:
    assert plan.recipe is not None, "the caller sees to it"
    yield from say(f"Then {NUM_PICTURES:,} pictures of {plan.recipe.said()}, on one chip:")
    found = best_inference_sites(plan.pictures)
    if found:
        numbered = list(enumerate(found, start=1))[:MAX_PICTURE_ROWS]
        same = {"framework"} if len({row.estimate.framework for row in found}) == 1 else set()
        yield from _table(_PICTURE_COLUMNS, numbered, width, same, say)
        if len(found) > len(numbered):
            yield from say(f"{len(found) - len(numbered)} more chips: --json or --html has all.")
    for words in _not_made(plan.not_made):
        yield from say(words, "  ")


def _not_made(found: Iterable[Infeasible]) -> Iterator[str]:
    alike: dict[tuple[str, str], list[Infeasible]] = defaultdict(list)
    for one in found:
        alike[one.framework, re.sub(r"\d[\d,.]*", "", one.reason)].append(one)
    for (framework, _), same in alike.items():
        yield f"{_names([one.chip for one in same])}, {framework}: {same[0].reason}"


def unmet(plan: Plan) -> Iterator[str]:
    """Yield what to know where no row keeps the limits."""
    if not plan.rows or any(not row.misses for row in plan.rows):
        return
    quickest = min(plan.rows, key=lambda row: row.candidate.time_s.typical)
    words = f"No row keeps the limits. The quickest takes {between(quickest.candidate.time_s)} ({_short(quickest)})"
    known = [row for row in plan.rows if row.money.usd is not None]
    if known:
        cheapest = min(known, key=lambda row: row.money.usd.typical if row.money.usd else 0.0)
        words += f"; the cheapest costs {money(cheapest)} USD ({_short(cheapest)})"
    yield f"{words}."


def _short(row: PlanRow) -> str:
    return f"{row.candidate.count} x {row.candidate.label}"


def reasons(infeasible: Iterable[Infeasible]) -> Iterator[str]:
    """Yield what cannot be done; reasons that differ in numbers alone are one line, with the first of them."""
    alike: dict[tuple[str, str, str], list[Infeasible]] = defaultdict(list)
    for one in infeasible:
        alike[one.chip, one.framework, re.sub(r"\d[\d,.]*", "", one.reason)].append(one)
    chips: dict[tuple[str, tuple[int, ...], str], list[str]] = defaultdict(list)
    for (chip, framework, _), found in alike.items():
        counts = tuple(dict.fromkeys(one.count for one in found))
        chips[framework, counts, found[0].reason].append(chip)
    for (framework, counts, reason), names in chips.items():
        yield f"{', '.join(map(str, counts))} x {_names(names)}, {framework}: {reason}"


def _names(names: Sequence[str]) -> str:
    if len(names) <= _MAX_NAMES + 1:
        return ", ".join(names)
    return f"{', '.join(names[:_MAX_NAMES])} and {len(names) - _MAX_NAMES} other chips"


def money(row: PlanRow) -> str:
    """Return the money of a row: "12,300 (8,100-20,000) o"."""
    mark = " o" if row.money.basis == "owned" and row.money.usd is not None else ""
    return _usd(row.money.usd) + mark


def _usd(span: Interval | None) -> str:
    return UNKNOWN if span is None else f"{amount(span.typical)} ({amount(span.low)}-{amount(span.high)})"


def amount(value: float | None) -> str:
    """Return a number in three digits, or in as many as it has before the point; two below a hundredth."""
    if value is None:
        return UNKNOWN
    size = abs(value)
    if size >= 99.95:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:#.3g}" if size >= 0.00995 else f"{value:.2g}"


def between(span: Interval) -> str:
    """Return a time and its interval in one unit: "3.20 d (2.80-3.70)"."""
    unit, size = next((u for u in _UNITS if span.typical >= u[1]), _UNITS[-1])
    return f"{amount(span.typical / size)} {unit} ({amount(span.low / size)}-{amount(span.high / size)})"


_UNITS = (("d", DAY_S), ("h", HOUR_S), ("min", 60.0), ("s", 1.0))


def marks(row: PlanRow) -> str:
    """Return "*" of a row on the front, "!" of one that misses a limit, "§" of one that a rule restricts."""
    return ("*" if row.is_on_front else "") + ("!" if row.misses else "") + ("§" if row.is_restricted else "")


def _typical(span: Interval | None) -> str:
    return UNKNOWN if span is None else amount(span.typical)


def _longest(candidate: Candidate) -> str:
    """Return how the stage lies on the chips that takes longest."""
    stage = max(candidate.stages, key=lambda stage: stage.time_s.typical)
    words = str(stage.layout)
    return words if len(candidate.stages) == 1 else f"{stage.name}: {words}"


Columns = Mapping[str, Callable[[int, Any], str]]

_COLUMNS: Columns = {
    "": lambda number, row: f"{number}{marks(row)}",
    "chip": lambda _, row: row.candidate.label,
    "n": lambda _, row: f"{row.candidate.count:,}",
    "framework": lambda _, row: row.candidate.framework,
    "site": lambda _, row: row.site.name,
    "rules": lambda _, row: "" if row.note is None else row.note.cell,
    "train": lambda _, row: "no" if runnable.why_not(row.candidate) else "yes",
    "time": lambda _, row: between(row.candidate.time_s),
    "chip-h": lambda _, row: _typical(row.candidate.chip_hours),
    "USD": lambda _, row: money(row),
    "if bought": lambda _, row: _typical(row.bought.usd),
    "kWh": lambda _, row: _typical(row.energy.kwh),
    "kg CO2": lambda _, row: _typical(row.energy.kg_co2),
    "layout": lambda _, row: _longest(row.candidate),
}
_AT_SITES = ("site", "USD", "if bought", "kWh", "kg CO2")
_PICTURE_COLUMNS: Columns = {
    "": lambda number, row: str(number),
    "chip": lambda _, row: row.estimate.label,
    "framework": lambda _, row: row.estimate.framework,
    "site": lambda _, row: row.site.name,
    "at once": lambda _, row: f"{row.estimate.batch}{' by parts' if row.estimate.is_offloaded else ''}",
    "time": lambda _, row: between(row.estimate.time_s),
    "one alone": lambda _, row: format_seconds(row.estimate.alone_s.typical),
    "USD": lambda _, row: _usd(row.usd) + (" o" if row.is_owned else ""),
    "= power": lambda _, row: _typical(row.split.power),
    "+ wear": lambda _, row: _typical(row.split.depreciation),
    "+ mark-up": lambda _, row: _typical(row.split.markup),
    "kWh": lambda _, row: _typical(row.energy.kwh),
    "kg CO2": lambda _, row: _typical(row.energy.kg_co2),
}
_RIGHT = ("n", "chip-h", "if bought", "kWh", "kg CO2", "at once", "one alone", "= power", "+ wear", "+ mark-up")
_DROPPED = (
    "layout",
    "chip-h",
    "one alone",
    "kg CO2",
    "at once",
    "if bought",
    "kWh",
    "+ mark-up",
    "+ wear",
    "= power",
)
"""What a narrow terminal does without, first what it misses least."""


def _same(rows: Sequence[PlanRow]) -> set[str]:
    """Return the columns that say the same in every row."""
    same = {"framework"} if len({row.candidate.framework for row in rows}) == 1 else set()
    same |= set() if any(runnable.why_not(row.candidate) for row in rows) else {"train"}
    return same | ({"rules"} if all(row.note is None for row in rows) else set())


def _legend(plan: Plan) -> str:
    legend = ["* no other row is both quicker and cheaper"]
    if any(row.misses for row in plan.rows):
        legend.append("! misses a limit")
    if any(row.is_restricted for row in plan.rows):
        legend.append("§ a rule restricts it")
    if any(row.money.basis == "owned" for row in plan.rows):
        legend.append("o owned: its electricity alone, others are rented")
    return f"{'; '.join(legend)}. {_BRACKETS}"


def _shown(configurations: Sequence[PlanRow]) -> list[tuple[int, PlanRow]]:
    """Return the first rows, and those further down that are on the front."""
    numbered = list(enumerate(configurations, start=1))
    return [(n, row) for n, row in numbered if n <= MAX_ROWS or (row.is_on_front and n <= 4 * MAX_ROWS)]


def _named(row: PlanRow) -> str:
    return f"{row.candidate.count} x {row.candidate.chip.title}, {row.candidate.framework}, {row.site.region}"


def layouts(candidate: Candidate) -> Iterator[str]:
    """Yield how each stage lies on the chips, a line each."""
    for stage in candidate.stages:
        prediction = stage.prediction
        yield (
            f"{stage.name}: {stage.num_steps:,.0f} steps of {format_seconds(prediction.step_s)} on {stage.layout}; "
            f"{format_bytes(stage.memory.total)} a chip; {prediction.num_measurements} measurements ({prediction.basis})"
        )


def _table(
    columns: Columns,
    rows: Sequence[tuple[int, Any]],
    width: int,
    without: set[str],
    say: Callable[..., Iterator[str]],
) -> Iterator[str]:
    """Yield rows in columns that fit into the width, and what had to be left out for that."""
    cells = {
        name: [name, *(of(number, row) for number, row in rows)] for name, of in columns.items() if name not in without
    }
    widths = {name: max(map(len, column)) for name, column in cells.items()}
    dropped = []
    for name in _DROPPED:
        if sum(widths.values()) + 2 * (len(widths) - 1) <= width:
            break
        if name in widths:
            del widths[name]
            dropped.append(name)
    for at in range(len(rows) + 1):
        yield "  ".join(
            cells[name][at].rjust(size) if name in _RIGHT else cells[name][at].ljust(size)
            for name, size in widths.items()
        ).rstrip()
    if left := [name.lstrip("=+ ") for name in columns if name in dropped and name != "layout"]:
        yield from say(f"A wider terminal also has {', '.join(left)}.")
