"""Readers of picture sets: a table of their names, and what each of them returns.

A reader lists samples and decodes nothing; a row that says nothing usable is left out with its reason and shifts no other.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from sampan.data.image_source import ImageSource
from sampan.errors import JobError, did_you_mean

READERS = {
    "image_folder": "sampan.data.readers.image_folder:read",
    "webdataset": "sampan.data.readers.webdataset:read",
    "parquet": "sampan.data.readers.parquet:read",
    "hub": "sampan.data.readers.hub:read",
}


@dataclass(frozen=True)
class Sample:
    """A picture, and what is said about it.

    Args:
        key: Names the sample within its set; the same in every run as long as its row is.
        where: The row it comes from (`metadata.jsonl:12`), for reports.
        captions: One or more, each saying it whole (in different languages, for example).
        references: Pictures that the captions tell how to change; mostly none.
    """

    key: str
    where: str
    image: ImageSource
    captions: tuple[str, ...]
    references: tuple[ImageSource, ...] = ()


@dataclass(frozen=True)
class RowFault:
    """Something wrong with a row or its picture.

    Args:
        where: The row (`file:line`, `shard.tar/member`).
        kind: One of sampan.data.report.KINDS.
        reason: In words.
    """

    where: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Columns:
    """Where a row's fields stand, for formats with columns of any name.

    Args:
        image: The picture.
        captions: Texts or lists of texts; those that a row lacks are skipped.
        references: A picture or a list of pictures; None where the set has none.
    """

    image: str = "image"
    captions: tuple[str, ...] = ("text",)
    references: str | None = None


@dataclass(frozen=True)
class Listing:
    """What a reader found.

    Args:
        samples: In the order of their rows.
        faults: Rows that cannot be used, found without decoding (no caption, no such file …).
        num_rows: All rows, the faulty ones included.
    """

    samples: tuple[Sample, ...]
    faults: tuple[RowFault, ...]
    num_rows: int


def get(name: str) -> Callable[..., Listing]:
    """Return a reader by its name: `read(path, *, columns, split, limit) -> Listing`.

    Args:
        path: A folder, a file, or for `hub` the name of a set.
        columns: Columns or None for the format's own names.
        split: "train" …, where the format has splits; None for all or the only one.
        limit: Read only this many rows; None for all.

    Raises:
        JobError: There is no reader of that name.
    """
    if name not in READERS:
        raise JobError(f"`data.reader = {name!r}` is not a reader", (), did_you_mean(name, READERS))
    module, function = READERS[name].split(":")
    return getattr(importlib.import_module(module), function)
