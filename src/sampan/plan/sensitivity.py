"""How far a plan's first row moves when one of its inputs moves: every end is planned anew, nothing is extrapolated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from sampan.catalog.records import Chip, Site
from sampan.plan import runnable
from sampan.plan.cost import Assumptions
from sampan.plan.jobs import JobWork
from sampan.plan.planner import Candidate, Planner
from sampan.plan.rank import PlanRow, plan_rows
from sampan.plan.records import Interval

_STEPS = 0.2  # share by which the number of updates is moved
_PRICE = 0.3  # and the price of electricity, and what is bought


@dataclass(frozen=True, kw_only=True)
class InputSwing:
    """An input at both its ends, and what becomes of the row; None where that cannot be known, or nothing fits.

    Args:
        name: Of the input.
        ends: Its low and its high end, in words.
        time_s, usd, bought_usd: At these ends.
    """

    name: str
    ends: tuple[str, str]
    time_s: tuple[float | None, float | None]
    usd: tuple[float | None, float | None]
    bought_usd: tuple[float | None, float | None]


def sensitivity(row: PlanRow, work: JobWork, assumptions: Assumptions) -> list[InputSwing]:
    """Return how a row moves with each input alone."""
    moved = []
    for name, ends, variants in _inputs(row, work, assumptions):
        found = [_again(row, *variant) for variant in variants]
        moved.append(
            InputSwing(
                name=name, ends=ends,
                time_s=_pair(None if one is None else one.candidate.time_s.typical for one in found),
                usd=_pair(None if one is None or one.money.usd is None else one.money.usd.typical for one in found),
                bought_usd=_pair(
                    None if one is None or one.bought.usd is None else one.bought.usd.typical for one in found
                ),
            )
        )  # fmt: skip
    time = row.candidate.time_s
    hours = [seconds * row.candidate.count / 3600 for seconds in (time.low, time.high)]
    of_rent, of_own = (
        _pair(None if price is None else hour * price.typical for hour in hours)
        for price in (row.money.hour_usd, row.bought.hour_usd)
    )
    speed = InputSwing(
        name="speed (80 % interval)",
        ends=("short end", "long end"),
        time_s=(time.low, time.high),
        usd=of_rent,
        bought_usd=of_own,
    )
    return [speed, *moved]


_Variant = tuple[Chip, Site, JobWork, Assumptions]


def _inputs(
    row: PlanRow, work: JobWork, at: Assumptions
) -> Iterator[tuple[str, tuple[str, str], tuple[_Variant, _Variant]]]:
    """Yield each input with its two ends, and everything else as it is."""
    chip, site = row.candidate.chip, row.site
    low, high = (_with_steps(work, 1 + sign * _STEPS) for sign in (-1, 1))
    yield "number of steps", ("20 % fewer", "20 % more"), ((chip, site, low, at), (chip, site, high, at))
    if chip.rent is not None and row.money.basis == "rent":
        rent = chip.rent
        cheap, dear = (
            replace(chip, rent=replace(rent, typical_usd_per_h=price))
            for price in (rent.low_usd_per_h, rent.high_usd_per_h)
        )
        said = f"{rent.low_usd_per_h:g} USD an hour", f"{rent.high_usd_per_h:g} USD an hour"
        yield "rent", said, ((cheap, site, work, at), (dear, site, work, at))
    if chip.price is not None:
        low_price, high_price = (
            replace(chip, price=replace(chip.price, usd=chip.price.usd * (1 + sign * _PRICE))) for sign in (-1, 1)
        )
        yield "price of a chip", ("30 % less", "30 % more"), ((low_price, site, work, at), (high_price, site, work, at))
    price = site.electricity_usd_per_kwh
    if price is not None:
        low_site, high_site = (replace(site, electricity_usd_per_kwh=price * (1 + sign * _PRICE)) for sign in (-1, 1))
        yield "electricity", ("30 % less", "30 % more"), ((chip, low_site, work, at), (chip, high_site, work, at))
    if site.pue is not None:
        low_site, high_site = (replace(site, pue=pue) for pue in (1 + (site.pue - 1) / 2, 1 + (site.pue - 1) * 2))
        yield "overhead of the site", ("half", "double"), ((chip, low_site, work, at), (chip, high_site, work, at))
    for name, field, ends in (
        ("load of the chips", "load_share", (0.6, 1.0)),
        ("years until paid off", "years", (6.0, 3.0)),
        ("share of time that chips work", "used_share", (0.95, 0.5)),
        ("share of memory that may be taken", "memory_share", (0.98, 0.8)),
    ):
        low_at, high_at = (replace(at, **{field: end}) for end in ends)
        yield name, (f"{ends[0]:g}", f"{ends[1]:g}"), ((chip, site, work, low_at), (chip, site, work, high_at))


def _with_steps(work: JobWork, factor: float) -> JobWork:
    stages = tuple(
        replace(stage, num_steps=stage.num_steps * factor, num_samples=stage.num_samples * factor)
        for stage in work.stages
    )
    return replace(work, stages=stages)


def _again(row: PlanRow, chip: Chip, site: Site, work: JobWork, assumptions: Assumptions) -> PlanRow | None:
    """Return the row planned anew, or None where it does not fit any more."""
    # a row that training can run stays among those that it can
    planner = Planner(work, assumptions, only_trainable=runnable.why_not(row.candidate) is None)
    candidate = planner.candidate(chip, row.candidate.count, row.candidate.framework)
    if not isinstance(candidate, Candidate):
        return None
    owned = {(candidate.label, site.name): candidate.count} if row.money.basis == "owned" else {}
    return plan_rows([candidate], [site], assumptions, owned)[0]


def _pair(values: Iterator[float | None]) -> tuple[float | None, float | None]:
    low, high = values
    return low, high


def share(ends: tuple[float | None, float | None], planned: Interval | None) -> tuple[float, float] | None:
    """Return both ends over what is planned; None where one of them is not known, or nothing: 0 has no shares."""
    low, high = ends
    if not (planned and planned.typical and low and high):
        return None
    return low / planned.typical, high / planned.typical
