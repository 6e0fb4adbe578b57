"""Exit statuses, and what is said with each: errors without a traceback, surprises with one."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from sampan.cli import main
from sampan.errors import CheckpointError


@pytest.fixture
def raising(monkeypatch):
    """Make the verb `checkpoint export` raise an exception."""

    def put(error: BaseException) -> None:
        def export(*args: object) -> None:
            raise error

        fake = ModuleType("sampan.checkpoint.export")
        fake.export = export  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "sampan.checkpoint.export", fake)

    return put


EXPORT = ["checkpoint", "export", "run", "folder"]


def test_an_error_is_printed_and_gives_1(raising, capsys):
    raising(CheckpointError("`run` is not a run", ("it has no run.json",), "sampan train"))
    assert main(EXPORT) == 1
    said = capsys.readouterr()
    assert said.err == "error: `run` is not a run\n  because it has no run.json\n\nhint: sampan train\n"
    assert said.out == ""


def test_an_interruption_is_one_line_and_gives_130(raising, capsys):
    raising(KeyboardInterrupt())
    assert main(EXPORT) == 130
    assert capsys.readouterr().err.strip() == "error: interrupted"


def test_a_surprise_keeps_its_traceback(raising):
    raising(ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        main(EXPORT)


@pytest.mark.parametrize("line", [["--version"], ["init", "FILE"]])
@pytest.mark.skipif(sys.platform == "win32", reason="Windows reports a closed pipe in another way")
def test_a_reader_that_went_away_is_no_error_to_talk_about(line, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        words = [str(tmp_path / "job.toml") if word == "FILE" else word for word in line]
        command = [sys.executable, "-m", "sampan", *words]
        # without buffering, argparse meets the closed pipe by itself and keeps silent about it
        buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, env=buffered, timeout=60, check=False)
    assert done.stderr == b""
    assert done.returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("verb", [["--version"], ["screen", "--check-rules"]])
def test_a_full_stdout_is_one_error(verb):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "wb") as disk:
        done = subprocess.run(
            [sys.executable, "-m", "sampan", *verb],
            stdout=disk, stderr=subprocess.PIPE, text=True, check=False, env=environment,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == (
        "error: stdout cannot be written\n  because No space left on device\n\nhint: make room, or name another place\n"
    )


def test_a_disk_without_room_is_one_error(raising, capsys):
    raising(OSError(errno.EROFS, "Read-only file system", "folder/a"))
    assert main(EXPORT) == 1
    assert capsys.readouterr().err == (
        "error: `folder/a` cannot be written\n  because Read-only file system\n\nhint: make room, or name another place\n"
    )
    raising(OSError(errno.ENOSPC, "No space left on device"))
    assert main(EXPORT) == 1
    assert capsys.readouterr().err.startswith("error: a file, or stdout, cannot be written\n")
    raising(OSError(errno.EIO, "broken"))
    with pytest.raises(OSError, match="broken"):
        main(EXPORT)
