"""Readers of picture sets: a table of their names, and what each of them returns.

A reader is a function `read(path, *, max_bad_share, limit, progress) -> (samples, report)`, imported when it is used.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sampan.errors import JobError, did_you_mean

READERS = {"image_folder": "sampan.data.readers.image_folder:read"}

Progress = Callable[[int, int], None]
"""Called with (done, total) as work goes on."""


@dataclass(frozen=True)
class Sample:
    """A picture that can be decoded, and what is said about it.

    Args:
        key: Names the sample within its set; the same in every run as long as its row is.
        captions: One or more, each saying it whole (in different languages, for example).
        references: Pictures that the captions tell how to change; mostly none.
    """

    key: str
    image: Path
    captions: tuple[str, ...]
    references: tuple[Path, ...] = ()


@dataclass(frozen=True)
class BadRow:
    """A row that was left out: where it stands (`file:line`) and why."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@dataclass(frozen=True)
class Report:
    """What a reader saw: how many rows in all, and those it left out."""

    num_rows: int
    bad: tuple[BadRow, ...]

    @property
    def bad_share(self) -> float:
        """Share of the rows that were left out, in [0, 1]."""
        return len(self.bad) / self.num_rows if self.num_rows else 0.0


def get(name: str) -> Callable[..., tuple[list[Sample], Report]]:
    """Return a reader by its name.

    Raises:
        JobError: There is none of that name.
    """
    if name not in READERS:
        raise JobError(f"`data.reader = {name!r}` is not a reader", (), did_you_mean(name, READERS))
    module, function = READERS[name].split(":")
    return getattr(importlib.import_module(module), function)
