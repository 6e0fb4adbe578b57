"""Bring tables of chips, sites and published runs into the catalogue: one TOML file a chip and a site, one CSV of runs.

The same tables always give the same files. Aliases of chips are kept by hand in scripts/chip_aliases.toml. A cell that
cannot be read is an error with its line and column, and nothing is written then.

    python scripts/import_catalog.py --chips chips.csv --sites sites.csv --runs measured_runs.csv [--check]
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from sampan.catalog import load  # noqa: E402
from sampan.errors import CatalogError  # noqa: E402
from sampan.files import write_text  # noqa: E402

ALIASES = ROOT / "scripts" / "chip_aliases.toml"
HEADER = "# made by scripts/import_catalog.py; aliases come from scripts/chip_aliases.toml\n"

Row = Mapping[str, str]
Write = Callable[[Row, "Cells"], dict[str, Any]]


class Cells:
    """Reads the cells of one line, and says where a bad one is."""

    def __init__(self, path: Path, line: int, row: Row):
        self.path, self.line, self.row = path, line, row

    def refuse(self, column: str, fact: str) -> CatalogError:
        return CatalogError(f"{self.path.name} cannot be imported", f"line {self.line}, column `{column}`: {fact}")

    def text(self, column: str) -> str | None:
        return self.row[column].strip() or None

    def number(self, column: str, times: float = 1.0) -> float | None:
        text = self.text(column)
        if text is None:
            return None
        try:
            value = float(text)
        except ValueError:
            raise self.refuse(column, f"{text!r} is not a number") from None
        if not 0 <= value < 1e12:
            raise self.refuse(column, f"{text!r} is not an amount")
        # decimal places of the table stay as they are: 989.4 times 1e12 is 989.4e12, not 989399999999999.9
        return float(f"{value * times:.12g}")

    def whole(self, column: str) -> int | None:
        value = self.number(column)
        if value is not None and value != int(value):
            raise self.refuse(column, f"{self.row[column]!r} is not a whole number")
        return None if value is None else int(value)

    def items(self, column: str) -> list[str]:
        return [item.strip() for item in self.row[column].split(";") if item.strip()]


def chip(row: Row, cells: Cells) -> dict[str, Any]:
    """Return the table of a chip's file."""
    direction = cells.text("scale_up_dir")
    total = cells.number("scale_up_gbs", 1e9)
    is_one_way = direction is not None and "one-way" in direction
    is_said = is_one_way or (direction is not None and "bidirectional" in direction)
    server = cells.text("server")
    per_server = re.search(r"\((\d+)x", server) or re.search(r"\b(\d+)x\b", server) if server else None
    power = cells.number("server_power_kw", 1e3)
    rents = [cells.number(f"rent_{name}") for name in ("low", "typ", "high")]
    if None in rents and any(rent is not None for rent in rents):
        raise cells.refuse("rent_typ", "a rent has a low, a typical and a high price, or none")
    price = cells.number("price_usd")
    marketed = {"true": True, "false": False, None: None}
    if cells.text("datacenter_marketed") not in marketed:
        raise cells.refuse("datacenter_marketed", f"{row['datacenter_marketed']!r} is neither true nor false")
    return {
        "title": cells.text("name"),
        "vendor": cells.text("vendor"),
        "maker_country": cells.text("maker_country"),
        "launched": cells.text("launch"),
        "status": cells.text("status"),
        "process_nm": cells.number("process_nm"),
        "die_area_mm2": cells.number("die_area_mm2"),
        "peak_dense_flops_per_s": {
            name: cells.number(name, 1e12) for name in ("fp32", "tf32", "fp16", "bf16", "fp8", "int8", "fp4")
        },
        "memory": {"bytes": cells.number("memory_gb", 1e9), "bytes_per_s": cells.number("mem_bw_gbs", 1e9)},
        "scale_up": {
            "name": cells.text("scale_up"),
            "bytes_per_s": total,
            "direction": direction,
            "bytes_per_s_one_way": None if total is None else total if is_one_way else total / 2,
            "is_one_way_assumed": True if total is not None and not is_said else None,
            "domain": cells.whole("scale_up_domain"),
        },
        "scale_out_bytes_per_s": cells.number("scale_out_gbs", 1e9),
        "board_power_w": cells.number("tdp_w"),
        "server": {
            "title": server,
            "num_chips": int(per_server[1]) if per_server else None,
            "power_w": power,
        },
        "price": {"usd": price, "year": cells.text("price_year"), "region": cells.text("price_region")}
        if price is not None
        else None,
        "rent": {
            "low_usd_per_h": rents[0],
            "typical_usd_per_h": rents[1],
            "high_usd_per_h": rents[2],
            "as_of": cells.text("rent_year"),
            "region": cells.text("rent_region"),
        }
        if None not in rents
        else None,
        "software": cells.text("software"),
        "is_datacenter_marketed": marketed[cells.text("datacenter_marketed")],
        "tpp": cells.number("tpp"),
        "performance_density": cells.number("pd"),
        "confidence": cells.text("confidence"),
        "from_memory": cells.items("memory_fields"),
        "sources": cells.items("source_url"),
        "note": cells.text("note"),
    }


def site(row: Row, cells: Cells) -> dict[str, Any]:
    """Return the table of a site's file."""
    return {
        "country": cells.text("country_iso2"),
        "region": cells.text("region"),
        "electricity_usd_per_kwh": cells.number("electricity_usd_per_kwh"),
        "electricity_year": cells.text("electricity_year"),
        "other_electricity_usd_per_kwh": cells.number("electricity_alt_usd_per_kwh"),
        "other_electricity_condition": cells.text("electricity_alt_condition"),
        "pue": cells.number("pue_typical"),
        "grid_g_co2_per_kwh": cells.number("grid_gco2_per_kwh"),
        "grid_year": cells.text("grid_year"),
        "grid_note": cells.text("grid_note"),
        "latency_class_to_china": cells.text("latency_class_to_china"),
        "rtt_to_china_s": cells.number("rtt_ms_to_cn_approx", 1e-3),
        "colocation": cells.text("colo_available_for_ai"),
        "power_lead_time": cells.text("power_lead_time_class"),
        "note": cells.text("market_notes"),
        "as_of": cells.text("year"),
        "confidence": cells.text("confidence"),
        "from_memory": cells.items("memory_fields"),
        "sources": cells.items("source_url"),
    }


CHIP_COLUMNS = (
    "id", "vendor", "name", "maker_country", "launch", "status", "process_nm", "die_area_mm2", "fp32", "tf32", "fp16",
    "bf16", "fp8", "int8", "fp4", "memory_gb", "mem_bw_gbs", "scale_up", "scale_up_gbs", "scale_up_dir",
    "scale_up_domain", "scale_out_gbs", "tdp_w", "server", "server_power_kw", "price_usd", "price_year", "price_region",
    "rent_low", "rent_typ", "rent_high", "rent_year", "rent_region", "software", "datacenter_marketed", "tpp", "pd",
    "confidence", "memory_fields", "source_url", "note",
)  # fmt: skip
SITE_COLUMNS = (
    "id", "country_iso2", "region", "electricity_usd_per_kwh", "electricity_year", "electricity_alt_usd_per_kwh",
    "electricity_alt_condition", "pue_typical", "grid_gco2_per_kwh", "grid_year", "grid_note", "latency_class_to_china",
    "rtt_ms_to_cn_approx", "colo_available_for_ai", "power_lead_time_class", "market_notes", "source_url", "year",
    "confidence", "memory_fields",
)  # fmt: skip


def rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[Row, Cells]]:
    """Yield the lines of a table.

    Raises:
        CatalogError: The file cannot be read, a column is missing or a line has too many or too few cells.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise CatalogError(f"{path.name} cannot be imported", f"it has no column `{missing[0]}`")
            for row in reader:
                if None in row or None in row.values():
                    raise CatalogError(
                        f"{path.name} cannot be imported",
                        f"line {reader.line_num} has not as many cells as there are columns",
                    )
                yield row, Cells(path, reader.line_num, row)
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogError(f"{path.name} cannot be imported", str(error)) from error


def toml(table: Mapping[str, Any]) -> str:
    """Return a table as TOML: plain values first, then its tables, nothing of what is unknown."""
    plain, inner = [], []
    for key, value in table.items():
        if value is None or value in ([], {}):
            continue
        if isinstance(value, dict):
            lines = [f"{name} = {_value(v)}" for name, v in value.items() if v is not None]
            if lines:
                inner.append("\n".join([f"\n[{key}]", *lines]))
        else:
            plain.append(f"{key} = {_value(value)}")
    return HEADER + "\n".join([*plain, *inner]) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    for power in (12, 9):
        if value >= 10**power:
            return f"{value / 10**power:.12g}e{power}"
    return repr(int(value)) if value == int(value) else f"{value:.12g}"


def files(chips: Path | None, sites: Path | None, runs: Path | None) -> dict[Path, str]:
    """Return what the catalogue's files should hold."""
    wanted: dict[Path, str] = {}
    aliases = tomllib.loads(ALIASES.read_text(encoding="utf-8"))
    for path, columns, folder, made in (
        (chips, CHIP_COLUMNS, load.CHIPS, chip),
        (sites, SITE_COLUMNS, load.SITES, site),
    ):
        if path is None:
            continue
        for row, cells in rows(path, columns):
            name = cells.text("id")
            if name is None or not re.fullmatch(r"[a-z0-9_]+", name):
                raise cells.refuse("id", f"{row['id']!r} is not a name of lower-case letters, digits and `_`")
            if folder / f"{name}.toml" in wanted:
                raise cells.refuse("id", f"`{name}` is there twice")
            table = made(row, cells)
            if folder == load.CHIPS:
                table = {"aliases": aliases.get(name, []), **table}
            wanted[folder / f"{name}.toml"] = toml(table)
    if runs is not None:
        list(rows(runs, load.RUN_COLUMNS))
        wanted[load.RUNS] = runs.read_text(encoding="utf-8").replace("\r\n", "\n")
    return wanted


def main() -> None:
    """Write the files, or say whether they are what the tables give."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("chips", "sites", "runs"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if anything would change")
    arguments = parser.parse_args()
    try:
        wanted = files(arguments.chips, arguments.sites, arguments.runs)
    except CatalogError as error:
        sys.exit(str(error))
    gone = [
        path
        for folder, table in ((load.CHIPS, arguments.chips), (load.SITES, arguments.sites))
        if table is not None
        for path in sorted(folder.glob("*.toml"))
        if path not in wanted
    ]
    changed = [p for p, text in wanted.items() if not p.exists() or p.read_text(encoding="utf-8") != text]
    for path in changed:
        print(f"{'changed' if path.exists() else 'added'}: {path.relative_to(load.FOLDER)}")
    for path in gone:
        print(f"removed: {path.relative_to(load.FOLDER)}")
    if arguments.check:
        sys.exit(1 if changed or gone else 0)
    for path in changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, wanted[path])
    for path in gone:
        path.unlink()
    load.chips.cache_clear()
    load.sites.cache_clear()
    print(f"{len(load.chips())} chips, {len(load.sites())} sites, {len(load.runs())} runs")


if __name__ == "__main__":
    main()
