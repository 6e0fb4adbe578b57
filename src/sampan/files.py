"""Files that are there whole or not at all: written beside, synced, renamed; and locks that end with their process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_LOCKED_BYTE = 1 << 30  # far behind what is written in the file: on Windows nobody can read a byte that is locked


class LockHeldError(OSError):
    """A lock that another has.

    Args:
        holder: Number of the process that has it, or None where it does not say.
    """

    def __init__(self, path: Path, holder: int | None):
        self.holder = holder
        super().__init__(f"`{path}` is held by {self.who}")

    @property
    def who(self) -> str:
        """The holder in words."""
        return "another process" if self.holder is None else f"process {self.holder}"


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
        HeldError: Another has it, be it in this process.
        OSError: The file cannot be made, or its file system has no locks.
    """
    handle = _take(path)
    try:
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        yield
    finally:
        if sys.platform != "win32":
            path.unlink(missing_ok=True)  # while it is held, or another could lock what is then removed
        os.close(handle)
        if sys.platform == "win32":
            with suppress(OSError):  # an open file cannot be removed there: not ours before, nor another's now
                path.unlink(missing_ok=True)


def _take(path: Path) -> int:
    """Return the handle of a lock file that is locked, and that still is the one of that name."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if sys.platform == "win32":
                os.lseek(handle, _LOCKED_BYTE, os.SEEK_SET)
                msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
                os.lseek(handle, 0, os.SEEK_SET)
            else:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):  # its last holder removed it between our opening and our locking
                if os.path.samestat(os.fstat(handle), path.stat()):
                    return handle
        except (BlockingIOError, PermissionError) as error:
            os.close(handle)
            raise LockHeldError(path, _holder(path)) from error
        except OSError:
            os.close(handle)
            raise
        os.close(handle)


def _holder(path: Path) -> int | None:
    with suppress(OSError):
        said = path.read_text(encoding="utf-8", errors="replace").strip()
        return int(said) if said.isdecimal() else None
    return None
