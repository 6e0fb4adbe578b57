"""The ranks of a run, on PyTorch: there is one."""

from __future__ import annotations

import os
from typing import Any

from sampan.errors import DeviceError


def start(device: str) -> None:
    """Join the ranks of a launcher.

    Raises:
        DeviceError: A launcher has started several: training on PyTorch is one process in this version.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise DeviceError(
            f"this process is one of {os.environ['WORLD_SIZE']} of a launcher",
            "training on PyTorch is one process in this version; several ranks train on MindSpore, by msrun",
            "start it without torchrun",
        )


def rank() -> int:
    """Return this process's number, from 0."""
    return 0


def num_ranks() -> int:
    """Return how many processes share a step."""
    return 1


def barrier() -> None:
    """Wait for all ranks."""


def gathered(value: Any) -> list[Any]:
    """Return every rank's plain value (JSON), in order."""
    return [value]
