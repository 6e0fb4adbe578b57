"""A training in a process of its own, which may kill itself before a file is touched for the n-th time.

The processes are forked from one that has loaded the framework and never computed.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from sampan.job import parse
from sampan.train.loop import _StageRun
from sampan.train.stages import ar, decoder  # noqa: F401  # loaded once, for all processes
from unit.train.conftest import train

# what Python reports of files before it happens; fsync is not among it
_EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate")


class Boundaries:
    """Counts what is done to the files below a folder, and ends the process before one of it.

    Args:
        kill_at: Before which, from 1; None: none.
        counted: File that says at the end how many there were.
    """

    def __init__(self, folder: str, kill_at: int | None, counted: Path | None):
        self.folder, self.kill_at, self.counted, self.count = folder, kill_at, counted, 0
        really = os.fsync

        def fsync(handle: Any) -> None:
            is_here = str(Path(f"/proc/self/fd/{handle}").readlink()).startswith(folder)
            if is_here:
                self.pass_one()
            really(handle)
            if is_here:
                self.pass_one()  # what is synced is there, and nobody knows yet

        os.fsync = fsync
        sys.addaudithook(self.see)

    def see(self, event: str, details: tuple[Any, ...]) -> None:
        """Take note of an event of Python's audit hooks."""
        if event in _EVENTS and isinstance(details[0], str | os.PathLike) and str(details[0]).startswith(self.folder):
            is_read = event == "open" and not (int(details[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            if not is_read:
                self.pass_one()

    def pass_one(self) -> None:
        """Count, and kill where it is time."""
        self.count += 1
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def say(self) -> None:
        """Write how many there were."""
        if self.counted is not None:
            self.counted.write_text(str(self.count), encoding="utf-8")


def go_on(text: str, out: str, settings: tuple[str, ...], kill_at: int | None, counted: Path | None) -> None:
    """Train a job to its end, from where it is."""
    gc.freeze()  # what was loaded before stays, and need not be looked through
    _StageRun._sample = lambda *_: None  # it takes most of the time, and comes after the save
    boundaries = Boundaries(f"{out}/stages", kill_at, counted) if kill_at or counted else None
    train(parse(text, [f"out={out}", *settings]), resume=True)
    if boundaries:
        boundaries.say()


def run(
    text: str, out: Path, *settings: str, kill_at: int | None = None, kill_after_s: float | None = None,
    counted: Path | None = None,
) -> tuple[bool, float]:  # fmt: skip
    """Go on with a training in another process; return whether it was killed, and after how many seconds it ended.

    Args:
        kill_after_s: Kill it from outside after so long.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["unit.train.killed", "sampan.frameworks.torch.train_step"])
    tests = str(Path(__file__).parents[2])
    if tests not in (paths := os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*paths, tests]))  # what is loaded once is found there
    process = context.Process(target=go_on, args=(text, out.as_posix(), settings, kill_at, counted))
    begun = time.monotonic()
    process.start()
    process.join(kill_after_s)
    if process.is_alive():
        process.kill()
        process.join()
    assert process.exitcode in (0, -signal.SIGKILL), f"it ended with {process.exitcode}"
    return process.exitcode != 0, time.monotonic() - begun
