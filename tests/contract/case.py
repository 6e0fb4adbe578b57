"""What a case of the contract is: inputs from a seed, something to compute, and how far two answers are apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampan.samplers import noise

Inputs = dict[str, Any]

FORWARD_TOLERANCE = 1e-5
"""Of max|a - b| / max|b| for each array in fp32. A unit in the last place is 6e-8; sums over a few hundred terms, softmax
and two or three layers behind one another make of it 1e-6, and no mistake in the mathematics is as small as 1e-5."""

GRADIENT_TOLERANCE = 1e-4
"""Of the same for each gradient. Gradients pass through the arithmetic twice and are sums over positions whose terms cancel,
which costs about one digit more than a forward pass."""

DIFFERENCE_TOLERANCE = 1e-6
"""By which a gradient from central differences of the reference may itself be wrong, relative to the greatest: steps of 1e-5
in float64 leave 1e-10 of curvature and 1e-11 of rounding, and up to 1e-7 where the function bends sharply."""


@dataclass(frozen=True)
class Case:
    """One comparison.

    Args:
        name: "what/variant"; what comes before the slash is a row of the table.
        kind: "op", "layer", "block" or "loss".
        inputs: Makes the input arrays from random numbers: floating ones in fp32, and whatever else is passed on as it is.
        compute: Called with the module (None without `build`) and the inputs; returns an array or a tuple of arrays.
        build: Makes the module.
        constants: Floating inputs without a gradient: what the host makes, as tables of rotations.
        has_gradient: False where nothing that comes out can be differentiated.
        is_exact: The answers are ids, which are equal or wrong.
        needs: Names of the framework interface that it uses and that a framework may leave out; its own row's is one of them.
    """

    name: str
    kind: str
    inputs: Callable[[np.random.Generator], Inputs]
    compute: Callable[[Any, Inputs], Any]
    build: Callable[[], Any] | None = None
    constants: tuple[str, ...] = ()
    has_gradient: bool = True
    is_exact: bool = False
    needs: tuple[str, ...] = ()

    def is_offered(self, left_out: Collection[str]) -> bool:
        """Say whether a framework that leaves out some of the framework interface's names offers what the case needs."""
        return not {*self.needs, self.row} & set(left_out)

    @property
    def row(self) -> str:
        """What the case is of."""
        return self.name.split("/")[0]

    def draw(self) -> Inputs:
        """Return the inputs, the same in every process; variants of one row share what they draw first."""
        return self.inputs(noise.generator(0, "contract/inputs/" + self.row))

    def differentiated(self, inputs: Inputs) -> list[str]:
        """Return the names of the inputs that have a gradient."""
        return [
            name
            for name, value in inputs.items()
            if self.has_gradient
            and name not in self.constants
            and isinstance(value, np.ndarray)
            and value.dtype.kind == "f"
        ]

    def weights(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[np.float32]]:
        """Return a module's weights, the same for variants of one row; none is 0 or 1, so that no term is asleep."""
        return {name: _weight(self.row, name, shape) for name, shape in shapes.items()}

    def direction(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return the way that an input or a weight is moved in, where its gradient is checked by one difference."""
        return normal(noise.generator(0, f"contract/direction/{self.name}/{name}"), *shape)

    def probe(self, index: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return what an output is multiplied with before everything is added up to the number that is differentiated."""
        return _probe(self.name, index, shape)


def normal(random: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    """Return standard normal numbers."""
    return random.standard_normal(shape, np.float32)


def away_from(points: tuple[float, ...], x: NDArray[np.float32], gap: float = 0.05) -> NDArray[np.float32]:
    """Return `x` with what lies nearer to a point than `gap` moved off it: a function has no gradient at its kinks."""
    for point in points:
        near = np.abs(x - point) < gap
        x = np.where(near, point + np.where(x >= point, gap, -gap), x)
    return x.astype(np.float32)


def error(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """Return max|found - wanted| / max|wanted|; where nothing but 0 is wanted, max|found|; infinite for another shape."""
    if found.shape != wanted.shape:
        return math.inf
    if not wanted.size:
        return 0.0
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    if not np.isfinite(found).all():
        return math.inf
    scale = np.abs(wanted).max()
    return float(np.abs(found - wanted).max() / (scale or 1.0))


@cache
def _probe(case: str, index: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return normal(noise.generator(0, f"contract/probe/{case}", index), *shape)


def _weight(row: str, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    random = noise.generator(0, f"contract/weights/{row}/{name}")
    draw = normal(random, *shape)
    if len(shape) == 1:
        return (0.2 * draw + (0 if name.endswith("bias") else 1)).astype(np.float32)
    return (draw / np.float32(math.sqrt(math.prod(shape[1:])))).astype(np.float32)
