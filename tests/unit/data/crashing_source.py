"""Sources that worker processes can import: one that ends its process, and one that is slow."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Crashing:
    """A picture at which a process ends, as it does when a decoder reads where it must not."""

    name: str

    def fingerprint(self) -> str:
        return "1"

    def read(self) -> bytes:
        os._exit(9)


@dataclass(frozen=True)
class Slow:
    """A picture that takes its time, and counts how often it was read."""

    path: Path
    number: int
    seconds: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.number}.png"

    def fingerprint(self) -> str:
        return "1"

    def read(self) -> bytes:
        time.sleep(self.seconds)
        with open(self.path.with_name("read.txt"), "a", encoding="utf-8") as file:
            file.write(f"{self.number}\n")
        return self.path.read_bytes()
