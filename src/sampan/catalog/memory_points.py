"""Published figures of how much memory a chip needed, to hold counts against; one file a source in catalog/memory/.

Units: a figure is kept as it was printed, with the unit that its source means. What a figure's set-up leaves open, so that it
cannot be counted, stands beside it as `left_out`.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from sampan import documents
from sampan.errors import CatalogError

FOLDER = Path(__file__).parent / "memory"
UNITS = {"GiB": 2.0**30, "GB": 1e9}
COUNTERS = ("allocated", "reserved", "not said")


@dataclass(frozen=True, kw_only=True)
class MemoryPoint:
    """A published figure of one chip.

    Args:
        name: Within its source.
        bytes: Of the figure.
        counter: What was read: memory that arrays took, or that the allocator held.
        training: Model, length, convention and method of a training; `layout` beside it has the fields of a plan's layout.
        pictures: Model, side and batch of making pictures with all parts of a model.
        forward: Model and batch of one forward pass.
        left_out: Why the figure cannot be counted; None where it can.
    """

    name: str
    bytes: float
    counter: str
    title: str
    url: str
    as_of: datetime.date
    training: Mapping[str, Any] | None = None
    layout: Mapping[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, Any] | None = None
    forward: Mapping[str, Any] | None = None
    left_out: str | None = None


@cache
def memory_points() -> tuple[MemoryPoint, ...]:
    """Return every figure, by file and in its order.

    Raises:
        CatalogError: A file is not of this form; names it.
    """
    return tuple(point for path in sorted(FOLDER.glob("*.toml")) for point in read(path))


def read(path: Path) -> list[MemoryPoint]:
    """Return the figures of a file.

    Raises:
        CatalogError: As `memory_points`.
    """
    try:
        table = documents.parse_toml(documents.read_text(path))
        unit, counter = UNITS[table["unit"]], table["counter"]
        if counter not in COUNTERS:
            raise ValueError(f"`counter` is {counter!r}, not one of {', '.join(COUNTERS)}")
        found = []
        for one in table["point"]:
            point = MemoryPoint(
                bytes=one.pop("amount") * unit, counter=counter, title=table["title"], url=table["url"],
                as_of=table["as_of"], **one,
            )  # fmt: skip
            if sum(kind is not None for kind in (point.training, point.pictures, point.forward)) != 1:
                raise ValueError(f"`{point.name}` is not one of training, pictures and forward")
            found.append(point)
    except (KeyError, TypeError, ValueError) as error:
        raise CatalogError(
            f"`{path.name}` cannot be read as published memory", f"{type(error).__name__}: {error}"
        ) from error
    return found
