"""Files whole or absent, and locks that end with their process."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sampan import files
from sampan.errors import LockHeldError
from sampan.files import cache_folder, file_mark

HOLD = """
import sys, time
from pathlib import Path
from sampan import files
from sampan.errors import LockHeldError
with files.locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_what_was_there_stays_until_the_new_file_is_complete(tmp_path: Path):
    path = tmp_path / "a"
    files.write_text(path, "old")
    with suppress(KeyboardInterrupt), files.replacing(path) as beside:
        beside.write_text("new")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_lock_is_held_once_and_leaves_nothing(tmp_path: Path):
    path = tmp_path / ".lock"
    with files.locked(path):
        assert path.stat().st_size
        with pytest.raises(LockHeldError) as caught, files.locked(path):
            pass
        assert caught.value.holder == os.getpid()
        assert str(caught.value) == f"`{path}` is held by process {os.getpid()}"
    assert not path.exists()
    with files.locked(path):
        pass


def test_a_lock_names_the_process_and_ends_with_it(tmp_path: Path):
    path = tmp_path / ".lock"
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    try:
        assert child.stdout.readline().strip() == b"held"
        with pytest.raises(LockHeldError) as caught, files.locked(path):
            pass
        assert caught.value.holder == child.pid
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    assert path.exists()  # killed, it could not remove it
    with files.locked(path):
        assert path.read_text().strip() == str(os.getpid())
    assert not path.exists()


def test_a_lock_file_that_says_nothing(tmp_path: Path):
    assert LockHeldError(tmp_path, None).who == "another process"
    (tmp_path / ".lock").write_text("not a number")
    with files.locked(tmp_path / ".lock"):
        pass
    with pytest.raises(FileNotFoundError), files.locked(tmp_path / "none" / ".lock"):
        pass


def test_a_lock_is_left_for_the_next_whatever_ends_the_block(tmp_path: Path):
    path = tmp_path / ".lock"
    with suppress(KeyboardInterrupt), files.locked(path):
        raise KeyboardInterrupt
    assert not path.exists()
    with files.locked(path), pytest.raises(LockHeldError), files.locked(path):
        pass
    assert not path.exists()


def test_what_is_appended_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "log"
    files.append_bytes(path, b"one\n")
    files.append_bytes(path, b"two\n")
    really = open

    class Full:
        """A file on a disk that takes three bytes more."""

        def __init__(self, file: Any):
            self.file, self.room = file, 3

        def write(self, content: bytes) -> int:
            if not self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            written = self.file.write(content[: self.room])
            self.room -= written
            return written

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *given: object) -> None:
            self.file.close()

    monkeypatch.setattr(files, "open", lambda *given, **named: Full(really(*given, **named)), raising=False)
    with pytest.raises(OSError, match="No space left"):
        files.append_bytes(path, b"three\n")
    assert path.read_bytes() == b"one\ntwo\n"


def test_a_place_is_tried_by_writing_and_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert files.try_place(tmp_path) > 0
    with pytest.raises(FileNotFoundError):
        files.try_place(tmp_path / "missing")

    def fails(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", fails)
    with pytest.raises(OSError, match="No space left"):
        files.try_place(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_cache_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "sampan"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cache_folder() == tmp_path / ".cache" / "sampan"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "sampan"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_folder() == tmp_path / "local" / "sampan" / "cache"


def test_a_mark_changes_with_the_file_and_a_fresh_file_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "x"
    path.write_bytes(b"1")
    assert file_mark(path) is None
    monkeypatch.setattr(files, "_SETTLED_NS", -1)
    first = file_mark(path)
    assert first is not None
    assert first.num_bytes == 1
    assert file_mark(path) == first
    status = path.stat()
    path.write_bytes(b"2")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert file_mark(path) != first
