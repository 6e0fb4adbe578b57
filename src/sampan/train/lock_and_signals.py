"""What keeps a run whole: one training a folder, and signals that wait for the end of a step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sampan import files
from sampan.errors import CheckpointError, LockHeldError

_AHEAD = getattr(signal, "SIGUSR1", None)
_STOPPING = tuple(number for number in (signal.SIGINT, signal.SIGTERM, _AHEAD) if number is not None)


@contextmanager
def lock_run(out: Path) -> Iterator[None]:
    """Keep a second training out of the run folder; the lock of a process that is gone holds nobody up.

    Raises:
        CheckpointError: Another training holds it, or nothing can be written there.
    """
    made = False
    try:
        with ExitStack() as stack:
            try:
                made = not out.exists()
                out.mkdir(parents=True, exist_ok=True)
                files.try_place(out)
                stack.enter_context(files.locked(out / ".lock"))
            except LockHeldError as error:
                raise CheckpointError(
                    f"another training is running in `{out}`", f"{error.who} holds it", "wait for it or stop it first"
                ) from error
            except OSError as error:
                raise CheckpointError(
                    f"the run folder `{out}` cannot be written", str(error), "set `out` to another folder, or make room"
                ) from error
            yield
    finally:
        if made and out.is_dir() and not any(out.iterdir()):  # refused before it began: nothing stays behind
            out.rmdir()


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Yield a list that the first interrupt, termination or SIGUSR1 fills, so that a step is never cut in two.

    SIGUSR1 is what a batch system sends ahead of the end of a job's time; it may come often. A second one of the others ends
    the program at once. Outside the main thread signals cannot be caught, and nothing changes.
    """
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        if number != _AHEAD and any(before != _AHEAD for before in asked):
            raise KeyboardInterrupt
        asked.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, ask) for number in _STOPPING}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
