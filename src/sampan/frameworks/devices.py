"""What the frameworks share about devices: how they are described, how fast they multiply, and what is said when one has no
memory left. Loads no framework."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any

Device = dict[str, Any]

_PROBE_S, _REPEATS = 0.5, 3  # how long it is looked for, and how often at each size


def matmul_flops_per_s(device: str, seconds: Callable[[int, int], float]) -> float:
    """Return the best rate that is seen in about half a second, in FLOP/s.

    The side of the matrices is doubled as long as there is time.

    Args:
        seconds: Called with a side and a count; multiplies two square matrices so often and returns how long it took.
    """
    sides = (256, 512, 1024, 2048) if device == "cpu" else (1024, 2048, 4096, 8192)
    seconds(64, 1)  # loads the libraries; may take long
    best, ends = 0.0, time.perf_counter() + _PROBE_S
    for side in sides:
        once_s = seconds(side, 1)
        for _ in range(_REPEATS):
            best = max(best, 2 * side**3 / once_s)
            # half of what is left is for this size
            count = int((ends - time.perf_counter()) / once_s / (2 * _REPEATS))
            if count < 1:
                break
            once_s = seconds(side, count) / count
        best = max(best, 2 * side**3 / once_s)
        if ends - time.perf_counter() < 10 * once_s:  # the next size takes eight times as long
            break
    return best


def no_memory(error: Exception, signs: Collection[str]) -> str | None:
    """Return what an error says of memory that is not there: one sentence; None of every other error.

    Args:
        signs: What stands in such a message of a framework.
    """
    sentences = str(error).strip().partition("\n")[0].split(". ")
    said = next((sentence for sentence in sentences if any(sign in sentence for sign in signs)), None)
    return said or "no memory is left" if isinstance(error, MemoryError) else said


def probe_devices(
    available: Callable[[], list[str]], look: Mapping[str, Callable[[list[str]], list[Device]]]
) -> tuple[list[Device], list[str]]:
    """Return the devices of all kinds that are there, as `describe` has them, and what the framework complained about.

    Args:
        available: Returns the kinds of device.
        look: Kind to the function that describes its devices; what could not be seen it appends to the list it gets.
    """
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        devices = [device for kind in available() for device in look[kind](notes)]
    notes += [first_line(warning.message) for warning in caught]
    return devices, list(dict.fromkeys(notes))


def describe(device: str, dtype: str, **facts: Any) -> Device:
    """Return what a probe says of a device; a fact that the device does not tell is None.

    Args:
        device: As --device takes it.
        dtype: What --dtype auto takes there.
        facts: Some of `name`, `capability`, `memory_bytes`, `free_bytes`, and `bf16`: "fast", "slow", or "no" where there
            are no products in it.
    """
    unknown = dict.fromkeys(("name", "capability", "memory_bytes", "free_bytes", "bf16"))
    return {"device": device, **unknown, **facts, "dtype": dtype}


def first_line(error: object) -> str:
    """Return the first line of what an error or a warning says."""
    return str(error).strip().splitlines()[0]
