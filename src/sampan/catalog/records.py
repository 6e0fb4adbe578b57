"""What the catalogue knows of chips and sites. A fact that nobody published is None and stays None.

Units are in the names: bytes are decimal as data sheets count them (80e9 for "80 GB"), rates are dense.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DTYPES = ("fp32", "tf32", "fp16", "bf16", "fp8", "int8", "fp4")
_DEVICES = {"NVIDIA": "cuda", "AMD": "cuda", "Huawei": "npu"}


@dataclass(frozen=True, kw_only=True)
class Memory:
    """A chip's memory: how much, and how fast it is read."""

    bytes: float | None = None
    bytes_per_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class ScaleUp:
    """The links of a chip to the chips of its domain.

    Args:
        name: Of the kind of link.
        bytes_per_s: Of all of a chip's links, as published.
        direction: What the published number adds up, in the source's words.
        bytes_per_s_one_way: Half of it, where it is a sum of both directions.
        is_one_way_assumed: Whether the source does not say, and both directions were taken to be meant.
        domain: Chips that reach each other so.
    """

    name: str | None = None
    bytes_per_s: float | None = None
    direction: str | None = None
    bytes_per_s_one_way: float | None = None
    is_one_way_assumed: bool = False
    domain: int | None = None


@dataclass(frozen=True, kw_only=True)
class ChipServer:
    """The machine a chip is sold in: its name, the chips in it where the name says so, and the power of the whole."""

    title: str | None = None
    num_chips: int | None = None
    power_w: float | None = None


@dataclass(frozen=True, kw_only=True)
class Price:
    """What one chip was sold for."""

    usd: float
    year: str | None = None
    region: str | None = None


@dataclass(frozen=True, kw_only=True)
class Rent:
    """What an hour of one chip was let for."""

    low_usd_per_h: float
    typical_usd_per_h: float
    high_usd_per_h: float
    as_of: str | None = None
    region: str | None = None


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One accelerator, as it is billed.

    Args:
        name: Of its file, and in commands.
        launched: "2022-09", "2023", "2026-H2", …; None is not known.
        peak_dense_flops_per_s: By dtype of DTYPES; what is missing is unknown or not there.
        process_nm, die_area_mm2: Of the silicon, all dies of a package together.
        scale_out_bytes_per_s: One way, of the chip's share of its server's network.
        tpp, performance_density: As US rules define them (15 CFR 774, 3A090).
        confidence: "high", "medium", "low", or "memory" where no source was at hand.
        from_memory: Columns of the source table that were filled from memory.
        power_cap_w, variant: Of a named variant, such as `H100-96G-500W`; see sampan.catalog.load.
    """

    name: str
    title: str
    vendor: str
    maker_country: str
    status: str
    launched: str | None = None
    peak_dense_flops_per_s: Mapping[str, float] = field(default_factory=dict)
    process_nm: float | None = None
    die_area_mm2: float | None = None
    memory: Memory = field(default_factory=Memory)
    scale_up: ScaleUp = field(default_factory=ScaleUp)
    scale_out_bytes_per_s: float | None = None
    board_power_w: float | None = None
    server: ChipServer = field(default_factory=ChipServer)
    price: Price | None = None
    rent: Rent | None = None
    software: str | None = None
    is_datacenter_marketed: bool | None = None
    tpp: float | None = None
    performance_density: float | None = None
    confidence: str = "low"
    from_memory: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    note: str | None = None
    aliases: tuple[str, ...] = ()
    power_cap_w: float | None = None
    variant: str | None = None

    @property
    def label(self) -> str:
        """The chip as it was asked for: its variant, else its name."""
        return self.variant or self.name

    @property
    def device(self) -> str | None:
        """What `place.device` is on it; None where training has no device for its maker's chips."""
        return _DEVICES.get(self.vendor)

    def peak(self, dtype: str) -> float | None:
        """Return the dense peak in FLOP/s (or operations, for int8); None where the chip's files name none."""
        return self.peak_dense_flops_per_s.get(dtype)

    @property
    def silicon(self) -> str:
        """Return a key that chips of the same silicon share: vendor, process and die area; else vendor and name."""
        if self.process_nm is None or self.die_area_mm2 is None:
            return f"{self.vendor} {self.name}"
        return f"{self.vendor} {self.process_nm:g} nm {self.die_area_mm2:g} mm2"


@dataclass(frozen=True, kw_only=True)
class Site:
    """A place where chips run.

    Args:
        country: ISO 3166, two letters.
        pue: Power of the whole site over that of its machines.
        grid_g_co2_per_kwh: Of the grid, by location; contracts for green power are not in it.
        other_electricity_usd_per_kwh: A second price, under the condition that `other_electricity_condition` states.
    """

    name: str
    country: str
    region: str
    electricity_usd_per_kwh: float | None = None
    electricity_year: str | None = None
    other_electricity_usd_per_kwh: float | None = None
    other_electricity_condition: str | None = None
    pue: float | None = None
    grid_g_co2_per_kwh: float | None = None
    grid_year: str | None = None
    grid_note: str | None = None
    latency_class_to_china: str | None = None
    rtt_to_china_s: float | None = None
    colocation: str | None = None
    power_lead_time: str | None = None
    note: str | None = None
    as_of: str | None = None
    confidence: str = "low"
    from_memory: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
