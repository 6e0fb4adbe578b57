"""A plan as tables for a terminal of 100 columns; colour carries nothing."""

from __future__ import annotations

import re
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from sampan.plan.assumptions import DAY_S, HOUR_S, Span
from sampan.plan.options import Way
from sampan.plan.rank import Row, best_sites
from sampan.plan.report import Plan
from sampan.plan.search import Infeasible
from sampan.units import UNKNOWN, format_bytes, format_seconds

MAX_ROWS = 20
_LEGEND = (
    "* no other row is both quicker and cheaper; ! misses a limit; o owned: its electricity alone, others are rented. "
    "80 % of times lie between those in parentheses; money there is the low price over the short time and the high one "
    "over the long."
)


def show(plan: Plan, console: Any) -> None:
    """Print a plan."""

    def say(words: str = "", indent: str = "") -> None:
        # by hand, so that what goes on in the next line is seen to
        lines = textwrap.wrap(words, console.width, initial_indent=indent, subsequent_indent=indent and f"{indent}  ")
        console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)

    say(f"{plan.work.name}: {', '.join(stage.name for stage in plan.work.stages)}")
    configurations = best_sites(plan.rows)
    if configurations:
        say()
        shown = _shown(configurations)
        _table(console, _COLUMNS, shown, lambda name: name in _columns(plan))
        say(_LEGEND)
        if len(shown) < len(configurations):
            say(f"{len(configurations) - len(shown)} more rows: --json or --html has all.")
        first = configurations[0]
        say()
        say(f"First row: {_named(first)}; {first.money.said}; {first.bought.said}.")
        for line in layouts(first.way):
            say(line, "  ")
        if len(plan.sites) > 1:
            say()
            say("First row by site:")
            at_sites = [(0, row) for row in plan.rows if row.key == first.key]
            _table(console, _COLUMNS, at_sites, lambda name: name in ("site", "USD", "if bought", "kWh", "kg CO2"))
    if plan.infeasible:
        say()
        say("Left out:")
        for line in reasons(plan.infeasible):
            say(line, "  ")
    say()
    say("Supposed:")
    for note in plan.notes():
        say(note, "  ")


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
        yield f"{', '.join(map(str, counts))} x {', '.join(names)}, {framework}: {reason}"


def money(row: Row) -> str:
    """Return the money of a row: "12,300 (8,100-20,000) o"."""
    usd = row.money.usd
    if usd is None:
        return UNKNOWN
    mark = " o" if row.money.basis == "owned" else ""
    return f"{amount(usd.typical)} ({amount(usd.low)}-{amount(usd.high)}){mark}"


def amount(value: float | None) -> str:
    """Return a number in three digits, or in as many as it has before the point."""
    if value is None:
        return UNKNOWN
    if value >= 99.95:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}" if value >= 0.01 or not value else f"{value:.1g}"


def between(span: Span) -> str:
    """Return a time and its interval in one unit: "3.2 d (2.8-3.7)"."""
    unit, size = next((u for u in _UNITS if span.typical >= u[1]), _UNITS[-1])
    return f"{amount(span.typical / size)} {unit} ({amount(span.low / size)}-{amount(span.high / size)})"


_UNITS = (("d", DAY_S), ("h", HOUR_S), ("min", 60.0), ("s", 1.0))


def marks(row: Row) -> str:
    """Return "*" of a row on the front, "!" of one that misses a limit."""
    return ("*" if row.is_on_front else "") + ("!" if row.misses else "")


def _typical(span: Span | None) -> str:
    return UNKNOWN if span is None else amount(span.typical)


_COLUMNS: dict[str, Callable[[int, Row], str]] = {
    "": lambda number, row: f"{number}{marks(row)}",
    "chip": lambda _, row: row.way.label,
    "n": lambda _, row: f"{row.way.count:,}",
    "framework": lambda _, row: row.way.framework,
    "site": lambda _, row: row.site.name,
    "time": lambda _, row: between(row.way.time_s),
    "chip-h": lambda _, row: _typical(row.way.chip_hours),
    "USD": lambda _, row: money(row),
    "if bought": lambda _, row: _typical(row.bought.usd),
    "kWh": lambda _, row: _typical(row.energy.kwh),
    "kg CO2": lambda _, row: _typical(row.energy.kg_co2),
}
_NUMBERS = ("n", "chip-h", "if bought", "kWh", "kg CO2")


def _columns(plan: Plan) -> list[str]:
    """Return the columns of the ranking: what is the same in every row has none."""
    same = set()
    if len({row.way.framework for row in plan.rows}) == 1:
        same.add("framework")
    return [name for name in _COLUMNS if name not in same]


def _shown(configurations: Sequence[Row]) -> list[tuple[int, Row]]:
    """Return the first rows, and those further down that are on the front."""
    numbered = list(enumerate(configurations, start=1))
    return [(n, row) for n, row in numbered if n <= MAX_ROWS or (row.is_on_front and n <= 4 * MAX_ROWS)]


def _named(row: Row) -> str:
    return f"{row.way.count} x {row.way.chip.title}, {row.way.framework}, {row.site.region}"


def layouts(way: Way) -> Iterator[str]:
    """Yield how each stage lies on the chips, a line each."""
    for stage in way.stages:
        option = stage.option
        yield (
            f"{stage.name}: {stage.num_steps:,.0f} steps of {format_seconds(option.prediction.step_s)} on "
            f"{option.layout}; {format_bytes(option.memory.total)} a chip; {option.prediction.num_measurements} "
            f"measurements ({option.prediction.basis})"
        )


def _table(
    console: Any,
    columns: dict[str, Callable[[int, Row], str]],
    rows: Iterable[tuple[int, Row]],
    wanted: Callable[[str], bool],
) -> None:
    from rich.table import Table

    names = [name for name in columns if wanted(name)]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in names:
        # numbers are never cut in two; a name may go on in the next line
        table.add_column(name, justify="right" if name in _NUMBERS else "left", no_wrap=name != "site", overflow="fold")
    for number, row in rows:
        table.add_row(*(columns[name](number, row) for name in names))
    console.print(table, markup=False, highlight=False)
