"""Layer classes on TensorFlow, with the parameter names of PyTorch's and weights as [out, in].

They are plain classes that hold `tf.Variable`s. Neither Keras' layers (weights as [in, out], names of their own) nor
`tf.Module` (which wraps the lists it is given) would keep the names. A layer calls the framework's functions through their
module, so that whoever exchanges one of them (to count, to compare) reaches the layers too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from sampan.bench.tensorflow import ops

__all__ = ["Embedding", "Identity", "Linear", "Module", "ModuleList", "ones_param", "zeros_param"]


@dataclass(frozen=True)
class Unmade:
    """A parameter of a module that was built without memory: its shape is known, and its values come later."""

    shape: tuple[int, ...]


_memory = [True]  # whether new parameters get memory


@contextmanager
def without_memory() -> Iterator[None]:
    """Return a context in which new parameters are `Unmade`."""
    before, _memory[0] = _memory[0], False
    try:
        yield
    finally:
        _memory[0] = before


def ones_param(*shape: int) -> Any:
    """Return a trainable array of ones."""
    return tf.Variable(tf.ones(shape)) if _memory[0] else Unmade(shape)


def zeros_param(*shape: int) -> Any:
    """Return a trainable array of zeros."""
    return tf.Variable(tf.zeros(shape)) if _memory[0] else Unmade(shape)


class Module:
    """A part of a model: its parameters and parts are its attributes, and calling it calls `forward`."""

    def __getattr__(self, name: str) -> Any:  # only reached where there is none: for type checkers
        raise AttributeError(f"`{type(self).__name__}` has no attribute `{name}`")

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.forward(*arguments, **named)

    def children(self) -> Iterator[tuple[str, Any]]:
        """Yield the names and values of parts and parameters, in the order they were set."""
        for name, value in vars(self).items():
            if isinstance(value, Module | tf.Variable | Unmade):
                yield name, value

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yield this module and all modules in it, with their dotted names; its own is empty."""
        yield prefix, self
        for name, value in self.children():
            if isinstance(value, Module):
                yield from value.named_modules(f"{prefix}.{name}" if prefix else name)

    def named_parameters(self) -> Iterator[tuple[str, Any]]:
        """Yield all parameters with their dotted names."""
        for prefix, module in self.named_modules():
            for name, value in module.children():
                if not isinstance(value, Module):
                    yield f"{prefix}.{name}" if prefix else name, value

    def put_parameter(self, name: str, value: tf.Variable) -> None:
        """Put a parameter in the place of the one of that dotted name."""
        path, _, leaf = name.rpartition(".")
        dict(self.named_modules())[path]._put(leaf, value)

    def _put(self, leaf: str, value: tf.Variable) -> None:
        setattr(self, leaf, value)


class ModuleList(Module):
    """Modules in a row, named by their index."""

    def __init__(self, modules: Sequence[Module]):
        super().__init__()
        self._modules = list(modules)

    def children(self) -> Iterator[tuple[str, Any]]:
        for index, module in enumerate(self._modules):
            yield str(index), module

    def __getitem__(self, index: int) -> Any:
        return self._modules[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


class Linear(Module):
    """y = Wx + b."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = zeros_param(out_features, in_features)
        self.bias = zeros_param(out_features) if bias else None

    def forward(self, x: Any) -> Any:
        return ops.linear(x, self.weight, self.bias)


class Embedding(Module):
    """Rows of a table at integer ids."""

    def __init__(self, num_embeddings: int, embedding_dim: int):
        super().__init__()
        self.weight = zeros_param(num_embeddings, embedding_dim)

    def forward(self, ids: Any) -> Any:
        return ops.take(self.weight, ids)


class Identity(Module):
    """Returns what it is given."""

    def forward(self, x: Any) -> Any:
        return x
