"""What the row of any format is checked for: its captions, the files it names, and the key of its sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from sampan.data.image_source import ImageSource
from sampan.data.readers import Listing, RowFault, Sample
from sampan.errors import BadRowError


class Rows:
    """Samples and faults, gathered in the order of the rows.

    Args:
        limit: How many are wanted at most; None for all.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._samples: list[Sample] = []
        self._faults: list[RowFault] = []
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

    def listing(self) -> Listing:
        """Return what was gathered."""
        return Listing(tuple(self._samples), tuple(self._faults), len(self))


def captions(values: Iterable[Any]) -> tuple[str, ...]:
    """Return the captions among texts, lists of texts and objects of texts, each once, in their order.

    Raises:
        BadRowError: One is not a text, or there is none.
    """
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
    if not unique:
        raise BadRowError("no-caption", "no caption")
    return tuple(unique)


def inside(root: Path, folder: Path, name: str) -> Path:
    """Return the file of a name inside a folder; a link that leads out of it is refused too.

    Args:
        root: The folder, resolved.

    Raises:
        BadRowError: The name leads out, or there is no such file.
    """
    for kind in (PurePosixPath(name), PureWindowsPath(name)):
        if kind.anchor or ".." in kind.parts:
            raise BadRowError("outside", f"`{name}` leads out of the folder")
    try:
        if not (root / name).resolve().is_relative_to(root):
            raise BadRowError("outside", f"`{name}` leads out of the folder")
        if not (root / name).is_file():
            raise BadRowError("no-file", f"`{name}` is not there")
    except (OSError, ValueError, RuntimeError) as error:  # over-long, with a zero byte, a circle of links
        raise BadRowError("no-file", f"`{name!r}` is not a file name: {error}") from error
    return folder / name
