"""Where measurements are kept, and what each says about the machine. Results are only ever added."""

from __future__ import annotations

import datetime
import itertools
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sampan import __version__
from sampan.files import write_text
from sampan.host import cpu_name, usable_cores

FOLDER = Path("results")


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
        "sampan": __version__,
    }


def add(stem: str, record: Mapping[str, Any], folder: Path = FOLDER) -> Path:
    """Write a record as STEM_DATE.json, with a number behind it when there is one of that day; return its path.

    Args:
        record: Has `date`, as `today` returns it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=2) + "\n"
    name = f"{stem}_{record['date'].replace('-', '')}"
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
    write_text(path, json.dumps(record, indent=2) + "\n")
    return path
