"""Who made a checkpoint: versions, machine, and which process took which steps. Loads no framework."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping
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
class Session:
    """What one process does of one stage.

    Args:
        from_step: Steps that were taken before.
        framework, device: What does the arithmetic, and where.
        before: The history of the checkpoint that it goes on from.
        started: When it began.
    """

    from_step: int
    framework: str
    device: str
    before: tuple[Mapping[str, Any], ...] = ()
    started: str = field(default_factory=now)

    @classmethod
    def after(cls, state: Mapping[str, Any] | None, *, framework: str, device: str) -> Session:
        """Begin a session that goes on from a checkpoint's state, or from nothing."""
        if state is None:
            return cls(0, framework, device)
        return cls(int(state["step"]), framework, device, tuple(state.get("history", ())))

    def history(self, to_step: int) -> list[dict[str, Any]]:
        """Return the sessions that led to a step, oldest first, this one last."""
        own = {
            "from_step": self.from_step,
            "to_step": to_step,
            "framework": self.framework,
            "device": self.device,
            "sampan": __version__,
            "started": self.started,
            "ended": now(),
            "machine": machine(),
        }
        return [*(dict(entry) for entry in self.before), own]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
