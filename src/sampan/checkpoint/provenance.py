"""Who made a checkpoint: versions, machine, and which process took which steps. Loads no framework."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sampan import __version__


def now() -> str:
    """Return the time as every file of a run writes it: UTC, to the second, as "2026-11-23T18:04:05+00:00"."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions(framework: str) -> dict[str, str | None]:
    """Return the versions that numbers can depend on; None for what is not installed as a package."""
    return {
        "sampan": __version__,
        "python": platform.python_version(),
        "numpy": _version("numpy"),
        framework: _version(framework),
    }


def machine() -> dict[str, Any]:
    """Return which machine this is: its name, system, processor kind and number of CPU cores."""
    return {
        "host": platform.node(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": platform.machine(),
        "cores": os.cpu_count(),
    }


@dataclass(frozen=True)
class StageSession:
    """What one process does of one stage.

    Args:
        from_step: Steps that were taken before.
        framework, device: What does the arithmetic, and where.
        dtype, threads: Of matrix products, and of the CPU; None where they are not known. Sums depend on both.
        num_ranks: Processes that shared each step.
        before: The history of the checkpoint that it goes on from.
        started: When it began.
    """

    from_step: int
    framework: str
    device: str
    before: tuple[Mapping[str, Any], ...] = ()
    started: str = field(default_factory=now)
    dtype: str | None = None
    threads: int | None = None
    num_ranks: int = 1

    @classmethod
    def after(
        cls,
        state: Mapping[str, Any] | None,
        *,
        framework: str,
        device: str,
        dtype: str | None = None,
        threads: int | None = None,
        num_ranks: int = 1,
    ) -> StageSession:
        """Begin a session that goes on from a checkpoint's state, or from nothing."""
        if state is None:
            return cls(0, framework, device, dtype=dtype, threads=threads, num_ranks=num_ranks)
        before = tuple(state.get("history", ()))
        step = int(state["step"])
        return cls(step, framework, device, before, dtype=dtype, threads=threads, num_ranks=num_ranks)

    def place(self) -> dict[str, Any]:
        """Return what does the arithmetic: framework, its version, device, dtype and threads."""
        return place_of(self._where())

    def history(self, to_step: int) -> list[dict[str, Any]]:
        """Return the sessions that led to a step, oldest first, this one last."""
        own = {
            "from_step": self.from_step,
            "to_step": to_step,
            **self._where(),
            "started": self.started,
            "ended": now(),
            "machine": machine(),
        }
        return [*(dict(entry) for entry in self.before), own]

    def _where(self) -> dict[str, Any]:
        return {
            "framework": self.framework,
            "device": self.device,
            "dtype": self.dtype,
            "threads": self.threads,
            "ranks": self.num_ranks,
            "versions": versions(self.framework),
        }


def versions_of(entry: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the versions that a record of a history has; older records have that of sampan alone."""
    return dict(entry.get("versions") or {"sampan": entry.get("sampan")})


def place_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return of a record what the numbers depend on: framework, its version, device, dtype, threads; None: not known."""
    version = versions_of(entry).get(entry["framework"])
    return {"version": version, **{key: entry.get(key) for key in ("framework", "device", "dtype", "threads")}}


def in_words(place: Mapping[str, Any]) -> str:
    """Return a place as "torch 2.13.0 on cpu in fp32"."""
    name = " ".join(filter(None, (place["framework"], place["version"])))
    return f"{name} on {place['device']}" + (f" in {place['dtype']}" if place["dtype"] else "")


def taken_by(history: Iterable[Mapping[str, Any]], first: int, last: int) -> list[dict[str, Any]]:
    """Return the records of those who took the steps after `first` up to `last`, oldest first."""
    return [dict(entry) for entry in history if entry["from_step"] < last and entry["to_step"] > first]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
