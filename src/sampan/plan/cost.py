"""What chip-hours cost: energy and carbon at a site, and money for chips that are rented, bought or owned already.

Energy is that of the chips' share of their servers, under load, with the site's overhead; carbon is that of the grid's mean
intensity. A rent is one of a chip in a region, whatever the site of a plan; electricity is in it. What nobody measures is
supposed: named numbers with defaults, printed with every plan.
Left out: what making chips and buildings emitted (embodied carbon), storage and networks outside the servers, contracts for
green power, traffic, people, taxes, discounts for long contracts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal

from sampan.catalog.records import Chip, Rent, Site
from sampan.plan.records import Interval

HOUR_S, DAY_S, YEAR_H = 3600.0, 86400.0, 8760.0
LEFT_OUT = "Carbon is that of the electricity; what making chips and buildings emitted is left out."
Basis = Literal["rent", "bought", "owned"]


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """Numbers that a plan supposes.

    Args:
        years: Over which a bought chip is paid off.
        used_share: Of those years that it works.
        load_share: Of the power on the name plate that it draws while it trains.
        memory_share: Of a chip's memory that a job may take.
    """

    years: float = 4.0
    used_share: float = 0.8
    load_share: float = 0.8
    memory_share: float = 0.94

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 < value <= (1 if field.name.endswith("_share") else 100):
                raise ValueError(f"{field.name} cannot be {value!r}")

    def lines(self) -> Iterator[str]:
        """Yield them as sentences."""
        yield (
            f"A bought chip is paid off over {self.years:g} years, of which it works {self.used_share:.0%}; server, "
            "network, building, staff and interest are left out."
        )
        yield f"While it trains, a chip's share of its server draws {self.load_share:.0%} of its rated power."
        yield f"A job may take {self.memory_share:.0%} of a chip's memory."


@dataclass(frozen=True, kw_only=True)
class Power:
    """What one chip draws by its name plate, its share of the server with it.

    Args:
        basis: What the number is of, in words; where it is None, why nobody knows.
    """

    w: float | None
    basis: str


@dataclass(frozen=True, kw_only=True)
class Energy:
    """Electricity and carbon; None where a fact is not known, and `reason` and `carbon_reason` say which.

    Args:
        kwh: With the site's overhead.
        kg_co2: Of them.
    """

    power: Power
    kwh: Interval | None = None
    kg_co2: Interval | None = None
    reason: str | None = None
    carbon_reason: str | None = None


def power(chip: Chip) -> Power:
    """Return the power of a chip's share of its server, else of its board alone."""
    server, board, cap = chip.server, chip.board_power_w, chip.power_cap_w
    share = server.power_w / server.num_chips if server.power_w and server.num_chips else None
    if cap is not None:
        # of a variant only the chip's own limit is known: what the server takes beside the chip stays
        if share is not None and board is not None:
            return Power(w=share - board + cap, basis=f"share of {server.title}, held to {cap:g} W")
        return Power(w=cap, basis="board, held to its limit; its server is not in it")
    if share is not None:
        return Power(w=share, basis=f"share of {server.title}")
    if board is not None:
        return Power(w=board, basis="board alone; its server is not in it")
    return Power(w=None, basis=f"how much power `{chip.name}` draws is not known")


def energy(chip: Chip, site: Site, chip_hours: Interval, assumptions: Assumptions) -> Energy:
    """Return the energy and the carbon of chip-hours at a site."""
    drawn = power(chip)
    if drawn.w is None:
        return Energy(power=drawn, reason=drawn.basis, carbon_reason=drawn.basis)
    if site.pue is None:
        reason = f"the overhead (PUE) of `{site.name}` is not known"
        return Energy(power=drawn, reason=reason, carbon_reason=reason)
    kwh = chip_hours.times(drawn.w * assumptions.load_share * site.pue / 1000)
    if site.grid_g_co2_per_kwh is None:
        return Energy(power=drawn, kwh=kwh, carbon_reason=f"the carbon of the grid of `{site.name}` is not known")
    return Energy(power=drawn, kwh=kwh, kg_co2=kwh.times(site.grid_g_co2_per_kwh / 1000))


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


def hourly_rent(rent: Rent) -> Interval:
    """Return what an hour of a chip is let for, in USD."""
    return Interval(low=rent.low_usd_per_h, typical=rent.typical_usd_per_h, high=rent.high_usd_per_h)


def if_rented(chip: Chip, chip_hours: Interval) -> Money:
    """Return the money for renting."""
    rent = chip.rent
    if rent is None:
        return Money(basis="rent", usd=None, said=f"no rental price is known for `{chip.name}`")
    hour = hourly_rent(rent)
    return Money(
        basis="rent",
        usd=_times(chip_hours, hour),
        said=f"rented for {hour.typical:g} USD a chip-hour ({hour.low:g} to {hour.high:g}; "
        f"{rent.region or 'region not known'}, {rent.as_of or 'date not known'})",
        hour_usd=hour,
    )


def if_bought(chip: Chip, site: Site, chip_hours: Interval, used: Energy, assumptions: Assumptions) -> Money:
    """Return the money for chips that are bought and paid off over years, with their electricity."""
    of_chip = depreciation_usd_per_h(chip, assumptions)
    if chip.price is None or of_chip is None:
        return Money(basis="bought", usd=None, said=f"no price is known for `{chip.name}`")
    power = if_owned(chip, site, chip_hours, used)
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


def if_owned(chip: Chip, site: Site, chip_hours: Interval, used: Energy) -> Money:
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
        return self.power + self.depreciation


def split_rent(chip: Chip, site: Site, chip_hours: Interval, assumptions: Assumptions) -> RentSplit:
    """Return what the rent of chip-hours is made of, at the prices of a site."""
    used = energy(chip, site, chip_hours, assumptions)
    paid, power = if_rented(chip, chip_hours), if_owned(chip, site, chip_hours, used)
    worn = depreciation_usd_per_h(chip, assumptions)
    reasons = [money.said for money in (paid, power) if money.usd is None]
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
