"""Layer classes on PyTorch: the real ones, so that compile, FSDP2 and PEFT see an ordinary module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import Conv2d, Embedding, GroupNorm, Identity, Linear

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
    "ones_param",
    "zeros_param",
]


def ones_param(*shape: int) -> torch.nn.Parameter:
    """Return a trainable array of ones."""
    return torch.nn.Parameter(torch.ones(*shape))


def zeros_param(*shape: int) -> torch.nn.Parameter:
    """Return a trainable array of zeros."""
    return torch.nn.Parameter(torch.zeros(*shape))
