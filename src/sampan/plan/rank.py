"""Candidates at sites: what each costs, which is first, and which none beats in both time and money."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeVar

from sampan.catalog.records import Site
from sampan.plan import cost
from sampan.plan.cost import DAY_S, Assumptions, Energy, Money, RentSplit, energy
from sampan.plan.inference import InferenceEstimate
from sampan.plan.planner import Candidate
from sampan.plan.records import Interval

Sort = Literal["money", "time", "energy", "carbon"]
SORTS: tuple[Sort, ...] = ("money", "time", "energy", "carbon")
Owned = Mapping[tuple[str, str], int]
"""Chips that are there already, by names of chip and site."""


@dataclass(frozen=True, kw_only=True)
class RowNote:
    """What is said of a row from outside the plan, such as which rules bear on it; the plan only prints it.

    Args:
        cell: For a column of a table: a word or two.
        text: The same with its reasons, for a page.
        document: The same as JSON can hold it.
        is_restricted: Whether the row may not be used as it is. Such rows stand last.
    """

    cell: str
    text: str
    document: Mapping[str, Any]
    is_restricted: bool = False


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """A candidate at a site.

    Args:
        money: For what the chips are had: owned already, else rented.
        bought: What it would be if the chips were bought for it.
        misses: Limits that it does not keep, in words.
        is_on_front: No other row is as quick and as cheap, and better in one of them.
        note: What is said of it from outside; None where nobody was asked.
    """

    candidate: Candidate
    site: Site
    money: Money
    bought: Money
    energy: Energy
    misses: tuple[str, ...] = ()
    is_on_front: bool = False
    note: RowNote | None = None

    @property
    def is_restricted(self) -> bool:
        """Whether its note restricts it."""
        return self.note is not None and self.note.is_restricted

    @property
    def key(self) -> tuple[str, int, str]:
        """What it has in common with its rows at other sites."""
        return self.candidate.label, self.candidate.count, self.candidate.framework


class NoteColumn(Protocol):
    """Says something of every row of a plan, and all of it once more in sentences."""

    def note(self, row: PlanRow) -> RowNote: ...

    def lines(self, rows: Iterable[PlanRow]) -> Iterator[str]: ...


def plan_rows(
    candidates: Iterable[Candidate], sites: Sequence[Site], assumptions: Assumptions, owned: Owned | None = None
) -> list[PlanRow]:
    """Return every candidate at every site."""
    return [_row(candidate, site, assumptions, owned or {}) for candidate in candidates for site in sites]


def _row(candidate: Candidate, site: Site, assumptions: Assumptions, owned: Owned) -> PlanRow:
    hours, chip = candidate.chip_hours, candidate.chip
    used = energy(chip, site, hours, assumptions)
    if candidate.count <= owned.get((candidate.label, site.name), 0):
        money = cost.if_owned(chip, site, hours, used)
    else:
        money = cost.if_rented(chip, hours)
    bought = cost.if_bought(chip, site, hours, used, assumptions)
    return PlanRow(candidate=candidate, site=site, money=money, bought=bought, energy=used)


def rank(
    rows: Iterable[PlanRow], sort: Sort = "money", *, deadline_s: float | None = None, budget_usd: float | None = None
) -> list[PlanRow]:
    """Return rows, those that keep the limits first and restricted ones last, each kind from best to worst.

    The front is marked.
    What is not known comes after what is, by time; equals stand by time, then carbon.
    """
    rows = [replace(row, misses=_misses(row, deadline_s, budget_usd)) for row in rows]
    front = set(map(id, _front(rows)))
    marked = [replace(row, is_on_front=id(row) in front) for row in rows]

    def place(row: PlanRow) -> tuple[bool, bool, float, float, float]:
        return row.is_restricted, bool(row.misses), *_place(row.candidate.time_s, row.money.usd, row.energy, sort)

    return sorted(marked, key=place)


@dataclass(frozen=True, kw_only=True)
class InferenceRow:
    """Making pictures on a chip at a site; amounts are of sampan.plan.inference.NUM_PICTURES pictures.

    Args:
        usd: What they cost: electricity where the chip is owned, else its rent.
    """

    estimate: InferenceEstimate
    site: Site
    split: RentSplit
    energy: Energy
    usd: Interval | None
    is_owned: bool = False


def inference_rows(
    estimates: Iterable[InferenceEstimate],
    sites: Sequence[Site],
    assumptions: Assumptions,
    owned: Owned | None = None,
    sort: Sort = "money",
) -> list[InferenceRow]:
    """Return making pictures with every estimate at every site, from best to worst; what is not known comes last."""
    rows = []
    for estimate in estimates:
        for site in sites:
            split = cost.split_rent(estimate.chip, site, estimate.chip_hours, assumptions)
            is_owned = (owned or {}).get((estimate.label, site.name), 0) > 0
            rows.append(
                InferenceRow(
                    estimate=estimate, site=site, split=split, is_owned=is_owned,
                    usd=split.power if is_owned else split.rent,
                    energy=energy(estimate.chip, site, estimate.chip_hours, assumptions),
                )
            )  # fmt: skip
    return sorted(rows, key=lambda row: _place(row.estimate.time_s, row.usd, row.energy, sort))


def _place(time_s: Interval, usd: Interval | None, used: Energy, sort: Sort) -> tuple[float, float, float]:
    """Return what rows are sorted by: the amount that is asked for, then time, then carbon."""
    amounts = {"money": usd, "time": time_s, "energy": used.kwh, "carbon": used.kg_co2}
    asked, carbon = (math.inf if span is None else span.typical for span in (amounts[sort], used.kg_co2))
    return asked, time_s.typical, carbon


Row = TypeVar("Row")


def first_of_each(rows: Iterable[Row], key: Callable[[Row], Hashable]) -> list[Row]:
    """Return of rows with the same key the first."""
    first: dict[Hashable, Row] = {}
    for row in rows:
        first.setdefault(key(row), row)
    return list(first.values())


def best_sites(rows: Iterable[PlanRow]) -> list[PlanRow]:
    """Return of rows that differ only in their site the first."""
    return first_of_each(rows, lambda row: row.key)


def best_inference_sites(rows: Iterable[InferenceRow]) -> list[InferenceRow]:
    """Return of rows that differ only in their site the first."""
    return first_of_each(rows, lambda row: (row.estimate.label, row.estimate.framework))


def worthwhile(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return of candidates on a chip with a framework those that are faster than all with fewer chips."""
    kept: list[Candidate] = []
    best: dict[tuple[str, str], float] = {}
    for candidate in sorted(candidates, key=lambda candidate: candidate.count):
        key = candidate.label, candidate.framework
        if candidate.time_s.typical < best.get(key, math.inf):
            best[key] = candidate.time_s.typical
            kept.append(candidate)
    return kept


def _misses(row: PlanRow, deadline_s: float | None, budget_usd: float | None) -> tuple[str, ...]:
    misses = []
    if deadline_s is not None and row.candidate.time_s.typical > deadline_s:
        misses.append(f"takes longer than {deadline_s / DAY_S:g} days")
    if budget_usd is not None:
        if row.money.usd is None:
            misses.append(f"whether it costs more than {budget_usd:,g} USD is not known")
        elif row.money.usd.typical > budget_usd:
            misses.append(f"costs more than {budget_usd:,g} USD")
    return tuple(misses)


def _front(rows: Sequence[PlanRow]) -> list[PlanRow]:
    known = [(row.candidate.time_s.typical, row.money.usd.typical, row) for row in rows if row.money.usd is not None]
    known.sort(key=lambda entry: entry[:2])
    front: list[PlanRow] = []
    last = math.inf, math.inf
    for time_s, usd, row in known:
        # sorted by time: what is dearer than something before it, or as dear and slower, is beaten
        if usd < last[1] or (time_s, usd) == last:
            front.append(row)
            last = time_s, usd
    return front
