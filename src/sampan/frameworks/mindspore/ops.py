"""Pure array functions on MindSpore. Names and meaning are the framework interface's (sampan.frameworks.OPS_NAMES).

Where a weight meets an array of another dtype, the array is brought to the weight's: there is no autocast, so that what is
computed in which dtype can be read here. Statistics of norms, softmax and losses are fp32 whatever the dtype.

On Ascend six of these take the vendor's fused operator (sampan.frameworks.mindspore.ascend). Functions are written as
`def`, without `try`, imports and lambdas, because a compiled step reads their source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mindspore as ms
from mindspore import Tensor, mint
from mindspore import nn as cells
from mindspore import ops as own

from sampan.frameworks.mindspore import ascend
from sampan.frameworks.mindspore.device import is_ascend

F: Any = mint.nn.functional  # pyright: ignore[reportAttributeAccessIssue]
_PRODUCT: Any = own.MatMul(transpose_b=True)
_PRODUCTS: Any = own.BatchMatMul(transpose_b=True)
_ADD_BIAS: Any = own.BiasAdd()

float32 = ms.float32
int32 = ms.int32

exp = mint.exp
abs = mint.abs
sqrt = mint.sqrt


def cast(x: Tensor, dtype: Any) -> Tensor:
    """Return `x` in another dtype."""
    return x if x.dtype == dtype else x.astype(dtype)


def permute(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Return `x` with its axes in the given order."""
    return mint.permute(x, tuple(axes))


def concat(parts: Sequence[Tensor], axis: int) -> Tensor:
    """Put arrays one after another along an axis."""
    return mint.cat(tuple(parts), axis)


def chunk(x: Tensor, parts: int, axis: int) -> tuple[Tensor, ...]:
    """Split `x` into equal parts along an axis."""
    return mint.chunk(x, parts, axis)


def split(x: Tensor, sizes: Sequence[int], axis: int) -> tuple[Tensor, ...]:
    """Split `x` into parts of the given sizes along an axis."""
    # not mint.split: the gradient of 2.10 is wrong on a CPU where a part goes into `concat` as it is
    return own.split(x, tuple(sizes), axis)


def where(condition: Tensor, x: Any, y: Any) -> Tensor:
    """Return `x` where the condition holds, else `y`; either may be a number."""
    return own.where(condition, x, y)


def mean(x: Tensor, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """Average over the given axes, or over all."""
    return mint.mean(x) if axis is None else mint.mean(x, axis)


def sum(x: Tensor, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """Add over the given axes, or over all."""
    return mint.sum(x) if axis is None else mint.sum(x, axis)


def clip(x: Tensor, low: float, high: float) -> Tensor:
    """Limit every element to [low, high]."""
    return mint.clamp(x, low, high)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x·Wᵀ + b for x (…, in), W (out, in) and b (out,), in the dtype of W."""
    x = cast(x, weight.dtype)
    if is_ascend():
        return F.linear(x, weight, bias)
    # on a CPU these two operators take half the time of `linear`
    result = _PRODUCT(x.reshape((-1, x.shape[-1])), weight)
    if bias is not None:
        result = _ADD_BIAS(result, bias)
    return result.reshape((*x.shape[:-1], weight.shape[0]))


def conv2d(x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
    """Return the convolution of (batch, channels, rows, columns), with zeros around, in the dtype of the weight."""
    x = cast(x, weight.dtype)
    if padding:
        return own.conv2d(x, weight, bias, stride=stride, pad_mode="pad", padding=padding)
    return own.conv2d(x, weight, bias, stride=stride, pad_mode="valid")


def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalise groups of channels in fp32, scale and shift each channel, and return to the dtype of `x`."""
    normed = F.group_norm(cast(x, ms.float32), groups, cast(weight, ms.float32), cast(bias, ms.float32), eps)
    return cast(normed, x.dtype)


def take(table: Tensor, ids: Tensor) -> Tensor:
    """Return rows of `table` (rows, channels) at integer `ids` of any shape: (*ids, channels)."""
    if is_ascend():
        return ascend.take(table, ids)
    return own.gather(table, ids, 0)


def argmin(x: Tensor, axis: int) -> Tensor:
    """Return the index of the least element along an axis; of equal ones, the lowest index."""
    return own.argmin(x, axis)


def softmax(x: Tensor, axis: int) -> Tensor:
    """Return the softmax, computed in fp32, in the dtype of `x`."""
    return cast(F.softmax(cast(x, ms.float32), axis), x.dtype)


def silu(x: Tensor) -> Tensor:
    """Return x·sigmoid(x)."""
    return F.silu(x)


def gelu(x: Tensor, tanh: bool) -> Tensor:
    """Return GELU: the tanh approximation or the exact erf form."""
    if is_ascend():
        return ascend.gelu(x, tanh)
    return own.gelu(x, approximate="tanh" if tanh else "none")


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalise the last axis by its root mean square in fp32, return to the dtype of `x`, then multiply by `weight`."""
    if is_ascend():
        return ascend.rms_norm(x, weight, eps)
    y = cast(x, ms.float32)
    return cast(y * mint.rsqrt(mint.mean(y * y, -1, True) + eps), x.dtype) * weight


def layer_norm(x: Tensor, eps: float, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """Normalise the last axis to zero mean and unit variance in fp32; scale and shift where given."""
    if is_ascend():
        return ascend.layer_norm(x, eps, weight, bias)
    y = cast(x, ms.float32)
    centred = y - mint.mean(y, -1, True)
    normed = centred * mint.rsqrt(mint.mean(centred * centred, -1, True) + eps)
    if weight is not None:
        normed = normed * cast(weight, ms.float32) + cast(bias, ms.float32)
    return cast(normed, x.dtype)


def normalize(x: Tensor) -> Tensor:
    """Divide the last axis by its Euclidean length (at least 1e-12)."""
    square = mint.sum(x * x, -1, True)
    return x * mint.rsqrt(own.maximum(square, 1e-24))


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
    if segments is not None:
        assert mask is None, "segments say what a mask would say"
        if is_ascend():
            return ascend.packed_attention(q, k, v, segments, causal)
        # one call a stretch: nothing outside it is computed, and no mask of all against all is built
        parts = [split(part, segments, 2) for part in (q, k, v)]
        return concat([_attend(parts[0][i], parts[1][i], parts[2][i], None, causal) for i in range(len(segments))], 2)
    return _attend(q, k, v, mask, causal)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    if is_ascend():
        return ascend.attention(q, k, v, mask, causal)
    return plain_attention(q, k, v, mask, causal)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Return what `attention` does, written out: all pairs are computed, scores and softmax in fp32."""
    batch, heads, queries, head_dim = q.shape
    kv_heads, keys = k.shape[1], k.shape[2]
    q = q * head_dim**-0.5
    if kv_heads != heads:  # the heads of a group are rows of one product, so that keys and values need no copies
        q = q.reshape((batch, kv_heads, (heads // kv_heads) * queries, head_dim))
    scores = cast(_PRODUCTS(q, k), ms.float32).reshape((batch, heads, queries, keys))
    if causal:
        scores = own.where(own.tril(own.ones((queries, keys), ms.bool_)), scores, _CLOSED)
    if mask is not None:
        scores = own.where(mask, scores, _CLOSED)
    weights = cast(F.softmax(scores, -1), v.dtype).reshape((batch, kv_heads, -1, keys))
    return mint.matmul(weights, v).reshape((batch, heads, queries, head_dim))


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return Σ wᵢ·CEᵢ / Σ wᵢ in fp32, for logits (n, classes), integer labels (n,) and weights (n,)."""
    if is_ascend():
        losses = ascend.cross_entropy(cast(logits, ms.float32), cast(labels, ms.int32))
    else:
        losses = own.cross_entropy(cast(logits, ms.float32), cast(labels, ms.int32), reduction="none")
    return mint.sum(losses * weights) / mint.sum(weights)


def upsample_nearest(x: Tensor, factor: int) -> Tensor:
    """Repeat every cell of (batch, channels, rows, columns) `factor` times each way."""
    return F.interpolate(x, scale_factor=float(factor), mode="nearest")


def pad_right_bottom(x: Tensor) -> Tensor:
    """Add one zero column on the right and one zero row below, of (batch, channels, rows, columns)."""
    return own.pad(x, (0, 1, 0, 1))


def cache_write(cache: Tensor, new: Tensor, start: Tensor) -> Tensor:
    """Return the cache (batch, heads, slots, head_dim) with `new` at slots start, start+1, …

    The old cache must not be used again: a framework may reuse its memory.
    """
    new = cast(new, cache.dtype)
    count: Any = own.arange(new.shape[2])
    slots = cast(start, ms.int32) + count.astype(ms.int32)
    index = own.broadcast_to(slots.reshape((1, 1, -1, 1)), new.shape)
    written: Any = own.tensor_scatter_elements(cache, index, new, axis=2)
    return written


def stop_gradient(x: Tensor) -> Tensor:
    """Return `x` as a constant."""
    constant: Any = own.stop_gradient(x)
    return constant


def checkpoint(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call `function`, keeping only its inputs for the backward pass and computing the rest again.

    MindSpore does so for a Cell only; anything else is called as it is.
    """
    return ms.recompute(function, *arguments) if isinstance(function, cells.Cell) else function(*arguments)


_CLOSED = -1e30  # of a score in fp32: its exponential is 0 beside any other, and a row that is all closed stays finite
