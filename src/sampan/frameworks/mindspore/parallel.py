"""The ranks of a run, on MindSpore: processes that `msrun` starts, over HCCL on Ascend and MindSpore's own on a CPU.

What ranks exchange in a step are flat fp32 vectors. ReduceScatter is used where the device has it; MindSpore has none on a
CPU, and there the whole sum is made on every rank and each keeps its slice.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
from mindspore import Tensor, ops
from mindspore import communication as comm

from sampan.errors import DeviceError
from sampan.frameworks.mindspore.device import is_ascend

SHARES_UNEVENLY = False
SAVES_BESIDE = False  # ranks have one group, and its collectives must come in one order
_LAUNCHED = "MS_ROLE"  # msrun sets it, for the scheduler too, which stays in `init` until the ranks are done
_state: dict[str, Any] = {"rank": 0, "ranks": 1}


def start(device: str, timeout_s: float) -> str:
    """Join the ranks that msrun started, and return the device, which was resolved before; without msrun there is one rank.

    Args:
        timeout_s: Not looked at: msrun looks after its ranks.

    Raises:
        DeviceError: The ranks do not find each other.
    """
    if "AllReduce" in _state or _LAUNCHED not in os.environ:
        return device
    try:
        comm.init()
    except RuntimeError as error:
        raise DeviceError(
            f"the {os.environ.get('MS_WORKER_NUM')} ranks of msrun do not find each other",
            str(error).strip().splitlines()[0],
            "is another run using this --master_port?",
        ) from error
    _state.update(rank=comm.get_rank(), ranks=comm.get_group_size(), AllReduce=ops.AllReduce())
    return device


def watch() -> None:
    """Return what looks after the other ranks: msrun does."""


def stop() -> None:
    """Leave the ranks, so that a process can end."""


def rank() -> int:
    """Return this process's number, from 0."""
    return _state["rank"]


def num_ranks() -> int:
    """Return how many processes share a step."""
    return _state["ranks"]


def layout(parallel: str, replicate: int | None, shard: int | None) -> tuple[int, int]:
    """Return the degrees (dp_replicate, dp_shard) of this run: weights are on every rank, the optimizer is shared by all.

    Raises:
        DeviceError: Another layout is asked for.
    """
    if parallel == "fsdp" or (replicate or num_ranks()) != num_ranks() or (shard or 1) != 1:
        raise DeviceError(
            "the job's layout of ranks is not to be had on MindSpore",
            "there every rank holds the weights, and the ranks share moments and average",
            'leave place.dp_replicate, place.dp_shard and place.parallel out, or use place.framework = "torch"',
        )
    return num_ranks(), 1


def barrier() -> None:
    """Wait for all ranks."""
    if num_ranks() > 1:
        total(Tensor(np.zeros(1, np.float32))).asnumpy()


def total(x: Tensor) -> Tensor:
    """Return the sum of every rank's array; all have the same shape."""
    return _operator("AllReduce")(x) if num_ranks() > 1 else x


def scattered(x: Tensor) -> Tensor:
    """Return this rank's slice of the sum of every rank's vector, whose length divides by the number of ranks."""
    if num_ranks() == 1:
        return x
    if is_ascend():
        return _operator("ReduceScatter")(x)
    size = x.shape[0] // num_ranks()
    return total(x)[rank() * size : (rank() + 1) * size]


def whole(x: Tensor) -> Tensor:
    """Return every rank's vector, one after another."""
    return _operator("AllGather")(x) if num_ranks() > 1 else x


def gathered(value: Any, *, saving: bool = False) -> list[Any]:
    """Return every rank's plain value (JSON), in order; `saving` makes no difference."""
    if num_ranks() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = whole(Tensor(np.array([len(text)], np.float32))).asnumpy().astype(int)
    padded = np.zeros(sizes.max(), np.float32)  # fp32 is what every backend gathers; a byte is exact in it
    padded[: len(text)] = text
    rows = whole(Tensor(padded)).asnumpy().reshape(num_ranks(), -1).astype(np.uint8)
    return [json.loads(bytes(row[:size])) for row, size in zip(rows, sizes, strict=True)]


def from_last(arrays: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """Return the last rank's host arrays, of fp32 or integers below 2**24, on every rank."""
    if num_ranks() == 1:
        return arrays
    facts = gathered({name: [list(a.shape), a.dtype.str] for name, a in arrays.items()})[-1]
    found = {}
    for name, (shape, dtype) in facts.items():
        own = arrays[name].astype(np.float32) if rank() == num_ranks() - 1 else np.zeros(shape, np.float32)
        found[name] = total(Tensor(np.ascontiguousarray(own))).asnumpy().astype(dtype)
    return found


def _operator(name: str) -> Any:
    """Return a collective over all ranks; made once."""
    if name not in _state:
        _state[name] = getattr(ops, name)()
    return _state[name]


__all__ = [
    "SAVES_BESIDE",
    "SHARES_UNEVENLY",
    "barrier",
    "from_last",
    "gathered",
    "layout",
    "num_ranks",
    "rank",
    "scattered",
    "start",
    "stop",
    "total",
    "watch",
    "whole",
]
