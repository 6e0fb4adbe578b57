"""Where measurements are kept, and what each says about program and machine. Results are only ever added.

`add` and `put` are the only writers: each record names the commit that measured, whoever made it.
"""

from __future__ import annotations

import datetime
import itertools
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sampan
from sampan.files import write_text
from sampan.host import answer, cpu_name, usable_cores

FOLDER = Path("results")
_PACKAGE = Path(sampan.__file__).resolve().parent


def today() -> str:
    """Return the date as records have it."""
    return datetime.date.today().isoformat()


def load_average() -> float | None:
    """Return how many programs wanted a core, averaged over the last minute; None where the system does not tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def machine() -> dict[str, Any]:
    """Return what a record says about the machine below the frameworks."""
    return {
        "system": platform.system(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "python": platform.python_version(),
        "sampan": sampan.__version__,
    }


def conditions(load_before: float | None) -> dict[str, Any]:
    """Return what a record says about when and where it was measured.

    Args:
        load_before: `load_average()` before the measurement began.
    """
    load = {"before": load_before, "after": load_average()}
    return {"date": today(), "machine": machine(), "load_average": load}


def commit(package: Path = _PACKAGE) -> dict[str, str | None]:
    """Return `commit`, with "+changes" behind it where tracked files differ; outside a checkout None and the reason."""
    git = ["git", "-C", str(package)]
    top = answer([*git, "rev-parse", "--show-toplevel"])
    # an installed package may lie in somebody's checkout of something else
    if top is None or Path(top).resolve() / "src" / package.name != package:
        return {"commit": None, "commit_unknown": "sampan does not run from a checkout of git"}
    return {"commit": answer([*git, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"])}


def add(stem: str, record: Mapping[str, Any], folder: Path = FOLDER) -> Path:
    """Write a record as STEM_DATE.json, with a number behind it when there is one of that day; return its path.

    Args:
        record: Its `date` is today's where it has none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = {"date": today(), **record}
    name = f"{stem}_{record['date'].replace('-', '')}"
    text = _text(record)
    for suffix in itertools.chain([""], (f"_{number}" for number in itertools.count(2))):
        path = folder / f"{name}{suffix}.json"
        try:
            with open(path, "x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            continue
        return path
    raise AssertionError("numbers do not end")


def put(path: Path, record: Mapping[str, Any]) -> Path:
    """Write a record where the user said, in the place of what is there; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, _text(record))
    return path


def _text(record: Mapping[str, Any]) -> str:
    return json.dumps({**commit(), **record}, indent=2) + "\n"
