"""Checks of shapes, whose errors name the axis that does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

LATENT_AXES = ("batch", "channel", "height", "width")


def check_shape(name: str, value: Any, axes: Sequence[str], shape: Sequence[int | None]) -> None:
    """Raise ValueError unless an array has a shape; the message names the first axis that differs.

    Args:
        name: What the array is called in the message.
        value: An array of the host or of any framework, or a number.
        axes: Names of its axes.
        shape: Their lengths; None fits any length.
    """
    actual = tuple(np.shape(value))
    if len(actual) == len(shape) and all(n in (None, length) for n, length in zip(shape, actual, strict=True)):
        return
    lengths = [f"{axis} {'any' if n is None else n}" for axis, n in zip(axes, shape, strict=True)]
    wanted = f"({', '.join(lengths)})"
    if len(actual) != len(shape):
        raise ValueError(f"`{name}` has {len(actual)} axes, {actual}, and must have {len(shape)}: {wanted}")
    wrong = next(i for i, n in enumerate(shape) if n not in (None, actual[i]))
    raise ValueError(
        f"axis `{axes[wrong]}` of `{name}` is {actual[wrong]} and must be {shape[wrong]}: {actual} is not {wanted}"
    )


def check_same_shape(name: str, value: Any, other_name: str, other: Any) -> None:
    """Raise ValueError unless two arrays have the same shape, (batch, channel, height, width) where there are four axes."""
    shape = tuple(np.shape(other))
    axes = LATENT_AXES if len(shape) == len(LATENT_AXES) else [str(axis) for axis in range(len(shape))]
    check_shape(f"{name}` beside `{other_name}", value, axes, shape)
