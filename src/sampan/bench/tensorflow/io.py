"""Weights from host arrays, on TensorFlow, in fp32. No file is read: what TensorFlow computes is compared, and not kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from sampan.bench.tensorflow.nn import Module
from sampan.frameworks import stored


def shapes(module: Module) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of a module's weights. The module may have no memory for them yet."""
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def load_weights(
    module: Module,
    files: Mapping[str, Path],
    *,
    device: str,
    arrays: Mapping[str, Any],
    trainable: Callable[[str], bool] = lambda name: True,
) -> None:
    """Give a module that was built without memory its weights, in fp32.

    Args:
        files: Taken for the other frameworks' sake: none is read.
        device: Likewise: there is the CPU.
        arrays: Parameter name to an array of the host. They are asked for one at a time.
        trainable: Says of a name whether it is trained.

    Raises:
        CheckpointError: An array is missing or unexpected.
        ValueError: One has another shape.
    """
    assert not files, "no file is read on TensorFlow"
    wanted = shapes(module)
    stored.check(wanted, {}, {*arrays}, "the model")
    for name in arrays:
        value = np.asarray(arrays[name]).astype(np.float32)
        if value.shape != wanted[name]:
            raise ValueError(f"`{name}` is {value.shape}, not {wanted[name]}")
        module.put_parameter(name, tf.Variable(tf.constant(value), trainable=trainable(name)))


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
