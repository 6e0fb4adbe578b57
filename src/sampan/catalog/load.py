"""Reading the catalogue: chips, sites and published runs, by name, with the nearest names where one is not known.

Everything is read once, when it is first asked for.
"""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

from sampan import documents
from sampan.catalog.records import DTYPES, Chip, ChipServer, Memory, Price, Rent, ScaleUp, Site
from sampan.errors import CatalogError, did_you_mean

FOLDER = Path(__file__).parent
CHIPS, SITES, RUNS = FOLDER / "chips", FOLDER / "sites", FOLDER / "runs" / "measured.csv"
CONFIDENCES = ("high", "medium", "low", "memory")
RUN_COLUMNS = (
    "id", "model", "family", "params_b", "active_params_b", "layers", "hidden", "ffn", "heads", "kv_heads", "vocab",
    "seq_len", "global_batch", "micro_batch", "precision", "framework", "chip", "chips", "tp", "pp", "dp", "cp", "ep",
    "zero_stage", "recompute", "metric", "value", "tokens_total", "source_title", "source_url", "source_locator",
    "confidence", "note", "vendor", "workload", "pair_id", "quality",
)  # fmt: skip

_PARTS = {"memory": Memory, "scale_up": ScaleUp, "server": ChipServer, "price": Price, "rent": Rent}
_VARIANT = re.compile(r"(?i)^(?P<name>.+?)(?:[-_ ](?P<gb>\d+)GB?)?(?:[-_ ](?P<watts>\d+)W)?$")


@cache
def chips() -> Mapping[str, Chip]:
    """Return every chip by name.

    Raises:
        CatalogError: A file cannot be used.
    """
    found = {path.stem: read_chip(path) for path in sorted(CHIPS.glob("*.toml"))}
    names = [(_plain(word), name) for name, c in found.items() for word in {name, *c.aliases}]
    twice = sorted({f"`{a}` and `{b}`" for w, a in names for v, b in names if w == v and a < b})
    if twice:
        raise CatalogError("the catalogue of chips cannot be used", f"two chips have the same alias: {twice[0]}")
    return found


@cache
def sites() -> Mapping[str, Site]:
    """Return every site by name.

    Raises:
        CatalogError: A file cannot be used.
    """
    return {path.stem: read_site(path) for path in sorted(SITES.glob("*.toml"))}


@cache
def runs() -> tuple[Mapping[str, str], ...]:
    """Return the published runs, a row each, columns as text; see RUN_COLUMNS."""
    with open(RUNS, encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


@cache
def chip(name: str) -> Chip:
    """Return a chip by its name, its title, an alias, or one of these with a variant.

    `H100-96G` is an H100 with 96 GB, `H100-500W` one that is held to 500 W, `H100-96G-500W` both. Of a variant nothing
    else is known, and everything else is the named chip's.

    Raises:
        CatalogError: There is none; names the nearest.
    """
    words = _chip_words()
    found = words.get(_plain(name))
    if found is not None:
        return chips()[found]
    match = _VARIANT.match(name.strip())
    if match is not None and (match["gb"] or match["watts"]):
        parent = words.get(_plain(match["name"]))
        if parent is not None:
            return _variant(chips()[parent], name, match)
    known = {*chips(), *(alias for c in chips().values() for alias in c.aliases if "(" not in alias)}
    near = did_you_mean(name.lower(), {word.lower() for word in known}) or ""
    if not near.startswith("did you mean"):
        near = did_you_mean("", chips())  # nothing is near: the names alone, without what else they are called
    raise CatalogError(f"no chip `{name}` is in the catalogue", (), near)


def site(name: str) -> Site:
    """Return a site by its name.

    Raises:
        CatalogError: There is none; names the nearest.
    """
    for key, found in sites().items():
        if _plain(key) == _plain(name):
            return found
    raise CatalogError(f"no site `{name}` is in the catalogue", (), did_you_mean(name.lower(), sites()))


@cache
def _chip_words() -> Mapping[str, str]:
    words = {_plain(word): name for name, c in chips().items() for word in (c.title, *c.aliases)}
    return words | {_plain(name): name for name in chips()}


def _plain(name: str) -> str:
    return re.sub(r"[\s_()\-]+", "", name).lower()


def _variant(parent: Chip, name: str, match: re.Match[str]) -> Chip:
    memory = parent.memory
    if match["gb"]:
        memory = dataclasses.replace(memory, bytes=float(match["gb"]) * 1e9)
    watts = float(match["watts"]) if match["watts"] else None
    if match["gb"] == "0" or watts == 0:
        raise CatalogError(f"no chip `{name}` is in the catalogue", "a variant has more than 0 GB and more than 0 W")
    return dataclasses.replace(parent, memory=memory, power_cap_w=watts, variant=name)


def read_chip(path: Path) -> Chip:
    """Return the chip of a file.

    Raises:
        CatalogError: It is not TOML, lacks a field, has one that is not known, or a value cannot be right.
    """
    table = _read(path)
    wrong = _wrong_fields(
        table, Chip, ("name", "power_cap_w", "variant"), ("title", "vendor", "maker_country", "status")
    )
    parts: dict[str, Any] = {}
    for key, kind in _PARTS.items():
        if key in table and not wrong:
            part = table.pop(key)
            wrong = _wrong_fields(part, kind, (), _required(kind), f"{key}.")
            if not wrong:
                parts[key] = kind(**part)
    wrong = wrong or _wrong_chip(table, parts)
    if wrong:
        raise CatalogError(f"the chip file `{path.name}` cannot be used", wrong)
    return Chip(name=path.stem, **{**_tuples(table), **parts})


def read_site(path: Path) -> Site:
    """Return the site of a file.

    Raises:
        CatalogError: It is not TOML, lacks a field, has one that is not known, or a value cannot be right.
    """
    table = _read(path)
    wrong = _wrong_fields(table, Site, ("name",), ("country", "region")) or _wrong_source(table)
    if not wrong and table.get("pue") is not None and not 1 <= table["pue"] < 4:
        wrong = f"its `pue` is {table['pue']!r}; it is at least 1"
    if wrong:
        raise CatalogError(f"the site file `{path.name}` cannot be used", wrong)
    return Site(name=path.stem, **_tuples(table))


def _read(path: Path) -> dict[str, Any]:
    try:
        return documents.parse_toml(documents.read_text(path))
    except (OSError, ValueError) as error:
        raise CatalogError(f"the file `{path.name}` cannot be read", str(error)) from error


def _required(kind: type) -> tuple[str, ...]:
    return tuple(f.name for f in fields(kind) if f.default is dataclasses.MISSING)


def _wrong_fields(
    table: Mapping[str, Any], kind: type, but: tuple[str, ...], required: tuple[str, ...], within: str = ""
) -> str | None:
    """Return what is wrong with a table's keys and numbers; None if nothing is."""
    known = {f.name for f in fields(kind)} - set(but)
    for key, value in table.items():
        if key not in known:
            return f"it has `{within}{key}`, which is not a field; {did_you_mean(key, known)}"
        if isinstance(value, int | float) and not isinstance(value, bool) and value <= 0:
            return f"its `{within}{key}` is {value!r}, and is to be above 0"
    missing = [key for key in required if key not in table]
    return f"it has no `{within}{missing[0]}`" if missing else None


def _wrong_chip(table: Mapping[str, Any], parts: Mapping[str, Any]) -> str | None:
    for dtype, value in table.get("peak_dense_flops_per_s", {}).items():
        if dtype not in DTYPES:
            return f"it has a peak in `{dtype}`; {did_you_mean(dtype, DTYPES)}"
        if not 1e11 <= value <= 1e18:
            return f"its peak in {dtype} is {value!r} FLOP/s; the unit is FLOP/s, not TFLOP/s"
    rent = parts.get("rent")
    if rent is not None and not rent.low_usd_per_h <= rent.typical_usd_per_h <= rent.high_usd_per_h:
        return "its rents are not in order: low, typical, high"
    return _wrong_source(table)


def _wrong_source(table: Mapping[str, Any]) -> str | None:
    confidence = table.get("confidence")
    if confidence not in CONFIDENCES:
        return f"its `confidence` is {confidence!r}; it is one of {', '.join(CONFIDENCES)}"
    if not table.get("sources") and confidence not in ("memory", "low"):
        return f"it has no `sources`, and its confidence is {confidence!r}"
    return None


def _tuples(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
