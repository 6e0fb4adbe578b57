"""Pieces that several parts of the model share."""

from __future__ import annotations

from typing import Any

from sampan.frameworks import nn, ops

Array = Any  # an array of whichever framework the process runs on; shapes are in the docstrings


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis, the weight multiplied after the return to the input's dtype."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.weight = nn.ones_param(dim)
        self.eps = eps

    def forward(self, x: Array) -> Array:
        return ops.rms_norm(x, self.weight, self.eps)


class LayerNorm(nn.Module):
    """Layer norm over the last axis, with weight and bias."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.weight = nn.ones_param(dim)
        self.bias = nn.zeros_param(dim)
        self.eps = eps

    def forward(self, x: Array) -> Array:
        return ops.layer_norm(x, self.eps, self.weight, self.bias)


def split_heads(x: Array, num_heads: int) -> Array:
    """Turn (batch, tokens, heads·head_dim) into (batch, heads, tokens, head_dim)."""
    batch, tokens, width = x.shape
    return ops.permute(x.reshape((batch, tokens, num_heads, width // num_heads)), (0, 2, 1, 3))


def join_heads(x: Array) -> Array:
    """Turn (batch, heads, tokens, head_dim) into (batch, tokens, heads·head_dim)."""
    batch, heads, tokens, head_dim = x.shape
    return ops.permute(x, (0, 2, 1, 3)).reshape((batch, tokens, heads * head_dim))


def rotate_half_split(x: Array, cos: Array, sin: Array) -> Array:
    """Rotate channel j with channel j + n, for the first 2n channels of each head; the rest pass.

    Args:
        x: (batch, heads, tokens, head_dim).
        cos, sin: (batch or 1, 1, tokens, n). Their dtype is the dtype of the arithmetic; the result returns to x's.
    """
    n = cos.shape[-1]
    rest = x.shape[-1] - 2 * n
    first, second, *passed = ops.split(x, (n, n, rest) if rest else (n, n), -1)
    first, second = ops.cast(first, cos.dtype), ops.cast(second, cos.dtype)
    rotated = (first * cos - second * sin, second * cos + first * sin)
    return ops.concat((*(ops.cast(part, x.dtype) for part in rotated), *passed), -1)


def modulate(x: Array, shift: Array, scale: Array) -> Array:
    """Return LN(x)·(1 + scale) + shift for x (batch, tokens, dim) and shift, scale (batch, dim); LN has no weights."""
    return ops.layer_norm(x, 1e-5) * (1 + scale[:, None]) + shift[:, None]
