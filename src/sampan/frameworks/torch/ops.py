"""Pure array functions on PyTorch. Names and meaning are the framework interface's (sampan.frameworks.OPS_NAMES)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint as _checkpoint

from sampan.frameworks.torch import ascend

float32 = torch.float32
int32 = torch.int32

concat = torch.concat
where = torch.where
exp = torch.exp
abs = torch.abs
sqrt = torch.sqrt
silu = F.silu
linear = F.linear


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return `x` in another dtype."""
    return x.to(dtype)


def permute(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Return `x` with its axes in the given order."""
    return x.permute(*axes)


def chunk(x: Tensor, parts: int, axis: int) -> tuple[Tensor, ...]:
    """Split `x` into equal parts along an axis."""
    return torch.chunk(x, parts, axis)


def split(x: Tensor, sizes: Sequence[int], axis: int) -> tuple[Tensor, ...]:
    """Split `x` into parts of the given sizes along an axis. Unlike slices, its gradient is put together in one pass."""
    return torch.split(x, list(sizes), axis)


def mean(x: Tensor, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """Average over the given axes, or over all."""
    return x.mean() if axis is None else x.mean(axis)


def sum(x: Tensor, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """Add over the given axes, or over all."""
    return x.sum() if axis is None else x.sum(axis)


def clip(x: Tensor, low: float, high: float) -> Tensor:
    """Limit every element to [low, high]."""
    return x.clamp(low, high)


def take(table: Tensor, ids: Tensor) -> Tensor:
    """Return rows of `table` (rows, channels) at integer `ids` of any shape: (*ids, channels)."""
    return F.embedding(ids, table)


def argmin(x: Tensor, axis: int) -> Tensor:
    """Return the index of the least element along an axis; of equal ones, the lowest index."""
    return x.argmin(axis)


def softmax(x: Tensor, axis: int) -> Tensor:
    """Return the softmax, computed in fp32, in the dtype of `x`."""
    return F.softmax(x, axis, dtype=torch.float32).to(x.dtype)


def gelu(x: Tensor, tanh: bool) -> Tensor:
    """Return GELU: the tanh approximation or the exact erf form."""
    return F.gelu(x, approximate="tanh" if tanh else "none")


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalise the last axis by its root mean square in fp32, return to the dtype of `x`, then multiply by `weight`."""
    if x.device.type == "npu":
        return ascend.rms_norm(x, weight, eps)
    return F.rms_norm(x, (x.shape[-1],), None, eps) * weight


def layer_norm(x: Tensor, eps: float, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """Normalise the last axis to zero mean and unit variance; scale and shift where given."""
    # a block's weights that ranks have gathered may be in a lower dtype than what autocast keeps in fp32
    scale, shift = (None if given is None else given.to(x.dtype) for given in (weight, bias))
    return F.layer_norm(x, (x.shape[-1],), scale, shift, eps)


def normalize(x: Tensor) -> Tensor:
    """Divide the last axis by its Euclidean length (at least 1e-12)."""
    return F.normalize(x, dim=-1)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    causal: bool = False,
    segments: Sequence[int] | None = None,
) -> Tensor:
    """Return softmax(q·kᵀ / sqrt(head_dim))·v.

    Args:
        q: (batch, heads, queries, head_dim).
        k, v: (batch, heads or fewer, keys, head_dim); fewer heads are shared by neighbouring query heads.
        mask: Boolean, True where a query may attend to a key; rank 4, broadcastable. Excludes `causal`.
        causal: Query i attends to keys 0..i; needs equal lengths.
        segments: Lengths of stretches that lie one after another and do not see each other; `causal` holds in each.
    """
    assert not (causal and mask is not None), "a causal mask is built by the caller when there is another mask"
    if q.device.type == "npu":
        return ascend.attention(q, k, v, mask, causal, segments)
    if segments is None:
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1]
        )
    assert mask is None, "segments say what a mask would say"
    # one call a stretch: nothing outside it is computed, and no mask of all against all is built
    lengths = list(segments)
    pieces = zip(*(split(part, lengths, 2) for part in (q, k, v)), strict=True)
    return torch.cat([attention(*piece, causal=causal) for piece in pieces], dim=2)


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return Σ wᵢ·CEᵢ / Σ wᵢ in fp32, for logits (n, classes), integer labels (n,) and weights (n,)."""
    losses = F.cross_entropy(logits.float(), labels.long(), reduction="none")
    return (losses * weights).sum() / weights.sum()


def upsample_nearest(x: Tensor, factor: int) -> Tensor:
    """Repeat every cell of (batch, channels, rows, columns) `factor` times each way."""
    return F.interpolate(x, scale_factor=float(factor), mode="nearest")


def pad_right_bottom(x: Tensor) -> Tensor:
    """Add one zero column on the right and one zero row below, of (batch, channels, rows, columns)."""
    return F.pad(x, (0, 1, 0, 1))


def cache_write(cache: Tensor, new: Tensor, start: Tensor) -> Tensor:
    """Return the cache (batch, heads, slots, head_dim) with `new` at slots start, start+1, …

    The old cache must not be used again: a framework may reuse its memory.
    """
    slots = start + torch.arange(new.shape[2], device=cache.device)
    return cache.index_copy_(2, slots, new.to(cache.dtype))


def stop_gradient(x: Tensor) -> Tensor:
    """Return `x` as a constant."""
    return x.detach()


def checkpoint(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call `function`, keeping only its inputs for the backward pass and computing the rest again."""
    return _checkpoint(function, *arguments, use_reentrant=False)
