"""What nobody measures and a plan has to suppose: named numbers with defaults, printed with every plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An amount and the ends of its interval."""

    low: float
    typical: float
    high: float

    def times(self, factor: float) -> Interval:
        """Return all three multiplied."""
        return Interval(low=self.low * factor, typical=self.typical * factor, high=self.high * factor)


HOUR_S, DAY_S, YEAR_H = 3600.0, 86400.0, 8760.0
