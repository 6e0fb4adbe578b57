"""Where a picture's bytes lie: a file, a slice of a tar, a cell of a parquet file, a row of a `datasets` table.

A source is a small frozen value that can be compared, hashed and sent to a worker process. Reading it never decodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable


@runtime_checkable
class ImageSource(Protocol):
    """A picture that can be read."""

    @property
    def name(self) -> str:
        """What reports call it; its ending is the file name's, where there is one."""
        ...

    def fingerprint(self) -> str:
        """Return a text that changes when the bytes may have changed, without reading them all.

        Raises:
            OSError: What holds the picture is not there.
        """
        ...

    def read(self) -> bytes:
        """Return the bytes of the picture's file.

        Raises:
            OSError: They cannot be read.
        """
        ...


@dataclass(frozen=True)
class FileSource:
    """A picture in a file of its own."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.as_posix()

    def fingerprint(self) -> str:
        return stamp(self.path)

    def read(self) -> bytes:
        return self.path.read_bytes()


@dataclass(frozen=True)
class SliceSource:
    """A picture that is a stretch of a greater file, as the members of a tar are.

    Args:
        member: Its name in there.
        offset, size: In bytes.
    """

    path: Path
    member: str
    offset: int
    size: int

    @property
    def name(self) -> str:
        return f"{self.path.as_posix()}/{self.member}"

    def fingerprint(self) -> str:
        return f"{stamp(self.path)} {self.offset} {self.size}"

    def read(self) -> bytes:
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) != self.size:
            raise OSError(f"`{self.path}` ends inside `{self.member}`")
        return data


def stamp(path: Path) -> str:
    """Return a text that changes when a file does: its size and the time of its last change, in ns."""
    facts = path.stat()
    return f"{facts.st_size} {facts.st_mtime_ns}"
