"""The seam's functions on outlines: which shape comes out, what it costs, what its gradient keeps.

Names and meaning are those of sampan.frameworks.OPS_NAMES, with `conv2d` and `group_norm` that layers call. Where a weight
meets an array of another dtype, the array is brought to the weight's.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sampan.frameworks.shapes.array import Recomputed, ShapeArray, leaves, made, mapped, product, promoted, views

__all__ = [
    "abs", "argmin", "attention", "cache_write", "cast", "checkpoint", "chunk", "clip", "concat", "conv2d", "cross_entropy",
    "exp", "float32", "gelu", "group_norm", "int32", "layer_norm", "linear", "mean", "normalize", "pad_right_bottom",
    "permute", "rms_norm", "silu", "softmax", "split", "sqrt", "stop_gradient", "sum", "take", "upsample_nearest", "where",
]  # fmt: skip

float32 = "fp32"
int32 = "int32"

Axes = int | tuple[int, ...] | None


def cast(x: ShapeArray, dtype: str) -> ShapeArray:
    """Return `x` in another dtype."""
    return x if x.dtype == dtype else made((x,), x.shape, dtype)


def permute(x: ShapeArray, axes: Sequence[int]) -> ShapeArray:
    """Return a view with the axes in the given order."""
    return x.transposed(axes)


def concat(parts: Sequence[ShapeArray], axis: int) -> ShapeArray:
    """Put arrays one after another along an axis; their gradients are views of the whole's."""
    shape = list(parts[0].shape)
    shape[axis] = builtins.sum(part.shape[axis] for part in parts)
    return made(tuple(parts), shape, parts[0].dtype, shares=[True] * len(parts))


def chunk(x: ShapeArray, parts: int, axis: int) -> tuple[ShapeArray, ...]:
    """Return views of equal parts along an axis."""
    return split(x, [x.shape[axis] // parts] * parts, axis)


def split(x: ShapeArray, sizes: Sequence[int], axis: int) -> tuple[ShapeArray, ...]:
    """Return views of parts of the given sizes along an axis."""
    if builtins.sum(sizes) != x.shape[axis]:
        raise ValueError(f"parts of {list(sizes)} do not make up axis {axis} of {x.shape}")
    axis %= x.ndim
    ends = [builtins.sum(sizes[: i + 1]) for i in range(len(sizes))]
    before = (slice(None),) * axis
    return views(x, [(*before, slice(end - size, end)) for size, end in zip(sizes, ends, strict=True)])


def where(condition: ShapeArray, x: Any, y: Any) -> ShapeArray:
    """Return `x` where the condition holds, else `y`."""
    inputs = [part for part in (x, y) if isinstance(part, ShapeArray)]
    shape = np.broadcast_shapes(condition.shape, *(part.shape for part in inputs))
    return made(inputs, shape, promoted(*(part.dtype for part in inputs)), keeps=[condition])


def mean(x: ShapeArray, axis: Axes = None, keep: bool = False) -> ShapeArray:
    """Average over the given axes, or over all."""
    axes = range(x.ndim) if axis is None else [a % x.ndim for a in ((axis,) if isinstance(axis, int) else axis)]
    kept = [1 if a in axes else n for a, n in enumerate(x.shape)]
    return made((x,), kept if keep else [n for a, n in enumerate(x.shape) if a not in axes], x.dtype)


def sum(x: ShapeArray, axis: Axes = None) -> ShapeArray:
    """Add over the given axes, or over all."""
    return mean(x, axis)


def _keeping_input(x: ShapeArray) -> ShapeArray:
    return made((x,), x.shape, x.dtype, keeps=[x])


def _keeping_output(x: ShapeArray) -> ShapeArray:
    return made((x,), x.shape, x.dtype, keeps_itself=True)


exp = sqrt = _rsqrt = _keeping_output
abs = silu = _keeping_input


def clip(x: ShapeArray, low: float, high: float) -> ShapeArray:
    """Limit every element to [low, high]."""
    return _keeping_input(x)


def gelu(x: ShapeArray, tanh: bool) -> ShapeArray:
    """Return GELU."""
    return _keeping_input(x)


def softmax(x: ShapeArray, axis: int) -> ShapeArray:
    """Return the softmax, computed in fp32, in the dtype of `x`."""
    return cast(_keeping_output(cast(x, float32)), x.dtype)


def argmin(x: ShapeArray, axis: int) -> ShapeArray:
    """Return the index of the least element along an axis."""
    shape = [n for a, n in enumerate(x.shape) if a != axis % x.ndim]
    return made((stop_gradient(x),), shape, "int64")


def stop_gradient(x: ShapeArray) -> ShapeArray:
    """Return `x` as a constant."""
    return ShapeArray(x.tape, x.shape, x.dtype, x.buffer, strides=x.strides)


def linear(x: ShapeArray, weight: ShapeArray, bias: ShapeArray | None = None) -> ShapeArray:
    """Return x·Wᵀ + b for x (…, in), W (out, in) and b (out,), in the dtype of W."""
    x = cast(x, weight.dtype)
    if x.shape[-1] != weight.shape[1]:
        raise ValueError(f"{x.shape} does not go into a linear map of {weight.shape}")
    flops = 2 * x.size * weight.shape[0]
    inputs = (x, weight) if bias is None else (x, weight, bias)
    shape = (*x.shape[:-1], weight.shape[0])
    return made(inputs, shape, weight.dtype, keeps=[x], flops=flops, back=(flops, flops, 0))


def conv2d(x: ShapeArray, weight: ShapeArray, bias: ShapeArray, stride: int, padding: int) -> ShapeArray:
    """Return the convolution of (batch, channels, rows, columns), with zeros around, in the dtype of the weight."""
    x = cast(x, weight.dtype)
    channels, *kernel = weight.shape[0], *weight.shape[2:]
    cells = [(n + 2 * padding - k) // stride + 1 for n, k in zip(x.shape[2:], kernel, strict=True)]
    shape = (x.shape[0], channels, *cells)
    flops = 2 * math.prod(shape) * math.prod(weight.shape[1:])
    return made((x, weight, bias), shape, weight.dtype, keeps=[x], flops=flops, back=(flops, flops, 0))


def take(table: ShapeArray, ids: ShapeArray) -> ShapeArray:
    """Return rows of `table` (rows, channels) at integer `ids` of any shape: (*ids, channels)."""
    return made((table,), (*ids.shape, table.shape[1]), table.dtype, keeps=[ids])


def group_norm(x: ShapeArray, groups: int, weight: ShapeArray, bias: ShapeArray, eps: float) -> ShapeArray:
    """Normalise groups of channels in fp32, scale and shift each channel, and return to the dtype of `x`."""
    y, inputs = cast(x, float32), (cast(weight, float32), cast(bias, float32))
    rows = (x.shape[0], groups)
    return cast(made((y, *inputs), y.shape, float32, keeps=[y], statistics=(rows, rows)), x.dtype)


def rms_norm(x: ShapeArray, weight: ShapeArray, eps: float) -> ShapeArray:
    """Normalise the last axis by its root mean square in fp32, then multiply by `weight`."""
    if x.tape.fused:
        return made((x, weight), x.shape, x.dtype, keeps=[x], statistics=(x.shape[:-1],))
    y = cast(x, float32)
    return cast(y * _rsqrt(mean(y * y, -1, keep=True) + eps), x.dtype) * weight


def layer_norm(
    x: ShapeArray, eps: float, weight: ShapeArray | None = None, bias: ShapeArray | None = None
) -> ShapeArray:
    """Normalise the last axis to zero mean and unit variance in fp32; scale and shift where given."""
    given = [part for part in (weight, bias) if part is not None]
    if x.tape.fused:
        return made((x, *given), x.shape, x.dtype, keeps=[x], statistics=(x.shape[:-1], x.shape[:-1]))
    y = cast(x, float32)
    centred = y - mean(y, -1, keep=True)
    normed = centred * _rsqrt(mean(centred * centred, -1, keep=True) + eps)
    if weight is not None and bias is not None:
        normed = normed * cast(weight, float32) + cast(bias, float32)
    return cast(normed, x.dtype)


def normalize(x: ShapeArray) -> ShapeArray:
    """Divide the last axis by its Euclidean length."""
    return x * _rsqrt(_keeping_input(mean(x * x, -1, keep=True)))


def attention(
    q: ShapeArray,
    k: ShapeArray,
    v: ShapeArray,
    mask: ShapeArray | None = None,
    causal: bool = False,
    segments: Sequence[int] | None = None,
) -> ShapeArray:
    """Return softmax(q·kᵀ / sqrt(head_dim))·v; arguments as the seam's. Pairs that do not see each other cost nothing.

    One kernel computes the weights again for their gradients; all gradients are made together. A mask's closed pairs count.
    """
    if segments is not None:
        pieces = zip(*(split(part, segments, 2) for part in (q, k, v)), strict=True)
        return concat([attention(one, keys, values, None, causal) for one, keys, values in pieces], 2)
    batch, heads, queries, head_dim = q.shape
    keys = k.shape[2]
    each = 2 * batch * heads * (queries * (queries + 1) // 2 if causal else queries * keys)
    width = head_dim + v.shape[3]
    if q.tape.fused:
        return made(
            (q, k, v), (batch, heads, queries, v.shape[3]), q.dtype, keeps=[q, k, v], keeps_itself=True,
            statistics=((batch, heads, queries),), flops=each * width, once=each * 2 * width, again=each * head_dim,
        )  # fmt: skip
    groups = (batch, k.shape[1], heads // k.shape[1] * queries)
    q = (q * head_dim**-0.5).reshape((*groups, head_dim))
    scores = cast(product(q, permute(k, (0, 1, 3, 2)), each * head_dim), float32).reshape((batch, heads, queries, keys))
    if causal:
        mask = made((stop_gradient(q),), (queries, keys), "bool")
    if mask is not None:
        scores = where(mask, scores, 0.0)
    weights = cast(softmax(scores, -1), v.dtype).reshape((*groups, keys))
    return product(weights, v, each * v.shape[3]).reshape((batch, heads, queries, v.shape[3]))


def cross_entropy(logits: ShapeArray, labels: ShapeArray, weights: ShapeArray) -> ShapeArray:
    """Return Σ wᵢ·CEᵢ / Σ wᵢ in fp32, for logits (n, classes), integer labels (n,) and weights (n,)."""
    logs = _keeping_output(cast(logits, float32))
    losses = made((logs,), labels.shape, float32, keeps=[labels])
    return sum(losses * weights) / sum(weights)


def upsample_nearest(x: ShapeArray, factor: int) -> ShapeArray:
    """Repeat every cell of (batch, channels, rows, columns) `factor` times each way."""
    return made((x,), (*x.shape[:2], x.shape[2] * factor, x.shape[3] * factor), x.dtype)


def pad_right_bottom(x: ShapeArray) -> ShapeArray:
    """Add one column on the right and one row below, of (batch, channels, rows, columns)."""
    return made((x,), (*x.shape[:2], x.shape[2] + 1, x.shape[3] + 1), x.dtype)


def cache_write(cache: ShapeArray, new: ShapeArray, start: ShapeArray) -> ShapeArray:
    """Return the cache, in the same memory."""
    return made((cache, new), cache.shape, cache.dtype, view_of=cache)


def checkpoint(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call `function`, keeping only its inputs for the backward pass and computing the rest again."""
    tape = next(leaves(arguments)).tape
    if not tape.recording:
        return function(*arguments)
    with tape.unrecorded():
        result = function(*arguments)
    outputs = list(leaves(result))
    node = Recomputed(tape, function, arguments, len(outputs))
    numbers = {id(out): index for index, out in enumerate(outputs)}

    def recorded(x: ShapeArray) -> ShapeArray:
        is_trained = x.needs_grad
        return ShapeArray(
            tape, x.shape, x.dtype, x.buffer, strides=x.strides, node=node if is_trained else None,
            output=numbers[id(x)], needs_grad=is_trained,
        )  # fmt: skip

    return mapped(result, recorded)
