"""Families of training software, recognised by the names that people give their stacks."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "frameworks.toml"


@dataclass(frozen=True, kw_only=True)
class FrameworkFamily:
    """What the members of a family have in common; the fields are explained at the top of frameworks.toml."""

    name: str
    words: tuple[str, ...]
    engine: str
    convention: str
    zero_stages: tuple[int, ...]
    axes: tuple[str, ...]
    interleaves: bool = False
    hides: bool = True
    makers: tuple[str, ...] = ()

    def runs_on(self, maker: str) -> bool:
        """Return whether it runs on a maker's chips, as far as is known."""
        return not self.makers or maker in self.makers


UNKNOWN = FrameworkFamily(
    name="unknown", words=(), engine="unknown", convention="megatron", zero_stages=(1, 3), axes=("tp", "pp", "cp", "ep")
)


@cache
def families() -> tuple[FrameworkFamily, ...]:
    """Return the families in the order in which they are tried."""
    tables: list[dict[str, Any]] = tomllib.loads(FILE.read_text(encoding="utf-8"))["family"]
    for table in tables:
        table.update({name: tuple(value) for name, value in table.items() if isinstance(value, list)})
    return tuple(FrameworkFamily(**table) for table in tables)


@cache
def family(name: str) -> FrameworkFamily:
    """Return the family of a framework's name, UNKNOWN where no family has a word of it."""
    text = name.lower()
    return next((f for f in families() if any(word in text for word in f.words)), UNKNOWN)


@cache
def line(name: str) -> str:
    """Return a framework's name without its versions, so that releases of one product are told to be one."""
    without = re.sub(r"\b[rv]?\d[\w.+]*", " ", name.lower())
    return " ".join(re.findall(r"[a-z]+", without)) or "unknown"
