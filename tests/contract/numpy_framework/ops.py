"""Array functions in NumPy, in float64, from their definitions. Names and meaning are the framework interface's."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

float32 = np.float64  # the reference has one floating dtype, so that its own rounding is nowhere near a tolerance
int32 = np.int32

exp, sqrt, where = np.exp, np.sqrt, np.where
abs = np.abs  # noqa: A001
_erf = np.vectorize(math.erf, otypes=[np.float64])


def cast(x: Array, dtype: Any) -> Array:
    return x.astype(dtype)


def permute(x: Array, axes: Sequence[int]) -> Array:
    return np.transpose(x, axes)


def concat(parts: Sequence[Array], axis: int) -> Array:
    return np.concatenate(list(parts), axis)


def chunk(x: Array, parts: int, axis: int) -> tuple[Array, ...]:
    return tuple(np.split(x, parts, axis))


def split(x: Array, sizes: Sequence[int], axis: int) -> tuple[Array, ...]:
    assert x.shape[axis] == math.fsum(sizes), "the sizes are those of all parts"
    return tuple(np.split(x, np.cumsum(sizes)[:-1], axis))


def mean(x: Array, axis: Any = None) -> Array:
    return np.asarray(x.mean(axis))


def sum(x: Array, axis: Any = None) -> Array:  # noqa: A001
    return np.asarray(x.sum(axis))


def clip(x: Array, low: float, high: float) -> Array:
    return np.clip(x, low, high)


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    return x @ weight.T + (0 if bias is None else bias)


def take(table: Array, ids: Array) -> Array:
    return table[ids]


def argmin(x: Array, axis: int) -> Array:
    return x.argmin(axis)


def softmax(x: Array, axis: int) -> Array:
    powers = np.exp(x - x.max(axis, keepdims=True))
    return powers / powers.sum(axis, keepdims=True)


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def gelu(x: Array, tanh: bool) -> Array:
    if tanh:
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)))


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight


def layer_norm(x: Array, eps: float, weight: Array | None = None, bias: Array | None = None) -> Array:
    normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
    return (normed if weight is None else normed * weight) + (0 if bias is None else bias)


def group_norm(x: Array, groups: int, weight: Array, bias: Array, eps: float) -> Array:
    """Normalise each picture's groups of channels; not one of the interface's functions, and there for its layer."""
    parts = x.reshape((x.shape[0], groups, -1))
    normed = (parts - parts.mean(-1, keepdims=True)) / np.sqrt(parts.var(-1, keepdims=True) + eps)
    return normed.reshape(x.shape) * weight[:, None, None] + bias[:, None, None]


def conv2d(x: Array, weight: Array, bias: Array, stride: int, padding: int) -> Array:
    """Add up the kernel's places one after another; not one of the interface's functions, and there for its layer."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    side = weight.shape[-1]
    rows, columns = ((length - side) // stride + 1 for length in x.shape[2:])
    total = np.zeros((x.shape[0], weight.shape[0], rows, columns))
    for row in range(side):
        for column in range(side):
            seen = x[:, :, row : row + rows * stride : stride, column : column + columns * stride : stride]
            total += (weight[:, :, row, column] @ seen.reshape((*x.shape[:2], -1))).reshape(total.shape)
    return total + bias[:, None, None]


def normalize(x: Array) -> Array:
    return x / np.maximum(np.sqrt((x**2).sum(-1, keepdims=True)), 1e-12)


def attention(
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None = None,
    causal: bool = False,
    segments: Sequence[int] | None = None,
) -> Array:
    assert not (causal and mask is not None), "a causal mask is built by the caller when there is another mask"
    assert segments is None or mask is None, "segments say what a mask would say"
    batch, heads, queries, width = q.shape
    is_open = np.ones((batch, heads, queries, k.shape[2]), bool)
    if mask is not None:
        is_open &= mask
    if causal:
        is_open &= np.tri(queries, dtype=bool)
    if segments is not None:
        number = np.repeat(np.arange(len(segments)), segments)
        is_open &= number[:, None] == number[None, :]
    k, v = (each.repeat(heads // each.shape[1], axis=1) for each in (k, v))
    scores = q @ k.swapaxes(2, 3) / math.sqrt(width)
    return softmax(np.where(is_open, scores, -np.inf), -1) @ v


def cross_entropy(logits: Array, labels: Array, weights: Array) -> Array:
    probabilities = softmax(logits, -1)[np.arange(len(labels)), labels]
    return -(np.log(probabilities) * weights).sum() / weights.sum()


def upsample_nearest(x: Array, factor: int) -> Array:
    return x.repeat(factor, axis=2).repeat(factor, axis=3)


def pad_right_bottom(x: Array) -> Array:
    return np.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1)))


def cache_write(cache: Array, new: Array, start: Array) -> Array:
    written = cache.copy()
    written[:, :, int(start) : int(start) + new.shape[2]] = new
    return written


def stop_gradient(x: Array) -> Array:
    return _held[-1].next(x) if _held else x


def checkpoint(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


class _Held:
    """What stop_gradient returned in a first pass, in order, and returns again in all later ones."""

    def __init__(self) -> None:
        self.values: list[Array] = []
        self.place = 0

    def rewind(self) -> None:
        self.place = 0

    def next(self, x: Array) -> Array:
        if self.place == len(self.values):
            self.values.append(x.copy())  # a difference is taken by changing an input in its place
        self.place += 1
        return self.values[self.place - 1]


_held: list[_Held] = []


@contextlib.contextmanager
def holding_constants() -> Iterator[Callable[[], None]]:
    """Hold fast what stop_gradient returns in the first pass, as finite differences need it.

    Gives a function that is called before every pass.
    """
    _held.append(_Held())
    try:
        yield _held[-1].rewind
    finally:
        _held.pop()
