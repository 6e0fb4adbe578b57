"""Files whole or absent, and locks that end with their process."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

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
