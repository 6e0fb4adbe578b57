"""Files that are there whole or not at all: written beside, synced, renamed; locks that end with their process; and by what
a file that was read before is known to be the same."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from sampan.errors import LockHeldError

_SETTLED_NS = 50_000_000  # several ticks of the clock that file systems stamp with: a later write has a later time


class FileMark(NamedTuple):
    """What changes with a file's bytes: size, times in nanoseconds, and where it lies.

    A tool that sets the time of a file back still changes `changed_ns`, where the system keeps it.
    """

    num_bytes: int
    modified_ns: int
    changed_ns: int
    inode: int
    disk: int


def file_mark(path: Path) -> FileMark | None:
    """Return a file's mark; None where it was written so lately that another write could have the same.

    Raises:
        OSError: There is no such file.
    """
    status = path.stat()
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < _SETTLED_NS:
        return None
    return FileMark(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)


def cache_folder() -> Path:
    """Return this user's folder for what can be made again; it need not be there. XDG_CACHE_HOME goes before."""
    if place := os.environ.get("XDG_CACHE_HOME"):
        return Path(place) / "sampan"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "sampan" / "cache"
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "sampan"


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


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file while the block runs; it says which process holds it, and is gone afterwards.

    The operating system keeps the lock, so that one whose process was killed holds nobody up.

    Raises:
        LockHeldError: Another has it, be it in this process.
        OSError: The file cannot be made, or its file system has no locks.
    """
    import filelock

    path.parent.stat()  # filelock would make the folder, which may be misspelled
    lock = filelock.FileLock(path, timeout=0, on_acquired=_name_holder)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise LockHeldError(path, _holder(path)) from error
    try:
        yield
    finally:
        if sys.platform != "win32":
            path.unlink(missing_ok=True)  # while it is held, or another could lock what is then removed
        lock.release()
        if sys.platform == "win32":
            with suppress(OSError):  # an open file cannot be removed there: not ours before, nor another's now
                path.unlink(missing_ok=True)


def _name_holder(handle: int) -> None:
    os.ftruncate(handle, 0)
    os.write(handle, f" {os.getpid()}".encode())


def _holder(path: Path) -> int | None:
    with suppress(OSError), open(path, "rb", buffering=0) as file:
        file.seek(1)  # on Windows nobody else can read the first byte, which is the one that is locked
        number = file.read()
        return int(number) if number.isdigit() else None
    return None
