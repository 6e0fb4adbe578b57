"""Layer classes on PyTorch: the real ones, so that compile, FSDP2 and PEFT see an ordinary module."""

from __future__ import annotations

import torch
from torch.nn import Conv2d, Embedding, GroupNorm, Identity, Linear, Module, ModuleList

__all__ = ["Conv2d", "Embedding", "GroupNorm", "Identity", "Linear", "Module", "ModuleList", "ones_param", "zeros_param"]


def ones_param(*shape: int) -> torch.nn.Parameter:
    """Return a trainable array of ones."""
    return torch.nn.Parameter(torch.ones(*shape))


def zeros_param(*shape: int) -> torch.nn.Parameter:
    """Return a trainable array of zeros."""
    return torch.nn.Parameter(torch.zeros(*shape))
