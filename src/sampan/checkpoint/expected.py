"""Which tensors a part must have: asked of the model itself, built without memory. Needs a framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sampan.checkpoint.weights import TensorHeader
from sampan.frameworks import device as dev
from sampan.frameworks import io
from sampan.models.build import build
from sampan.models.config import ModelConfig

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TensorDifferences:
    """How the tensors of a folder differ from those that its config asks for.

    Args:
        wrong_shape: Name to the shape found and the shape asked for.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: dict[str, tuple[Shape, Shape]]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.wrong_shape)


def expected_shapes(part: str, config: ModelConfig) -> dict[str, Shape]:
    """Return the names and shapes of a part's tensors."""
    with dev.on_meta():
        return io.shapes(build(part, config))


def differences(expected: Mapping[str, Shape], found: Mapping[str, TensorHeader]) -> TensorDifferences:
    """Return how found tensors differ from the expected ones."""
    return TensorDifferences(
        missing=tuple(name for name in expected if name not in found),
        unexpected=tuple(name for name in found if name not in expected),
        wrong_shape={
            name: (stored.shape, expected[name])
            for name, stored in found.items()
            if name in expected and stored.shape != expected[name]
        },
    )
