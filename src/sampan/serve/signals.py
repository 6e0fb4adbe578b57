"""SIGINT and SIGTERM: the first lets a server finish what it took on, the second ends the process at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

_NUMBERS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGBREAK] if hasattr(signal, "SIGBREAK") else [])]  # type: ignore[attr-defined]


class EndSignals:
    """What a server does when it is told to end.

    Until `drain` is set nothing was taken on, and the first signal ends the process with 0. From then on the first
    calls `drain`, and the second ends the process at once with 128 + the signal's number, as shells count.
    """

    def __init__(self) -> None:
        self.drain: Callable[[], None] | None = None
        self._asked = False

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Listen to the signals while the block runs; outside of the main thread nobody can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle) for number in _NUMBERS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle(self, number: int, frame: Any) -> None:
        """Do what a signal asks for."""
        if self._asked:
            _end("ended at once, by a second signal", 128 + number)
        self._asked = True
        if self.drain is None:
            _end("ended before it was ready", 0)
        self.drain()


def _end(words: str, status: int) -> NoReturn:
    """End the process without a word of the interpreter: what is on the disk is whole after a kill too."""
    with suppress(OSError):
        os.write(2, f"{words}\n".encode())
    os._exit(status)
