"""What worker processes run in tests, and a program that waits for some."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from sampan.data.workers import map_in_order


def double(number: int) -> int:
    """Return twice a number, later for smaller ones."""
    time.sleep(0.02 * max(0, 3 - number))
    return 2 * number


def refuse(number: int) -> int:
    """Raise at 2."""
    if number == 2:
        raise KeyError(number)
    return number


def end(number: int) -> int:
    """End the process at 2, as a lack of memory does."""
    if number == 2:
        os._exit(9)
    return number


def linger(_: int) -> int:
    """Say which process this is, and stay."""
    sys.stdout.write(f"{os.getpid()}\n")
    sys.stdout.flush()
    time.sleep(1 if os.environ.get("BRIEFLY") else 60)
    return 0


@dataclass(frozen=True)
class Telling:
    """A picture that writes down which modules its process has."""

    path: Path
    said: Path

    @property
    def name(self) -> str:
        return self.path.name

    def fingerprint(self) -> str:
        return "1"

    def read(self) -> bytes:
        self.said.write_text("\n".join([str(os.getpid()), *sys.modules]))
        return self.path.read_bytes()


if __name__ == "__main__":
    # a shell that starts tests in the background leaves Ctrl-C ignored in all that they start
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for _ in map_in_order(linger, range(4), 2, 4):
        pass
