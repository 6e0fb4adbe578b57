"""Readers of picture sets: a table of their names, and what each of them returns.

A reader lists samples and decodes nothing; a row that says nothing usable is left out with its reason and shifts no other.
"""

from __future__ import annotations

import importlib
import re
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
    """Something wrong with a row or its picture, or worth a word about it.

    Args:
        where: The row (`file:line`, `shard.tar/member`), or the file or folder that a note is about.
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
        image: The picture; None for the format's own name.
        captions: Texts or lists of texts; those that a row lacks are skipped. Empty for the format's own names.
        references: A picture or a list of pictures; None where the set has none.
    """

    image: str | None = None
    captions: tuple[str, ...] = ()
    references: str | None = None


@dataclass(frozen=True)
class CaptionOptions:
    """How captions are made of what a set says.

    Args:
        lines: "each" line of a caption file is a caption, or the file is "one".
        default: Caption of a row that has none.
        trigger: Stands before every caption that does not have it, or in place of `[trigger]`; with no `default`, it is
            the caption of a row that has none.
    """

    lines: str = "each"
    default: str | None = None
    trigger: str | None = None

    @property
    def has_default(self) -> bool:
        """Whether a row without a caption can be used."""
        return self.default is not None or self.trigger is not None

    def split(self, text: str) -> list[str]:
        """Return the captions in the text of a caption file."""
        if self.lines == "one":
            return ["\n".join(text.splitlines()).strip()]
        return [line for line in text.splitlines() if line.strip()]

    def finish(self, captions: tuple[str, ...]) -> tuple[str, ...]:
        """Return the captions of a row that has these ones, each once; none where it has none and gets none."""
        if not captions and self.default is not None:
            captions = (self.default,)
        if self.trigger is None:
            return captions
        return tuple(dict.fromkeys(self._triggered(caption) for caption in captions)) or (self.trigger,)

    def _triggered(self, caption: str) -> str:
        trigger = self.trigger or ""
        if _TRIGGER_PLACE in caption:
            return caption.replace(_TRIGGER_PLACE, trigger)
        if re.search(rf"(?<!\w){re.escape(trigger)}(?!\w)", caption):
            return caption
        return f"{trigger}, {caption}"


_TRIGGER_PLACE = "[trigger]"


@dataclass(frozen=True)
class Listing:
    """What a reader found.

    Args:
        samples: In the order of their rows.
        faults: Rows that cannot be used, found without decoding (no caption, no such file …).
        num_rows: All rows, the faulty ones included.
        notes: What is no row and is not read (hidden folders, texts without a picture …), or is read in a way that may
            not be meant.
    """

    samples: tuple[Sample, ...]
    faults: tuple[RowFault, ...]
    num_rows: int
    notes: tuple[RowFault, ...] = ()


def get(name: str) -> Callable[..., Listing]:
    """Return a reader by its name: `read(path, *, columns, captions, split, limit) -> Listing`.

    Args:
        path: A folder, a file, or for `hub` the name of a set.
        columns: Columns or None for the format's own names.
        captions: CaptionOptions or None for captions as they are.
        split: "train" …, where the format has splits; None for all or the only one.
        limit: Read only this many rows; None for all.

    Raises:
        JobError: There is no reader of that name.
    """
    if name not in READERS:
        raise JobError(f"`data.reader = {name!r}` is not a reader", (), did_you_mean(name, READERS))
    module, function = READERS[name].split(":")
    return getattr(importlib.import_module(module), function)
