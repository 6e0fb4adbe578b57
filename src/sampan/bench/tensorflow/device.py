"""The CPU on TensorFlow: host arrays in and out, threads, memory.

The comparison is on the CPU, where all frameworks are; a GPU that this TensorFlow may see is left alone.
"""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import tensorflow as tf

from sampan import host
from sampan.bench.tensorflow.nn import without_memory
from sampan.errors import DeviceError
from sampan.frameworks import devices

DTYPES = {"fp32": tf.float32}
_THREADS = "TF_NUM_INTRAOP_THREADS"  # OMP_NUM_THREADS says nothing to TensorFlow


def available() -> list[str]:
    """Return the kinds of device this process can use: the CPU."""
    return ["cpu"]


def resolve(name: str) -> str:
    """Return "cpu", for "auto" too, and keep TensorFlow from taking memory of GPUs.

    Raises:
        DeviceError: Another device is named.
    """
    if name not in ("auto", "cpu"):
        raise DeviceError(
            f"there is no `{name}` device",
            "sampan runs TensorFlow on the CPU, where it is compared with the others",
            "use --device cpu",
        )
    if tf.config.list_physical_devices("GPU"):
        tf.config.set_visible_devices([], "GPU")
    return "cpu"


def resolve_dtype(name: str, device: str) -> str:
    """Return "fp32", for "auto" too.

    Raises:
        DeviceError: Another dtype is named.
    """
    if name not in ("auto", "fp32"):
        raise DeviceError(
            f"sampan does not compute in {name} on TensorFlow",
            "it is there for the comparison, and that is in fp32",
            "use dtype fp32",
        )
    return "fp32"


def on_meta() -> AbstractContextManager[Any]:
    """Return a context in which modules are built without memory."""
    return without_memory()


def array(values: Any, device: str, dtype: str | None = None) -> tf.Tensor:
    """Return a host array as the framework's own; floating values in the named dtype where one is given."""
    found = np.asarray(values)
    wanted = DTYPES[dtype] if dtype is not None and np.issubdtype(found.dtype, np.floating) else None
    return tf.constant(found, wanted)


def zeros(shape: tuple[int, ...], device: str, dtype: str) -> tf.Tensor:
    """Return zeros."""
    return tf.zeros(shape, DTYPES[dtype])


def to_numpy(tensor: Any) -> np.ndarray[Any, Any]:
    """Return a tensor's values on the host, in memory of their own."""
    return np.array(tensor)


def no_grad() -> AbstractContextManager[Any]:
    """Return a context that records nothing for gradients. Outside of a tape TensorFlow never does."""
    return nullcontext()


def seed(value: int) -> None:
    """Seed the framework's own generator, which nothing here draws from."""
    tf.random.set_seed(value)


def set_threads(count: int | None) -> int:
    """Use `count` CPU threads where given; return how many are used.

    They share the work within an operation, and operations run one after another: with a second pool for operations beside
    each other, TensorFlow would use more threads than were asked for.

    Raises:
        DeviceError: TensorFlow has computed something already: it makes its threads then.
    """
    threading = tf.config.threading
    if count is not None and threading.get_intra_op_parallelism_threads() != count:
        try:
            threading.set_intra_op_parallelism_threads(count)
            threading.set_inter_op_parallelism_threads(1)
        except RuntimeError as error:
            raise DeviceError(
                f"TensorFlow cannot change to {count} threads in this process",
                f"it has computed something already: {str(error).strip()}",
            ) from error
    # 0 is TensorFlow's own choice: what its environment variable says, or as many as there are cores
    return (
        threading.get_intra_op_parallelism_threads() or int(os.environ.get(_THREADS, "0")) or host.usable_cores() or 1
    )


def synchronize(device: str) -> None:
    """Wait until the device has done what it was given."""
    tf.test.experimental.sync_devices()


def peak_memory_bytes(device: str) -> int | None:
    """Return the most memory that the whole process took so far, the program included."""
    return host.peak_memory_bytes()


def matmul_flops_per_s(device: str, dtype: str) -> float:
    """Return the rate at which the CPU multiplies square matrices of "fp32": the best of a short probe."""
    matrices: dict[int, tf.Tensor] = {}

    def seconds(side: int, count: int) -> float:
        matrix = matrices.setdefault(side, tf.ones((side, side), DTYPES[dtype]))
        synchronize(device)
        start = time.perf_counter()
        for _ in range(count):
            product = tf.matmul(matrix, matrix)
        synchronize(device)
        elapsed = time.perf_counter() - start
        del product
        return elapsed

    return devices.matmul_flops_per_s(device, seconds)
