"""What chip-hours cost: rented, bought and paid off, or owned already. Energy is counted in sampan.plan.energy.

A rent is one of a chip in a region, whatever the site of a plan; electricity is in it. Left out: storage, traffic, people,
taxes, discounts for long contracts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sampan.catalog.records import Chip, Site
from sampan.plan.assumptions import YEAR_H, Assumptions, Interval
from sampan.plan.energy import Energy, energy

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
    usd: Interval | None
    said: str
    hour_usd: Interval | None = None


def rented(chip: Chip, chip_hours: Interval) -> Money:
    """Return the money for renting."""
    rent = chip.rent
    if rent is None:
        return Money(basis="rent", usd=None, said=f"no rental price is known for `{chip.name}`")
    hour = Interval(low=rent.low_usd_per_h, typical=rent.typical_usd_per_h, high=rent.high_usd_per_h)
    return Money(
        basis="rent",
        usd=_times(chip_hours, hour),
        said=f"rented for {hour.typical:g} USD a chip-hour ({hour.low:g} to {hour.high:g}; "
        f"{rent.region or 'region not known'}, {rent.as_of or 'date not known'})",
        hour_usd=hour,
    )


def bought(chip: Chip, site: Site, chip_hours: Interval, used: Energy, assumptions: Assumptions) -> Money:
    """Return the money for chips that are bought and paid off over years, with their electricity."""
    of_chip = depreciation_usd_per_h(chip, assumptions)
    if chip.price is None or of_chip is None:
        return Money(basis="bought", usd=None, said=f"no price is known for `{chip.name}`")
    power = owned(chip, site, chip_hours, used)
    if power.usd is None or power.hour_usd is None:
        return Money(basis="bought", usd=None, said=power.said)
    hour = of_chip + power.hour_usd.typical
    return Money(
        basis="bought",
        usd=chip_hours.times(hour),
        said=f"bought for {chip.price.usd:,.0f} USD a chip ({chip.price.region or 'region not known'}, "
        f"{chip.price.year or 'year not known'}), {of_chip:.3g} USD an hour, and {power.said}",
        hour_usd=Interval(low=hour, typical=hour, high=hour),
    )


def owned(chip: Chip, site: Site, chip_hours: Interval, used: Energy) -> Money:
    """Return the money for chips that are there already: their electricity and nothing else."""
    if used.kwh is None:
        return Money(basis="owned", usd=None, said=used.reason or "its energy is not known")
    price = site.electricity_usd_per_kwh
    if price is None:
        return Money(basis="owned", usd=None, said=f"no price of electricity is known for `{site.name}`")
    usd = used.kwh.times(price)
    hour = usd.typical / chip_hours.typical
    return Money(
        basis="owned",
        usd=usd,
        said=f"electricity at {price:g} USD a kWh ({site.region}, {site.electricity_year or 'year not known'})",
        hour_usd=Interval(low=hour, typical=hour, high=hour),
    )


@dataclass(frozen=True, kw_only=True)
class RentSplit:
    """What the rent of chip-hours pays for: power, the chip's depreciation, and the rest, which is the landlord's.

    Args:
        rent, power, depreciation, markup: In USD; the middles of the last three add up to that of the first. None where a
            fact is not known, and `reasons` is which. A mark-up below zero is a chip let for less than it costs.
    """

    rent: Interval | None = None
    power: Interval | None = None
    depreciation: Interval | None = None
    markup: Interval | None = None
    reasons: tuple[str, ...] = ()

    @property
    def bought(self) -> Interval | None:
        """Power and depreciation: what a chip that is bought for the work costs."""
        if self.power is None or self.depreciation is None:
            return None
        return Interval(
            low=self.power.low + self.depreciation.low,
            typical=self.power.typical + self.depreciation.typical,
            high=self.power.high + self.depreciation.high,
        )


def split(chip: Chip, site: Site, chip_hours: Interval, assumptions: Assumptions) -> RentSplit:
    """Return what the rent of chip-hours is made of, at the prices of a site."""
    used = energy(chip, site, chip_hours, assumptions)
    paid, power = rented(chip, chip_hours), owned(chip, site, chip_hours, used)
    worn = depreciation_usd_per_h(chip, assumptions)
    reasons = [one.said for one in (paid, power) if one.usd is None]
    if worn is None:
        reasons.append(f"no price is known for `{chip.name}`")
    markup = None
    if worn is not None and paid.hour_usd is not None and power.hour_usd is not None:
        cost = worn + power.hour_usd.typical
        low, high = paid.hour_usd.low - cost, paid.hour_usd.high - cost
        # below zero the long end of the time is the lower one
        markup = Interval(
            low=low * (chip_hours.low if low > 0 else chip_hours.high),
            typical=(paid.hour_usd.typical - cost) * chip_hours.typical,
            high=high * (chip_hours.high if high > 0 else chip_hours.low),
        )
    return RentSplit(
        rent=paid.usd, power=power.usd, depreciation=None if worn is None else chip_hours.times(worn), markup=markup,
        reasons=tuple(reasons),
    )  # fmt: skip


def depreciation_usd_per_h(chip: Chip, assumptions: Assumptions) -> float | None:
    """Return what an hour of work takes of a chip's price; None where that is not known."""
    if chip.price is None:
        return None
    return chip.price.usd / (assumptions.years * YEAR_H * assumptions.used_share)


def _times(hours: Interval, price: Interval) -> Interval:
    return Interval(low=hours.low * price.low, typical=hours.typical * price.typical, high=hours.high * price.high)
