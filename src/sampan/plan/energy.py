"""Energy and carbon of chip-hours at a site.

Counted: the chips' share of their servers, under load, with the site's overhead; the grid's mean intensity. Left out:
what making chips and buildings emitted (embodied carbon), storage and networks outside the servers, contracts for green
power.
"""

from __future__ import annotations

from dataclasses import dataclass

from sampan.catalog.records import Chip, Site
from sampan.plan.assumptions import Assumptions, Interval

LEFT_OUT = "Carbon is that of the electricity; what making chips and buildings emitted is left out."


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
