"""Exit statuses, and what is said with each: errors without a traceback, surprises with one."""

from __future__ import annotations

import os
import subprocess
import sys
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
