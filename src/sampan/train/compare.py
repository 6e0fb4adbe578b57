"""How far two trainings lie apart: their losses step by step, and their weights, averages and moments.

Plain NumPy over what checkpoints and logs hold; whichever framework wrote them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampan.frameworks import quantized
from sampan.frameworks.optimizer import MOMENTS

Array = NDArray[Any]
Reader = Callable[[str], Array | None]


@dataclass(frozen=True)
class RelativeDifference:
    """How far one state lies from another, over many tensors.

    Args:
        difference: Euclidean length of the difference between the two states.
        change: Euclidean length of what training changed since the state that both began from.
        identical: All tensors are the same, bit for bit.
        worst_tensor: Name of the tensor whose values differ most, and its root-mean-square difference over the
            root-mean-square change of its own values, or of all values where that is more. (A tensor whose gradient is only
            rounding noise may move by much or not at all.)
    """

    difference: float
    change: float
    identical: bool
    worst_tensor: tuple[str, float]

    @property
    def relative(self) -> float:
        """The difference over the change; 0 where there is neither."""
        return ratio(self.difference, self.change)


def ratio(difference: float, change: float) -> float:
    """Return difference over change: infinite where something that did not change differs, or the change is no number."""
    if change == 0 or math.isnan(difference):
        return 0.0 if difference == 0 else math.inf
    return difference / change


def relative_difference(names: Iterable[str], begin: Reader, first: Reader, second: Reader) -> RelativeDifference:
    """Return how far `second` lies from `first`, measured against the change from `begin` to `first`.

    Args:
        begin, first, second: Functions that return a tensor by name; None where there is none, which stands for zeros.

    Raises:
        ValueError: Tensors of one name have different shapes.
    """
    squares, identical = dict[str, tuple[float, float, int]](), True
    for name in names:
        arrays = first(name), second(name), begin(name)
        shapes = list(dict.fromkeys(array.shape for array in arrays if array is not None))
        if len(shapes) > 1:
            raise ValueError(f"`{name}` has the shapes {', '.join(map(str, shapes))}")
        if not shapes:
            continue
        a, b, z = (np.zeros(shapes[0]) if array is None else array.astype(np.float64) for array in arrays)
        is_there = arrays[0] is not None and arrays[1] is not None
        identical = identical and is_there and np.array_equal(arrays[0], arrays[1])  # pyright: ignore[reportArgumentType]
        squares[name] = float(np.sum((a - b) ** 2)), float(np.sum((a - z) ** 2)), a.size
    difference, change, count = map(math.fsum, zip(*squares.values(), strict=True)) if squares else (0.0, 0.0, 1)
    worst = ("", 0.0)
    for name, (off, way, size) in squares.items():
        relative = ratio(math.sqrt(off / size), math.sqrt(max(way / size, change / count)))
        if relative > worst[1]:
            worst = (name, relative)
    return RelativeDifference(math.sqrt(difference), math.sqrt(change), identical, worst)


def moments(optimizer: Mapping[str, Any], to_numpy: Callable[[Any], Array]) -> Callable[[str], Array | None]:
    """Return a reader of an optimizer's moments by name, as numbers also where they are held in 8 bits."""

    def read(key: str) -> Array | None:
        if key in optimizer:
            return to_numpy(optimizer[key])
        if f"{key}.codes" not in optimizer:
            return None
        held, scales = (to_numpy(optimizer[f"{key}.{part}"]) for part in ("codes", "scales"))
        signed = MOMENTS[key.rsplit(".", maxsplit=1)[1]]
        numbers = quantized.values(signed)[held.reshape(-1)]
        return (numbers * np.repeat(scales, quantized.BLOCK)[: numbers.size]).reshape(held.shape)

    return read


def moment_names(*optimizers: Mapping[str, Any]) -> list[str]:
    """Return the names of all moments that some of the optimizers have."""
    keys = (key.removesuffix(".codes") for optimizer in optimizers for key in optimizer)
    return list(dict.fromkeys(key for key in keys if key.rsplit(".", maxsplit=1)[-1] in MOMENTS))


def relative_error(recorded: float, again: float) -> float:
    """Return how far a number is from the recorded one, over that; 0 where neither is finite."""
    if not (math.isfinite(recorded) or math.isfinite(again)):
        return 0.0
    return math.inf if not math.isfinite(recorded - again) else ratio(abs(again - recorded), abs(recorded))
