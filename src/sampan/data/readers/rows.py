"""What the row of any format is checked for: its captions, and the key of its sample."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from sampan.data.image_source import ImageSource
from sampan.data.readers import CaptionOptions, Listing, RowFault, Sample
from sampan.errors import BadRowError


class Rows:
    """Samples and faults, gathered in the order of the rows.

    Args:
        limit: How many are wanted at most; None for all.
        options: How captions are made of texts; None for as they are.
    """

    def __init__(self, limit: int | None = None, options: CaptionOptions | None = None) -> None:
        self.options = options or CaptionOptions()
        self._limit = limit
        self._samples: list[Sample] = []
        self._faults: list[RowFault] = []
        self._notes: list[RowFault] = []
        self._seen: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._samples) + len(self._faults)

    @property
    def is_full(self) -> bool:
        """Whether as many rows are there as are wanted."""
        return self._limit is not None and len(self) >= self._limit

    @contextmanager
    def row(self, where: str) -> Iterator[None]:
        """Make a fault of the row that is read in the block, where it cannot be used."""
        try:
            yield
        except BadRowError as reason:
            self.leave_out(where, reason.kind, str(reason))

    def add(
        self,
        key: str,
        where: str,
        image: ImageSource,
        captions: tuple[str, ...],
        references: Iterable[ImageSource] = (),
    ) -> None:
        """Add a sample; one whose key is taken gets a number behind it."""
        self._seen[key] += 1
        number = f" #{self._seen[key]}" if self._seen[key] > 1 else ""
        self._samples.append(Sample(key + number, where, image, captions, tuple(references)))

    def leave_out(self, where: str, kind: str, reason: str) -> None:
        """Add a fault in place of a sample."""
        self._faults.append(RowFault(where, kind, reason))

    def note(self, where: str, kind: str, reason: str) -> None:
        """Say something that is no fault of a row."""
        self._notes.append(RowFault(where, kind, reason))

    def lines(self, where: str, text: str) -> list[str]:
        """Return the captions in the text of a caption file; one that is torn between paragraphs gets a note."""
        captions = self.options.split(text)
        paragraphs = [part for part in _BLANK_LINE.split(text) if part.strip()]
        if len(paragraphs) > 1 and len(captions) > 1:
            reason = f"{len(paragraphs)} paragraphs in {len(captions)} lines, of which each is a caption of its own"
            self.note(where, "paragraphs", f'{reason}; data.caption_lines = "one" keeps it whole')
        return captions

    def captions(self, values: Iterable[Any], lacking: str = "no caption") -> tuple[str, ...]:
        """Return the captions of a row.

        Args:
            values: Texts, lists of texts and objects of texts.
            lacking: What is said where there is none.

        Raises:
            BadRowError: One is not a text, or there is none.
        """
        captions = self.options.finish(tuple(_texts(values)))
        if not captions:
            raise BadRowError("no-caption", lacking)
        return captions

    def listing(self) -> Listing:
        """Return what was gathered."""
        return Listing(tuple(self._samples), tuple(self._faults), len(self), tuple(self._notes))


_BLANK_LINE = re.compile(r"\n[^\S\n]*\n")


def _texts(values: Iterable[Any]) -> dict[str, None]:
    """Return the texts among texts, lists of texts and objects of texts, each once, in their order."""
    unique: dict[str, None] = {}
    for value in values:
        if isinstance(value, dict):
            texts: Iterable[Any] = value.values()
        else:
            texts = value if isinstance(value, (list, tuple)) else (value,)
        for text in texts:
            if text is None:
                continue
            if not isinstance(text, str):
                raise BadRowError("bad-row", f"a caption is not a text: {text!r}")
            try:
                text.encode("utf-8")
            except UnicodeEncodeError:
                raise BadRowError("bad-row", "a caption is not valid Unicode") from None
            if text.strip():
                unique[text.strip()] = None
    return unique
