"""Pure array functions on TensorFlow, those that generator, decoder and their losses need.

Names and meaning are the framework interface's (sampan.frameworks.OPS_NAMES). Shapes are known when a graph is
traced, so that they are Python integers here as there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import tensorflow as tf

Tensor = Any  # tf.Tensor or tf.Variable; shapes are in the docstrings

float32 = tf.float32


def cast(x: Tensor, dtype: Any) -> Tensor:
    """Return `x` in another dtype."""
    return x if x.dtype == dtype else tf.cast(x, dtype)


def permute(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Return `x` with its axes in the given order."""
    return tf.transpose(x, axes)


def concat(parts: Sequence[Tensor], axis: int) -> Tensor:
    """Put arrays one after another along an axis."""
    return tf.concat(list(parts), axis)


def chunk(x: Tensor, parts: int, axis: int) -> tuple[Tensor, ...]:
    """Split `x` into equal parts along an axis."""
    return tuple(tf.split(x, parts, axis))


def split(x: Tensor, sizes: Sequence[int], axis: int) -> tuple[Tensor, ...]:
    """Split `x` into parts of the given sizes along an axis. Unlike slices, its gradient is put together in one pass."""
    return tuple(tf.split(x, list(sizes), axis))


def mean(x: Tensor, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """Average over the given axes, or over all."""
    return tf.reduce_mean(x, axis)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x·Wᵀ + b for x (…, in), W (out, in) and b (out,).

    The rows of `x` are one matrix: with more axes the library would make a weight's gradient for each and add them.
    """
    *lead, width = x.shape
    product = tf.matmul(tf.reshape(x, (prod(lead), width)), weight, transpose_b=True)
    if bias is not None:
        product = tf.nn.bias_add(product, bias)
    return tf.reshape(product, (*lead, weight.shape[0]))


def take(table: Tensor, ids: Tensor) -> Tensor:
    """Return rows of `table` (rows, channels) at integer `ids` of any shape: (*ids, channels)."""
    return tf.gather(table, ids)


def silu(x: Tensor) -> Tensor:
    """Return x·sigmoid(x)."""
    return tf.nn.silu(x)


def gelu(x: Tensor, tanh: bool) -> Tensor:
    """Return GELU: the tanh approximation or the exact erf form."""
    return tf.nn.gelu(x, approximate=tanh)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalise the last axis by its root mean square in fp32, return to the dtype of `x`, then multiply by `weight`."""
    y = cast(x, tf.float32)
    return cast(y * tf.math.rsqrt(tf.reduce_mean(y * y, -1, keepdims=True) + eps), x.dtype) * weight


def layer_norm(x: Tensor, eps: float, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """Normalise the last axis to zero mean and unit variance in fp32; scale and shift where given."""
    y = cast(x, tf.float32)
    centred = y - tf.reduce_mean(y, -1, keepdims=True)
    normed = centred * tf.math.rsqrt(tf.reduce_mean(centred * centred, -1, keepdims=True) + eps)
    if weight is not None:
        normed = normed * weight + bias
    return cast(normed, x.dtype)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    causal: bool = False,
    segments: Sequence[int] | None = None,
) -> Tensor:
    """Return softmax(q·kᵀ / sqrt(head_dim))·v. All pairs are computed; TensorFlow has no fused attention on a CPU.

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
        # one call a stretch: nothing outside it is computed, and no mask of all against all is built
        pieces = zip(*(split(part, segments, 2) for part in (q, k, v)), strict=True)
        return concat([attention(*piece, causal=causal) for piece in pieces], 2)
    batch, heads, queries, head_dim = q.shape
    kv_heads, keys = k.shape[1], k.shape[2]
    q = q * head_dim**-0.5
    if kv_heads != heads:  # the heads of a group are rows of one product, so that keys and values need no copies
        q = tf.reshape(q, (batch, kv_heads, heads // kv_heads * queries, head_dim))
    scores = tf.reshape(cast(tf.matmul(q, k, transpose_b=True), tf.float32), (batch, heads, queries, keys))
    if causal:
        assert queries == keys, "a causal mask needs as many keys as queries"
        index = tf.range(keys)
        mask = index[None, :] <= index[:, None]
    if mask is not None:
        scores = tf.where(mask, scores, _CLOSED)
    weights = tf.reshape(cast(tf.nn.softmax(scores, -1), v.dtype), (batch, kv_heads, -1, keys))
    return tf.reshape(tf.matmul(weights, v), (batch, heads, queries, head_dim))


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return Σ wᵢ·CEᵢ / Σ wᵢ in fp32, for logits (n, classes), integer labels (n,) and weights (n,)."""
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, cast(logits, tf.float32))
    return tf.reduce_sum(losses * weights) / tf.reduce_sum(weights)


def cache_write(cache: Tensor, new: Tensor, start: Tensor) -> Tensor:
    """Return the cache (batch, heads, slots, head_dim) with `new` at slots start, start+1, …

    The old cache must not be used again: a framework may reuse its memory.
    """
    first = cast(start, tf.int32)
    begin = tf.stack([0, 0, first, 0])
    end = tf.stack([cache.shape[0], cache.shape[1], first + new.shape[2], cache.shape[3]])
    return tf.raw_ops.TensorStridedSliceUpdate(
        input=cache, begin=begin, end=end, strides=[1, 1, 1, 1], value=cast(new, cache.dtype)
    )


def checkpoint(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call `function`, keeping only its inputs for the backward pass and computing the rest again."""
    flat = tf.nest.flatten(arguments)
    # the library's function takes and returns nothing but floating tensors; masks, numbers and None go around it
    takes = [tf.is_tensor(value) and value.dtype.is_floating for value in flat]
    shape_of_result: list[Any] = []

    def on_tensors(*tensors: Tensor) -> list[Tensor]:
        given = iter(tensors)
        filled = [next(given) if taken else value for value, taken in zip(flat, takes, strict=True)]
        result = function(*tf.nest.pack_sequence_as(arguments, filled))
        shape_of_result[:] = [result]
        return [value for value in tf.nest.flatten(result) if value is not None]

    made = iter(tf.recompute_grad(on_tensors)(*(v for v, taken in zip(flat, takes, strict=True) if taken)))
    (result,) = shape_of_result
    filled = [None if value is None else next(made) for value in tf.nest.flatten(result)]
    return tf.nest.pack_sequence_as(result, filled)


_CLOSED = -1e30  # of a score in fp32: its exponential is 0 beside any other, and a row that is all closed stays finite
