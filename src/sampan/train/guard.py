"""What keeps a run whole: one training a folder, and signals that wait for the end of a step."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sampan.errors import CheckpointError


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep a second training out of the run folder; the lock of a process that is gone is taken over."""
    made = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    lock = out / ".lock"
    if lock.is_file():
        holder = lock.read_text(encoding="utf-8").strip()
        if holder.isdigit() and int(holder) != os.getpid() and _alive(int(holder)):
            raise CheckpointError(
                f"another training is running in `{out}`",
                f"process {holder} holds it",
                f"wait for it or stop it first; if there is no such process, remove `{lock}`",
            )
    lock.write_text(str(os.getpid()), encoding="utf-8")
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        if made and not any(out.iterdir()):  # refused before it began: nothing stays behind
            out.rmdir()


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Yield a list that the first interrupt or termination fills, so that a step is never cut in two.

    A second one ends the program at once. Outside the main thread signals cannot be caught, and nothing changes.
    """
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _alive(process: int) -> bool:
    if os.name == "nt":  # os.kill would end the process there; a stale lock must be removed by hand
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
