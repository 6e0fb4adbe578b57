"""The rate at which a device multiplies matrices, looked for in a short probe. Loads no framework."""

from __future__ import annotations

import time
from collections.abc import Callable

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
