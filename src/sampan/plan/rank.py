"""Ways to do a job, at sites: what each costs, which is first, and which none beats in both time and money."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sampan.catalog.records import Site
from sampan.plan import cost
from sampan.plan.assumptions import DAY_S, Assumptions, Interval
from sampan.plan.cost import Money, RentSplit
from sampan.plan.energy import Energy, energy
from sampan.plan.inference import InferenceEstimate
from sampan.plan.planner import Candidate
from sampan.screen.matching import ScreenResult

Sort = Literal["money", "time", "energy", "carbon"]
SORTS: tuple[Sort, ...] = ("money", "time", "energy", "carbon")


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """A way to do the job at a site.

    Args:
        money: For what the chips are had: owned already, else rented.
        bought: What it would be if the chips were bought for it.
        misses: Limits that it does not keep, in words.
        is_on_front: No other row is as quick and as cheap, and better in one of them.
        answer: What dated rules say of it; None where the job names no actor.
        is_restricted: Whether one of them restricts it.
    """

    way: Candidate
    site: Site
    money: Money
    bought: Money
    energy: Energy
    misses: tuple[str, ...] = ()
    is_on_front: bool = False
    answer: ScreenResult | None = None
    is_restricted: bool = False

    @property
    def key(self) -> tuple[str, int, str]:
        """What it has in common with its rows at other sites."""
        return self.way.label, self.way.count, self.way.framework


Owned = Mapping[tuple[str, str], int]
"""Chips that are there already, by names of chip and site."""


def rows(
    ways: Iterable[Candidate], sites: Sequence[Site], assumptions: Assumptions, owned: Owned | None = None
) -> list[PlanRow]:
    """Return every way at every site."""
    return [_row(way, site, assumptions, owned or {}) for way in ways for site in sites]


def _row(way: Candidate, site: Site, assumptions: Assumptions, owned: Owned) -> PlanRow:
    hours, chip = way.chip_hours, way.chip
    used = energy(chip, site, hours, assumptions)
    bought = cost.bought(chip, site, hours, used, assumptions)
    if way.count <= owned.get((way.label, site.name), 0):
        money = cost.owned(chip, site, hours, used)
    else:
        money = cost.rented(chip, hours)
    return PlanRow(way=way, site=site, money=money, bought=bought, energy=used)


def ranked(
    found: Iterable[PlanRow], sort: Sort = "money", *, deadline_s: float | None = None, budget_usd: float | None = None
) -> list[PlanRow]:
    """Return rows, those that keep the limits first and those that rules restrict last, each kind from best to worst.

    The front is marked.
    What is not known comes after what is, by time; equals stand by time, then carbon.
    """
    found = [replace(row, misses=_misses(row, deadline_s, budget_usd)) for row in found]
    front = set(map(id, _front(found)))
    marked = [replace(row, is_on_front=id(row) in front) for row in found]
    by = _BY[sort]

    def place(row: PlanRow) -> tuple[bool, bool, float, float, float]:
        return (
            row.is_restricted,
            bool(row.misses),
            _or_last(by(row)),
            row.way.time_s.typical,
            _or_last(_BY["carbon"](row)),
        )

    return sorted(marked, key=place)


@dataclass(frozen=True, kw_only=True)
class InferenceRow:
    """Making pictures on a chip at a site; amounts are of sampan.plan.inference.NUM_PICTURES pictures.

    Args:
        usd: What they cost: electricity where the chip is owned, else its rent.
    """

    making: InferenceEstimate
    site: Site
    split: RentSplit
    energy: Energy
    usd: Interval | None
    is_owned: bool = False


def picture_rows(
    makings: Iterable[InferenceEstimate],
    sites: Sequence[Site],
    assumptions: Assumptions,
    owned: Owned | None = None,
    sort: Sort = "money",
) -> list[InferenceRow]:
    """Return every way to make pictures at every site, from best to worst; what is not known comes last."""
    found = []
    for making in makings:
        for site in sites:
            split = cost.split(making.chip, site, making.chip_hours, assumptions)
            is_owned = (owned or {}).get((making.label, site.name), 0) > 0
            found.append(
                InferenceRow(
                    making=making, site=site, split=split, is_owned=is_owned, usd=split.power if is_owned else split.rent,
                    energy=energy(making.chip, site, making.chip_hours, assumptions),
                )
            )  # fmt: skip
    by: dict[Sort, Callable[[InferenceRow], Interval | None]] = {
        "money": lambda row: row.usd,
        "time": lambda row: row.making.time_s,
        "energy": lambda row: row.energy.kwh,
        "carbon": lambda row: row.energy.kg_co2,
    }

    def place(row: InferenceRow) -> tuple[float, float, float]:
        carbon = row.energy.kg_co2
        return _middle(by[sort](row)), row.making.time_s.typical, _middle(carbon)

    return sorted(found, key=place)


def _middle(span: Interval | None) -> float:
    return math.inf if span is None else span.typical


def best_sites(found: Iterable[PlanRow]) -> list[PlanRow]:
    """Return of rows that differ only in their site the first."""
    first: dict[tuple[str, int, str], PlanRow] = {}
    for row in found:
        first.setdefault(row.key, row)
    return list(first.values())


def worthwhile(ways: Sequence[Candidate]) -> list[Candidate]:
    """Return of ways on a chip with a framework those that are faster than all with fewer chips."""
    kept: list[Candidate] = []
    best: dict[tuple[str, str], float] = {}
    for way in sorted(ways, key=lambda way: way.count):
        key = way.label, way.framework
        if way.time_s.typical < best.get(key, math.inf):
            best[key] = way.time_s.typical
            kept.append(way)
    return kept


def _misses(row: PlanRow, deadline_s: float | None, budget_usd: float | None) -> tuple[str, ...]:
    found = []
    if deadline_s is not None and row.way.time_s.typical > deadline_s:
        found.append(f"takes longer than {deadline_s / DAY_S:g} days")
    if budget_usd is not None:
        if row.money.usd is None:
            found.append(f"whether it costs more than {budget_usd:,g} USD is not known")
        elif row.money.usd.typical > budget_usd:
            found.append(f"costs more than {budget_usd:,g} USD")
    return tuple(found)


def _front(found: Sequence[PlanRow]) -> list[PlanRow]:
    known = [(row.way.time_s.typical, row.money.usd.typical, row) for row in found if row.money.usd is not None]
    known.sort(key=lambda one: one[:2])
    kept: list[PlanRow] = []
    last = math.inf, math.inf
    for time_s, usd, row in known:
        # sorted by time: what is dearer than something before it, or as dear and slower, is beaten
        if usd < last[1] or (time_s, usd) == last:
            kept.append(row)
            last = time_s, usd
    return kept


_BY: Mapping[Sort, Callable[[PlanRow], float | None]] = {
    "money": lambda row: None if row.money.usd is None else row.money.usd.typical,
    "time": lambda row: row.way.time_s.typical,
    "energy": lambda row: None if row.energy.kwh is None else row.energy.kwh.typical,
    "carbon": lambda row: None if row.energy.kg_co2 is None else row.energy.kg_co2.typical,
}


def _or_last(value: float | None) -> float:
    return math.inf if value is None else value
