"""What chip-hours cost: rented, bought and paid off, or owned already. Energy is counted in sampan.plan.energy.

A rent is one of a chip in a region, whatever the site of a plan; electricity is in it. Left out: storage, traffic, people,
taxes, discounts for long contracts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sampan.catalog.records import Chip, Site
from sampan.plan.assumptions import YEAR_H, Assumptions, Span
from sampan.plan.energy import Energy

Basis = Literal["rent", "bought", "owned"]


@dataclass(frozen=True, kw_only=True)
class Money:
    """Money, and what it is for.

    Args:
        usd: From the low price over the short end of the time's interval to the high price over its long end; None where a
            fact is not known, and `said` is which.
        said: What was paid for, at which price, of which region and year.
        hour_usd: A chip-hour's, low, typical and high; None where not known.
    """

    basis: Basis
    usd: Span | None
    said: str
    hour_usd: Span | None = None


def rented(chip: Chip, chip_hours: Span) -> Money:
    """Return the money for renting."""
    rent = chip.rent
    if rent is None:
        return Money(basis="rent", usd=None, said=f"no rental price is known for `{chip.name}`")
    hour = Span(low=rent.low_usd_per_h, typical=rent.typical_usd_per_h, high=rent.high_usd_per_h)
    return Money(
        basis="rent",
        usd=_times(chip_hours, hour),
        said=f"rented for {hour.typical:g} USD a chip-hour ({hour.low:g} to {hour.high:g}; "
        f"{rent.region or 'region not known'}, {rent.as_of or 'date not known'})",
        hour_usd=hour,
    )


def bought(chip: Chip, site: Site, chip_hours: Span, energy: Energy, assumptions: Assumptions) -> Money:
    """Return the money for chips that are bought and paid off over years, with their electricity."""
    if chip.price is None:
        return Money(basis="bought", usd=None, said=f"no price is known for `{chip.name}`")
    power = owned(chip, site, chip_hours, energy)
    if power.usd is None or power.hour_usd is None:
        return Money(basis="bought", usd=None, said=power.said)
    of_chip = chip.price.usd / (assumptions.years * YEAR_H * assumptions.used_share)
    hour = of_chip + power.hour_usd.typical
    return Money(
        basis="bought",
        usd=chip_hours.times(hour),
        said=f"bought for {chip.price.usd:,.0f} USD a chip ({chip.price.region or 'region not known'}, "
        f"{chip.price.year or 'year not known'}), {of_chip:.3g} USD an hour, and {power.said}",
        hour_usd=Span(low=hour, typical=hour, high=hour),
    )


def owned(chip: Chip, site: Site, chip_hours: Span, energy: Energy) -> Money:
    """Return the money for chips that are there already: their electricity and nothing else."""
    if energy.kwh is None:
        return Money(basis="owned", usd=None, said=energy.reason or "its energy is not known")
    price = site.electricity_usd_per_kwh
    if price is None:
        return Money(basis="owned", usd=None, said=f"no price of electricity is known for `{site.name}`")
    usd = energy.kwh.times(price)
    hour = usd.typical / chip_hours.typical
    return Money(
        basis="owned",
        usd=usd,
        said=f"electricity at {price:g} USD a kWh ({site.region}, {site.electricity_year or 'year not known'})",
        hour_usd=Span(low=hour, typical=hour, high=hour),
    )


def _times(hours: Span, price: Span) -> Span:
    return Span(low=hours.low * price.low, typical=hours.typical * price.typical, high=hours.high * price.high)
