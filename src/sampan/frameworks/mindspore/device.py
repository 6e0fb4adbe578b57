"""Devices on MindSpore: which there are, which dtype suits them, host arrays in and out, memory.

MindSpore has one device a process, and moves an array there when an operation needs it. `resolve` sets it. Whether it is an
Ascend chip is asked in one place, `is_ascend`.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, mint
from mindspore.common.api import _pynative_executor  # pyright: ignore[reportAttributeAccessIssue]
from mindspore.nn.utils import no_init_parameters

from sampan import host
from sampan.errors import DeviceError
from sampan.frameworks import devices

DTYPES = {"fp32": ms.float32, "bf16": ms.bfloat16, "fp16": ms.float16}
# what stands in a RuntimeError of a full device: MindSpore has no class of its own for it
_NO_MEMORY = ("Allocate memory failed", "Memory not enough", "Out of memory", "out of memory")
_NUMPY_OF = {"fp32": np.float32, "fp16": np.float16}


@cache
def _target() -> list[str]:
    """Return a list with the device that was resolved; empty before."""
    return []


def is_ascend() -> bool:
    """Say whether this process computes on an Ascend chip: the one question by which adapters choose fused operators."""
    return bool(_target()) and _target()[0].startswith("npu")


def available() -> list[str]:
    """Return the kinds of device this process can use, best first; "cpu" is always the last."""
    contexts: Any = ms.device_context
    return ["npu", "cpu"] if contexts.ascend.is_available() else ["cpu"]


def resolve(name: str) -> str:
    """Return a device that is there, the best one for "auto", else the one named, and make it the one of this process.

    Raises:
        DeviceError: The named device is not there, or this process has computed on another one.
    """
    found = available()
    if name == "auto":
        name = found[0]
    kind, _, number = name.partition(":")
    if kind not in found:
        why = {
            "npu": "this MindSpore finds no Ascend device: it needs CANN in the version that goes with it",
            "cuda": "MindSpore runs on Ascend and on CPUs; PyTorch runs on NVIDIA GPUs",
        }.get(kind, f"MindSpore knows no such device; here are: {', '.join(found)}")
        raise DeviceError(f"there is no `{name}` device", why, f"use device {found[0]}, or auto")
    if _target() and _target()[0] != name:
        raise DeviceError(f"this process computes on `{_target()[0]}` and cannot change to `{name}`")
    if not _target():
        if kind == "cpu":
            # one thread hands operations to another and both wait by spinning; on a CPU that takes several times as long
            # as to run them at once, and an operator that fails is reported by a later one
            ms.runtime.launch_blocking()
        ms.set_device("Ascend" if kind == "npu" else "CPU", *([int(number)] if number and kind == "npu" else []))
        _target().append(name)
    return name


def resolve_dtype(name: str, device: str) -> str:
    """Return "fp32", "bf16" or "fp16": the named one, or for "auto" bf16 on Ascend and fp32 on a CPU.

    Raises:
        DeviceError: bf16 on a CPU, where MindSpore has no matrix products in it.
    """
    on_npu = device.startswith("npu")
    if name == "auto":
        return "bf16" if on_npu else "fp32"
    if name == "bf16" and not on_npu:
        raise DeviceError(
            "MindSpore does not compute in bf16 on a CPU",
            "it stores bf16 there, but has no matrix products, sums or softmax in it",
            "use dtype fp32 or fp16 there, or PyTorch",
        )
    return name


def dtype(name: str) -> Any:
    """Return the framework's dtype of "fp32", "bf16" or "fp16"."""
    return DTYPES[name]


def on_meta() -> AbstractContextManager[Any]:
    """Return a context in which modules are built without memory."""
    return no_init_parameters()


def array(values: Any, device: str, dtype: str | None = None) -> Tensor:
    """Return a host array as the framework's own; floating values in the named dtype where one is given."""
    found = np.ascontiguousarray(values)
    if dtype in _NUMPY_OF and found.dtype.kind == "f":
        found = found.astype(_NUMPY_OF[dtype])
    tensor = Tensor(found)
    return tensor.astype(DTYPES[dtype]) if dtype is not None and found.dtype.kind == "f" else tensor


def zeros(shape: tuple[int, ...], device: str, dtype: str) -> Tensor:
    """Return zeros."""
    return array(np.zeros(shape, np.float32), device, dtype)


def to_numpy(tensor: Any) -> np.ndarray[Any, Any]:
    """Return a tensor's values on the host, in memory of their own; bf16 becomes fp32."""
    if isinstance(tensor, np.ndarray):
        return tensor
    return (tensor.astype(ms.float32) if tensor.dtype == ms.bfloat16 else tensor).asnumpy().copy()


def no_grad() -> AbstractContextManager[Any]:
    """Return a context that records nothing for gradients."""
    return ms._no_grad()


def compiled(module: Any) -> Callable[..., Any]:
    """Return a module as a function that is compiled, once for each set of shapes; its arguments are tensors and tuples."""

    def call(*arguments: Any) -> Any:
        return module(*arguments)

    graph = ms.jit(call)

    def run(*arguments: Any) -> Any:
        # a tuple would be a constant of the graph, and a cache with new tensors in it another graph at every token
        return graph(*(ms.mutable(given) if isinstance(given, tuple) else given for given in arguments))

    return run


def seed(value: int) -> None:
    """Seed the framework's own generator, which nothing here draws from."""
    ms.set_seed(value % 2**32)


def set_threads(count: int | None) -> int:
    """Use `count` CPU cores where given; return how many are used.

    MindSpore makes its threads when it is imported. So that a job can still say how many, all of them are held to that many
    cores, where the system lets a process do that (Linux).
    """
    if not hasattr(os, "sched_setaffinity"):
        return os.cpu_count() or 1
    allowed = sorted(os.sched_getaffinity(0))
    if count is not None and count < len(allowed):
        for thread in host.thread_ids():
            with contextlib.suppress(ProcessLookupError):  # a thread that has ended meanwhile
                os.sched_setaffinity(thread, allowed[:count])
        ctypes.CDLL("libgomp.so.1").omp_set_num_threads(count)
    return len(os.sched_getaffinity(0))


def default_threads(choice: host.ThreadChoice) -> int:
    """Leave MindSpore its own threads: fewer could only be had by holding all of them to the same few cores."""
    return set_threads(None)


def out_of_memory(error: Exception) -> str | None:
    """Return MindSpore's words where an error says that there is no memory left, or None."""
    return devices.no_memory(error, _NO_MEMORY) if isinstance(error, RuntimeError | MemoryError) else None


def move(module: Any, device: str) -> None:
    """Do nothing: MindSpore moves weights when they are used."""


def release(device: str) -> None:
    """Give memory of freed parts back to the device."""
    gc.collect()
    if device.startswith("npu"):
        ms.runtime.empty_cache()


def synchronize(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device.startswith("npu"):
        ms.runtime.synchronize()
    else:
        _pynative_executor.sync()


def memory_bytes(device: str) -> tuple[int | None, int | None]:
    """Return a device's memory and what of it this process can still have; None is what the device does not tell."""
    if not device.startswith("npu"):
        return host.memory_bytes()
    (zeros((1,), device, "fp32") + 1).asnumpy()  # before its first operation a chip is said to have no memory
    facts = ms.hal.get_device_properties(0)  # of the current device, whatever number is given
    kept = ms.runtime.memory_reserved() - ms.runtime.memory_allocated()  # of freed arrays, and had again
    return int(facts.total_memory), int(facts.free_memory) + int(kept)


def peak_memory_bytes(device: str) -> int | None:
    """Return the most memory that was taken so far.

    On Ascend it is that of tensors on the device; on a CPU that of the whole process, the program included.
    """
    return int(ms.runtime.max_memory_allocated()) if device.startswith("npu") else host.peak_memory_bytes()


def matmul_flops_per_s(device: str, dtype: str) -> float:
    """Return the rate at which a device multiplies square matrices of a dtype: the best of a short probe."""
    matrices: dict[int, Tensor] = {}

    def seconds(side: int, count: int) -> float:
        matrix = matrices.setdefault(side, zeros((side, side), device, dtype) + 1)
        synchronize(device)
        start = time.perf_counter()
        for _ in range(count):
            product = mint.matmul(matrix, matrix)
        synchronize(device)
        del product
        return time.perf_counter() - start

    return devices.matmul_flops_per_s(device, seconds)
