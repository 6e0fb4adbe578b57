"""The framework interface's functions on shapes: which shape comes out, what it costs, what its gradient keeps.

Names and meaning are those of sampan.frameworks.OPS_NAMES, with `conv2d` and `group_norm` that layers call. Where a weight
meets an array of another dtype, the array is brought to the weight's.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Sequence
from typing import Any

from sampan.frameworks.shapes.array import (
    ShapeArray,
    broadcast,
    cast,
    leaves,
    lowered,
    made,
    mapped,
    product,
    promoted,
    source_of,
    views,
    without_node,
)
from sampan.frameworks.shapes.tape import CostTape, Gradient, Leaf, Node, Operation

__all__ = [
    "abs", "argmin", "attention", "cache_write", "cast", "checkpoint", "chunk", "clip", "concat", "conv2d", "cross_entropy",
    "exp", "float32", "gelu", "group_norm", "int32", "layer_norm", "linear", "mean", "normalize", "pad_right_bottom",
    "permute", "rms_norm", "silu", "softmax", "split", "sqrt", "stop_gradient", "sum", "take", "upsample_nearest", "where",
]  # fmt: skip

float32 = "fp32"
int32 = "int32"

Axes = int | tuple[int, ...] | None


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
    shape = broadcast(condition.shape, *(part.shape for part in inputs))
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
    return ShapeArray(x.tape, x.shape, x.dtype, x.buffer, strides=x.strides, is_divided=x.is_divided)


def linear(x: ShapeArray, weight: ShapeArray, bias: ShapeArray | None = None) -> ShapeArray:
    """Return x·Wᵀ + b for x (…, in), W (out, in) and b (out,), in the dtype of W or in that of all products."""
    tape = x.tape
    x, weight, *biases = _operands(x, weight, bias)
    if x.shape[-1] != weight.shape[1]:
        raise ValueError(f"{x.shape} does not go into a linear map of {weight.shape}")
    flops, rows = 2 * x.size * weight.shape[0], x.size // x.shape[-1]
    operation = Operation("matmul", "linear", rows, x.shape[-1], weight.shape[0], division=tape.division(tape.path))
    shape = (*x.shape[:-1], weight.shape[0])
    keeps = [*([x] if weight.needs_grad or tape.kernels.frozen_input else []), *([weight] if x.needs_grad else [])]
    return made(
        (x, weight, *biases), shape, weight.dtype, keeps=keeps, flops=flops, back=(flops, flops, 0), product=operation
    )


def conv2d(x: ShapeArray, weight: ShapeArray, bias: ShapeArray, stride: int, padding: int) -> ShapeArray:
    """Return the convolution of (batch, channels, rows, columns), with zeros around, in the dtype of the weight."""
    x, weight, *biases = _operands(x, weight, bias)
    channels, *kernel = weight.shape[0], *weight.shape[2:]
    cells = [(n + 2 * padding - k) // stride + 1 for n, k in zip(x.shape[2:], kernel, strict=True)]
    shape = (x.shape[0], channels, *cells)
    inner, rows = math.prod(weight.shape[1:]), x.shape[0] * math.prod(cells)
    flops = 2 * rows * channels * inner
    operation = Operation("conv", "convolution", rows, inner, channels, cells_in=x.size)
    return made(
        (x, weight, *biases),
        shape,
        weight.dtype,
        keeps=[x, weight],
        flops=flops,
        back=(flops, flops, 0),
        product=operation,
    )


def _operands(x: ShapeArray, weight: ShapeArray, bias: ShapeArray | None) -> list[ShapeArray]:
    parts = [x, weight, *([] if bias is None else [bias])]
    if x.tape.kernels.lower is not None:
        return [lowered(part) for part in parts]
    return [cast(x, weight.dtype), *parts[1:]]


def take(table: ShapeArray, ids: ShapeArray) -> ShapeArray:
    """Return rows of `table` (rows, channels) at integer `ids` of any shape: (*ids, channels)."""
    shape = (*ids.shape, table.shape[1])
    return made((table,), shape, table.dtype, keeps=[ids], moved=2 * math.prod(shape))


def group_norm(x: ShapeArray, groups: int, weight: ShapeArray, bias: ShapeArray, eps: float) -> ShapeArray:
    """Normalise groups of channels, then scale and shift each channel."""
    dtype, rows = x.dtype, (x.shape[0], groups)
    if x.tape.kernels.wide_group_norm:
        x, weight, bias = (cast(part, float32) for part in (x, weight, bias))
        return cast(_norm(x, [weight, bias], (rows, rows)), dtype)
    return _norm(x, [weight, bias], (rows, rows))


def _norm(x: ShapeArray, weights: Sequence[ShapeArray], statistics: Sequence[tuple[int, ...]]) -> ShapeArray:
    x = cast(x, x.tape.kernels.norm_dtype or x.dtype)
    return made((x, *weights), x.shape, x.dtype, keeps=[x], statistics=statistics, moved=2 * x.size)


def rms_norm(x: ShapeArray, weight: ShapeArray, eps: float) -> ShapeArray:
    """Normalise the last axis by its root mean square in fp32, then multiply by `weight`."""
    kernels, dtype = x.tape.kernels, x.dtype
    y = cast(x, float32) if kernels.fp32_rms_norm or not kernels.norms else x
    if kernels.norms:
        normed = _norm(y, [], (x.shape[:-1],))
    else:
        normed = y * _rsqrt(mean(y * y, -1, keep=True) + eps)
    return cast(normed, kernels.norm_dtype or dtype) * weight


def layer_norm(
    x: ShapeArray, eps: float, weight: ShapeArray | None = None, bias: ShapeArray | None = None
) -> ShapeArray:
    """Normalise the last axis to zero mean and unit variance in fp32; scale and shift where given."""
    if x.tape.kernels.norms:
        return _norm(x, [part for part in (weight, bias) if part is not None], (x.shape[:-1], x.shape[:-1]))
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
    """Return softmax(q·kᵀ / sqrt(head_dim))·v; arguments as of the interface. Pairs that do not see each other cost nothing.

    One kernel computes the weights again for their gradients; all gradients are made together. A mask's closed pairs count.
    """
    if segments is not None:
        pieces = zip(*(split(part, segments, 2) for part in (q, k, v)), strict=True)
        return concat([attention(one, keys, values, None, causal) for one, keys, values in pieces], 2)
    q, k, v = lowered(q), lowered(k), lowered(v)
    batch, heads, queries, head_dim = q.shape
    keys = k.shape[2]
    each = 2 * batch * heads * (queries * (queries + 1) // 2 if causal else queries * keys)
    width = head_dim + v.shape[3]
    if q.tape.kernels.attention:
        operation = Operation(
            "attention",
            "attention",
            queries,
            head_dim,
            keys,
            copies=batch * heads,
            kv_heads=batch * k.shape[1],
            is_causal=causal,
        )
        return made(
            (q, k, v), (batch, heads, queries, v.shape[3]), q.dtype, keeps=[q, k, v], keeps_itself=True,
            statistics=((batch, heads, queries),), flops=each * width, once=each * 2 * width, again=each * head_dim,
            product=operation, strides=_layout(q, v.shape[3]),
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


def _layout(q: ShapeArray, head_dim: int) -> tuple[int, ...]:
    """Return the strides of attention's result (batch, heads, queries, head_dim)."""
    _, heads, queries, _ = q.shape
    result = q.tape.kernels.result
    if result == "tokens" or (result == "queries" and q.strides[1] < q.strides[2]):
        return (queries * heads * head_dim, head_dim, heads * head_dim, 1)
    return (heads * queries * head_dim, queries * head_dim, head_dim, 1)


def cross_entropy(logits: ShapeArray, labels: ShapeArray, weights: ShapeArray) -> ShapeArray:
    """Return Σ wᵢ·CEᵢ / Σ wᵢ in fp32, for logits (n, classes), integer labels (n,) and weights (n,)."""
    logs = _keeping_output(cast(logits, float32))
    losses = made((logs,), labels.shape, float32, keeps=[labels], moved=2 * labels.size)
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
    before = tape.num_nodes
    with tape.unrecorded():
        result = function(*arguments)
    outputs = list(leaves(result))
    node = _Recomputed(tape, function, arguments, len(outputs))
    given = {source[0] for source in node.sources if source is not None}
    node.repeated = [set() if out.node is None else out.node.weights_since(before) - given for out in outputs]
    numbers = {id(out): index for index, out in enumerate(outputs)}

    def recorded(x: ShapeArray) -> ShapeArray:
        is_trained = x.needs_grad
        return ShapeArray(
            tape, x.shape, x.dtype, x.buffer, strides=x.strides, node=node if is_trained else None,
            output=numbers[id(x)], needs_grad=is_trained, is_divided=x.is_divided,
        )  # fmt: skip

    return mapped(result, recorded)


class _Recomputed(Node):
    """A call of which only the inputs are kept; the rest is computed again when its gradients are wanted."""

    def __init__(self, tape: CostTape, function: Callable[..., Any], arguments: tuple[Any, ...], num_outputs: int):
        arrays = list(leaves(arguments))
        super().__init__(tape, [source_of(x) for x in arrays], num_outputs=num_outputs)
        self.function, self.arguments = function, mapped(arguments, without_node)

    def free(self) -> None:
        self.arguments = ()

    def gradients(self, given: list[Gradient | None]) -> list[Gradient | None]:
        tape = self.tape
        inputs = mapped(self.arguments, _entering)
        before, tape.phase = tape.phase, "again"
        outputs = list(leaves(self.function(*inputs)))
        tape.phase = before
        starts = [
            (out.node, out.output, gradient)
            for out, gradient in zip(outputs, given, strict=True)
            if out.node is not None and gradient is not None
        ]
        del outputs
        given.clear()
        tape.expect([(node, output) for node, output, _ in starts])
        for leaf in self.expected:  # of this call as a whole
            leaf.arrived()
        tape.backward(starts)
        return [x.node.gradient if isinstance(x.node, Leaf) else None for x in leaves(inputs)]


def _entering(x: ShapeArray) -> ShapeArray:
    entry = without_node(x)
    entry.node = Leaf(x.tape, is_weight=False) if x.needs_grad else None
    return entry
