"""Weights from safetensors files and from host arrays, on TensorFlow. They are fp32 here, whatever they are stored as.

Read one tensor at a time out of a memory-mapped file, so that a large folder needs no second copy of itself. Nothing is
written: what TensorFlow computes is compared, not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from sampan.bench.tensorflow import device as dev
from sampan.bench.tensorflow.nn import Module
from sampan.errors import DeviceError
from sampan.frameworks import weight_files


def shapes(module: Module) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of a module's weights. The module may have no memory for them yet."""
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def load_weights(
    module: Module,
    files: Mapping[str, Path],
    *,
    device: str,
    dtype: str = "fp32",
    arrays: Mapping[str, Any] | None = None,
    trainable: Callable[[str], bool] = lambda name: True,
    prefix: str = "",
    name: str = "the model",
) -> None:
    """Give a module that was built without memory its weights, in fp32.

    Nothing is read before names, shapes and stored dtypes of all tensors are found to be right.

    Args:
        files: Tensor name to the safetensors file that holds it. With `arrays`, all the module's, and no other.
        device: Taken for the other frameworks' sake: there is the CPU.
        dtype: "fp32".
        arrays: Tensor name to an array of the host, for those that no file has. They are asked for one at a time.
        trainable: Says of a name whether it is trained.
        prefix: Beginning of the module's names that the files do not have.
        name: What errors call the module.

    Raises:
        CheckpointError: A tensor is missing, unexpected, of another shape or quantized, or a file cannot be read.
        DeviceError: Another dtype than "fp32", or there is not enough memory.
    """
    dev.resolve_dtype(dtype, device)
    try:
        for tensor_name, value in weight_files.read_weights(
            shapes(module), files, arrays or {}, framework="np", name=name, prefix=prefix
        ):
            variable = tf.Variable(tf.constant(np.asarray(value).astype(np.float32)), trainable=trainable(tensor_name))
            module.put_parameter(tensor_name, variable)
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise DeviceError(f"{name} does not fit in memory", str(error).split(". ", maxsplit=1)[0]) from error


def put_weights(module: Module, values: Mapping[str, Any]) -> None:
    """Copy values, arrays of the host or of the framework, into some of a module's weights.

    Raises:
        ValueError: The module has no such weight, or one of another shape.
    """
    weights = dict(module.named_parameters())
    for name, value in values.items():
        if name not in weights or tuple(weights[name].shape) != tuple(value.shape):
            raise ValueError(f"the module has no weight `{name}` of shape {tuple(value.shape)}")
        weights[name].assign(tf.cast(value, weights[name].dtype))
