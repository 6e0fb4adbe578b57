"""Layer classes on PyTorch: the real ones, so that compile, FSDP2 and PEFT see an ordinary module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch.nn import Conv2d, Embedding, GroupNorm, Identity, Linear

from sampan.frameworks.torch.device import DTYPES

if TYPE_CHECKING:  # to a type checker, a part of a model is what the model put there, not "an array or a module"
    from collections.abc import Iterator

    class Module(torch.nn.Module):
        def __getattr__(self, name: str) -> Any: ...

    class ModuleList(torch.nn.ModuleList):
        def __getitem__(self, index: Any) -> Any: ...
        def __iter__(self) -> Iterator[Any]: ...
else:
    from torch.nn import Module, ModuleList

__all__ = [
    "Conv2d",
    "Embedding",
    "GroupNorm",
    "Identity",
    "Linear",
    "Module",
    "ModuleList",
    "add_low_rank",
    "linear_layers",
    "ones_param",
    "zeros_param",
]


def ones_param(*shape: int) -> torch.nn.Parameter:
    """Return a trainable array of ones."""
    return torch.nn.Parameter(torch.ones(*shape))


def zeros_param(*shape: int) -> torch.nn.Parameter:
    """Return a trainable array of zeros."""
    return torch.nn.Parameter(torch.zeros(*shape))


def linear_layers(module: torch.nn.Module) -> dict[str, tuple[int, int]]:
    """Return the linear layers of a module by name, each with its (width out, width in)."""
    return {
        name: (layer.out_features, layer.in_features)
        for name, layer in module.named_modules()
        if isinstance(layer, Linear) and not isinstance(layer, _Factor)
    }


def add_low_rank(
    module: torch.nn.Module,
    layers: Mapping[str, tuple[int, float]],
    *,
    device: str | None = None,
    dtype: str = "fp32",
) -> None:
    """Give linear layers a LoRA adapter: from then on y = Wx + b + B(A x)·scale.

    The layer keeps its own names; beside them stand `lora_A.weight` (rank, in) and `lora_B.weight` (out, rank), which are
    PEFT's names for them. Both are zero until they are given values, and take part in training; whether W does is not
    changed.

    Args:
        layers: Name of a linear layer to (rank, scale).
        device: Where A and B lie; None for where W is.
        dtype: "fp32" or "bf16", that of A and B. Outside of autocast the addition is computed in it, whatever W is in.

    Raises:
        ValueError: A name is not that of a linear layer without an addition.
    """
    for name, (rank, scale) in layers.items():
        parent_name, _, child = name.rpartition(".")
        try:
            layer = module.get_submodule(name)
        except AttributeError as error:
            raise ValueError(f"there is no layer `{name}`") from error
        if not name or type(layer) is not Linear:
            raise ValueError(f"`{name}` is a {type(layer).__name__}, not a linear layer without an addition")
        added = _LowRankLinear(layer, rank, scale, torch.device(device or layer.weight.device), DTYPES[dtype])
        setattr(module.get_submodule(parent_name), child, added)


class _Factor(Linear):
    """A or B: a matrix that begins at zero, so that nothing is drawn from the framework's generator."""

    def reset_parameters(self) -> None:
        torch.nn.init.zeros_(self.weight)


class _LowRankLinear(Linear):
    """A linear layer with a LoRA adapter; it takes the place of the plain one and keeps its weights."""

    def __init__(self, layer: Linear, rank: int, scale: float, device: torch.device, dtype: torch.dtype):
        torch.nn.Module.__init__(self)  # not Linear's, which would make weights of its own
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight = layer.weight
        self.register_parameter("bias", layer.bias)
        self.scale = scale
        self.lora_A = _Factor(self.in_features, rank, bias=False, device=device, dtype=dtype)
        self.lora_B = _Factor(rank, self.out_features, bias=False, device=device, dtype=dtype)
        self.train(layer.training)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # the name that torch has for it
        result = F.linear(input, self.weight, self.bias)
        # autocast brings both to its own dtype; going through A's on the way there would change nothing but cost a copy
        x = input if torch.is_autocast_enabled(input.device.type) else input.to(self.lora_A.weight.dtype)
        return (result + self.lora_B(self.lora_A(x)) * self.scale).to(result.dtype)
