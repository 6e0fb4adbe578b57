"""Files that are there whole or not at all: written beside, synced, renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file; what was there stays until the new one is complete."""
    with replacing(path) as beside:
        beside.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file with Unix line ends; what was there stays until the new one is complete."""
    write_bytes(path, text.encode())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a file name beside `path` to write to; when the block ends well, that file takes the place of `path`.

    Raises:
        OSError: Nothing is left beside, and `path` is as it was.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield beside
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
        sync_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable, where the platform can open folders and syncs them."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with suppress(OSError):  # some network file systems refuse to; the files themselves are synced
                os.fsync(handle)
        finally:
            os.close(handle)
