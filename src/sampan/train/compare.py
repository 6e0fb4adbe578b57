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

MOMENTS = {"exp_avg": True, "exp_avg_sq": False}  # name, and whether it has a sign
Array = NDArray[Any]
Reader = Callable[[str], Array | None]


@dataclass(frozen=True)
class RelativeDifference:
    """How far one state lies from another, over many tensors.

    Args:
        apart: Length of the difference.
        moved: Length of what training changed since the state both began from.
        same: All of them are the same, bit for bit.
        worst: The tensor whose values are furthest off, and how far: over what its own values moved, or those of all tensors
            where that is more. (Root mean squares; a tensor whose gradient is only rounding noise may move by much or not
            at all.)
    """

    apart: float
    moved: float
    same: bool
    worst: tuple[str, float]

    @property
    def share(self) -> float:
        """The difference over the movement; 0 where there is none of either."""
        return ratio(self.apart, self.moved)


def ratio(apart: float, moved: float) -> float:
    """Return apart over moved; what did not move must not differ."""
    if moved == 0 or math.isnan(apart):
        return 0.0 if apart == 0 else math.inf
    return apart / moved


def distance(names: Iterable[str], begin: Reader, first: Reader, second: Reader) -> RelativeDifference:
    """Return how far `second` lies from `first`, measured against the way of `first` from `begin`.

    Args:
        begin, first, second: Return a tensor by name; None where there is none, which stands for zeros.

    Raises:
        ValueError: Tensors of one name are of different shapes.
    """
    found, same = dict[str, tuple[float, float, int]](), True
    for name in names:
        one, other, before = first(name), second(name), begin(name)
        given = [array for array in (one, other, before) if array is not None]
        if len({array.shape for array in given}) > 1:
            raise ValueError(f"`{name}` has the shapes {', '.join(str(array.shape) for array in given)}")
        if not given:
            continue
        a, b, z = (np.zeros(given[0].shape) if x is None else x.astype(np.float64) for x in (one, other, before))
        same = same and one is not None and other is not None and np.array_equal(one, other)
        found[name] = float(np.sum((a - b) ** 2)), float(np.sum((a - z) ** 2)), a.size
    apart, moved, count = (
        (math.fsum(column) for column in zip(*found.values(), strict=True)) if found else (0.0, 0.0, 1)
    )
    worst = ("", 0.0)
    for name, (off, way, size) in found.items():
        own = ratio(math.sqrt(off / size), math.sqrt(max(way / size, moved / count)))
        if own > worst[1]:
            worst = (name, own)
    return RelativeDifference(math.sqrt(apart), math.sqrt(moved), same, worst)


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


def relative(recorded: float, again: float) -> float:
    """Return how far a number is from the recorded one, over that; 0 where neither is finite."""
    if not (math.isfinite(recorded) or math.isfinite(again)):
        return 0.0
    return math.inf if not math.isfinite(recorded - again) else ratio(abs(again - recorded), abs(recorded))
