"""One training a folder."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from sampan.errors import CheckpointError
from sampan.train.lock_and_signals import lock_run, stop_signals


def test_a_second_training_in_a_folder_is_refused(tmp_path: Path):
    out = tmp_path / "run"
    with lock_run(out):
        with pytest.raises(CheckpointError) as caught, lock_run(out):
            pass
        assert str(caught.value) == (
            f"error: another training is running in `{out}`\n"
            f"  because process {os.getpid()} holds it\n\n"
            "hint: wait for it or stop it first"
        )
        (out / "log.jsonl").write_text("")
    assert [path.name for path in out.iterdir()] == ["log.jsonl"]


def test_a_training_that_is_refused_before_it_begins_leaves_nothing(tmp_path: Path):
    out = tmp_path / "run"
    with pytest.raises(ValueError, match="refused"), lock_run(out):
        raise ValueError("refused")
    assert not out.exists()


def test_the_lock_of_a_killed_training_holds_nobody_up(tmp_path: Path):
    (tmp_path / ".lock").write_text(str(os.getpid()))  # the number of a process that is alive, and another by now
    with lock_run(tmp_path):
        pass
    assert tmp_path.exists() and not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_end_of_a_step_and_a_second_one_does_not(number: int):
    before = signal.getsignal(number)
    with stop_signals() as asked:
        os.kill(os.getpid(), number)
        assert asked == [number]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no SIGUSR1")
def test_the_signal_ahead_of_the_end_may_come_often():
    before = signal.getsignal(signal.SIGUSR1)
    with stop_signals() as asked:
        for _ in range(3):  # a queue sends it to the launcher and to its processes
            os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked == [signal.SIGUSR1] * 3 + [signal.SIGTERM]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGUSR1) is before
