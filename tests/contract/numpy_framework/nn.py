"""Layers in NumPy, over the reference's functions, with the parameter names of the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from contract.numpy_framework import ops


class Parameter:
    """A place for an array. `Module` gives the array itself where the attribute is read."""

    def __init__(self, values: np.ndarray[Any, Any]):
        self.values = values


class Module:
    """A part of a model: its parameters and parts are its attributes."""

    def __getattribute__(self, name: str) -> Any:
        found = object.__getattribute__(self, name)
        return found.values if isinstance(found, Parameter) else found

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.forward(*arguments, **named)

    def children(self) -> Iterator[tuple[str, Any]]:
        for name, value in vars(self).items():
            if isinstance(value, Module | Parameter):
                yield name, value

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        yield prefix.removesuffix("."), self
        for name, value in self.children():
            if isinstance(value, Module):
                yield from value.named_modules(f"{prefix}{name}.")

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        for name, value in self.children():
            if isinstance(value, Module):
                yield from value.named_parameters(f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", value


class ModuleList(Module):
    def __init__(self, modules: Sequence[Module]):
        self.modules = list(modules)

    def children(self) -> Iterator[tuple[str, Any]]:
        return ((str(index), module) for index, module in enumerate(self.modules))

    def __iter__(self) -> Iterator[Any]:
        return iter(self.modules)

    def __getitem__(self, index: int) -> Any:
        return self.modules[index]

    def __len__(self) -> int:
        return len(self.modules)


def ones_param(*shape: int) -> Any:
    return Parameter(np.ones(shape))


def zeros_param(*shape: int) -> Any:
    return Parameter(np.zeros(shape))


class Linear(Module):
    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        self.weight = zeros_param(out_features, in_features)
        self.bias = zeros_param(out_features) if bias else None
        self.scale = 0.0

    def forward(self, x: Any) -> Any:
        result = ops.linear(x, self.weight, self.bias)
        return result + self.lora_B(self.lora_A(x)) * self.scale if self.scale else result


class _Factor(Linear):
    pass


class Embedding(Module):
    def __init__(self, num_embeddings: int, embedding_dim: int):
        self.weight = zeros_param(num_embeddings, embedding_dim)

    def forward(self, ids: Any) -> Any:
        return ops.take(self.weight, ids)


class Conv2d(Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0):
        self.weight = zeros_param(out_channels, in_channels, kernel_size, kernel_size)
        self.bias = zeros_param(out_channels)
        self.stride, self.padding = stride, padding

    def forward(self, x: Any) -> Any:
        return ops.conv2d(x, self.weight, self.bias, self.stride, self.padding)


class GroupNorm(Module):
    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5):
        self.weight, self.bias = ones_param(num_channels), zeros_param(num_channels)
        self.num_groups, self.eps = num_groups, eps

    def forward(self, x: Any) -> Any:
        return ops.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class Identity(Module):
    def forward(self, x: Any) -> Any:
        return x


def linear_layers(module: Module) -> dict[str, tuple[int, int]]:
    return {
        name: layer.weight.shape
        for name, layer in module.named_modules()
        if isinstance(layer, Linear) and not isinstance(layer, _Factor)
    }


def add_low_rank(
    module: Module, layers: Mapping[str, tuple[int, float]], *, device: str | None = None, dtype: str = "fp32"
) -> None:
    found = dict(module.named_modules())
    for name, (rank, scale) in layers.items():
        layer = found.get(name)
        if type(layer) is not Linear or layer.scale:
            raise ValueError(f"`{name}` is not a linear layer without an addition")
        out_features, in_features = layer.weight.shape
        layer.lora_A, layer.lora_B = _Factor(in_features, rank, bias=False), _Factor(rank, out_features, bias=False)
        layer.scale = scale
