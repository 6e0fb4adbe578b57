"""Arrays that have a shape and a dtype and no values, and what an operation makes of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from sampan.frameworks.shapes.tape import BYTES, Buffer, CostTape, Gradient, Leaf, Node, Shape

_OF_NUMPY = {"float64": "fp64", "float32": "fp32", "float16": "fp16"}


def weight(tape: CostTape, shape: Sequence[int], dtype: str, *, trained: bool) -> ShapeArray:
    """Return the outline of a weight, whose memory is counted elsewhere."""
    leaf = Leaf(tape, is_weight=True) if trained else None
    return ShapeArray(tape, tuple(shape), dtype, Buffer(tape, 0), node=leaf, needs_grad=trained)


def given(tape: CostTape, values: np.ndarray[Any, Any]) -> ShapeArray:
    """Return the outline of an array of the batch, whose memory is counted elsewhere."""
    name = str(values.dtype)
    return ShapeArray(tape, values.shape, _OF_NUMPY.get(name, name), Buffer(tape, 0))


class ShapeArray:
    """An array without values. What model code does with arrays works on it; what looks at values raises TypeError."""

    __slots__ = ("buffer", "dtype", "needs_grad", "node", "output", "shape", "strides", "tape")

    def __init__(
        self,
        tape: CostTape,
        shape: Shape,
        dtype: str,
        buffer: Buffer,
        *,
        strides: Shape | None = None,
        node: Node | None = None,
        output: int = 0,
        needs_grad: bool = False,
    ):
        self.tape, self.shape, self.dtype, self.buffer = tape, shape, dtype, buffer
        self.strides = _dense(shape) if strides is None else strides
        self.node, self.output, self.needs_grad = node, output, needs_grad

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def __repr__(self) -> str:
        return f"Outline({self.dtype}, {self.shape})"

    def __bool__(self) -> bool:
        raise TypeError("an outline has no values to look at")

    __float__ = __int__ = __bool__

    def reshape(self, shape: Sequence[int]) -> ShapeArray:
        """Return the same elements in another shape, one length of which may be -1: a view where that can be."""
        known = math.prod(n for n in shape if n != -1)
        new = tuple(self.size // known if n == -1 else n for n in shape)
        if math.prod(new) != self.size:
            raise ValueError(f"{self.shape} cannot be reshaped to {tuple(shape)}")
        strides = _reshaped(self.shape, self.strides, new)
        if strides is None:
            return made((self,), new, self.dtype, shares=(True,))
        return made((self,), new, self.dtype, view_of=self, strides=strides, shares=(True,))

    def __getitem__(self, index: Any) -> ShapeArray:
        parts = index if isinstance(index, tuple) else (index,)
        if not all(part is None or part is Ellipsis or isinstance(part, (int, slice)) for part in parts):
            raise TypeError(f"an outline is not indexed with {index!r}")
        view = self._ghost()[index]
        whole = view.size == self.size  # the gradient of a part is put into zeros
        return made((self,), view.shape, self.dtype, view_of=self, strides=view.strides, shares=(whole,))

    def transposed(self, axes: Sequence[int]) -> ShapeArray:
        """Return a view with the axes in another order."""
        view = self._ghost().transpose(axes)
        return made((self,), view.shape, self.dtype, view_of=self, strides=view.strides, shares=(True,))

    def _ghost(self) -> Any:
        return np.lib.stride_tricks.as_strided(np.empty(1, np.int8), self.shape, self.strides, writeable=False)

    def __neg__(self) -> ShapeArray:
        return made((self,), self.shape, self.dtype)

    def __add__(self, other: Any) -> ShapeArray:
        return combined((self, other), shares=True)

    __radd__ = __sub__ = __add__

    def __rsub__(self, other: Any) -> ShapeArray:
        return combined((self, other))

    def __mul__(self, other: Any) -> ShapeArray:
        return combined((self, other), keeps=_factors(self, other))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> ShapeArray:
        keeps = [*_factors(self, other), *([other] if isinstance(other, ShapeArray) and other.needs_grad else [])]
        return combined((self, other), keeps=keeps)

    def __rtruediv__(self, other: Any) -> ShapeArray:
        return combined((self, other), keeps=[self])

    def __matmul__(self, other: ShapeArray) -> ShapeArray:
        return product(self, other)


class Recomputed(Node):
    """A call of which only the inputs are kept; the rest is computed again when its gradients are wanted."""

    def __init__(self, tape: CostTape, function: Callable[..., Any], arguments: tuple[Any, ...], num_outputs: int):
        outlines = list(leaves(arguments))
        super().__init__(tape, [source_of(x) for x in outlines], num_outputs=num_outputs)
        self.function, self.arguments = function, mapped(arguments, _without_node)

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
        tape.backward(starts)
        return [x.node.gradient if isinstance(x.node, Leaf) else None for x in leaves(inputs)]


def made(
    inputs: Sequence[ShapeArray],
    shape: Sequence[int],
    dtype: str,
    *,
    keeps: Sequence[ShapeArray] = (),
    keeps_itself: bool = False,
    statistics: Sequence[Shape] = (),
    flops: int = 0,
    back: Sequence[int] = (),
    once: int = 0,
    again: int = 0,
    view_of: ShapeArray | None = None,
    strides: Shape | None = None,
    shares: Sequence[bool] = (),
) -> ShapeArray:
    """Return what an operation makes of its inputs, and record how gradients go back.

    Args:
        keeps: What its gradient needs; `keeps_itself` for what came out, `statistics` for fp32 arrays of these shapes.
        flops: Of the operation; `back` of each input's gradient, `once` of all gradients together, `again` of what they
            compute a second time.
        view_of: Whose memory it is; None for its own.
        shares: For each input, whether its gradient is the output's, perhaps seen otherwise.
    """
    tape, shape = inputs[0].tape, tuple(shape)
    tape.flops[tape.phase] += flops
    buffer = Buffer(tape, math.prod(shape) * BYTES[dtype]) if view_of is None else view_of.buffer
    out = ShapeArray(tape, shape, dtype, buffer, strides=strides, needs_grad=any(x.needs_grad for x in inputs))
    if out.needs_grad and tape.recording:
        held = [x.buffer for x in keeps] + ([buffer] if keeps_itself else [])
        held += [Buffer(tape, math.prod(one) * BYTES["fp32"]) for one in statistics]
        described = [(x.shape, x.dtype) for x in inputs]
        sources = [source_of(x) for x in inputs]
        out.node = Node(tape, sources, described, keeps=held, back=back, shares=shares, once=once, again=again)
    return out


def views(x: ShapeArray, pieces: Sequence[Any]) -> tuple[ShapeArray, ...]:
    """Return views of an array at the given indices, whose gradients are put together in one buffer."""
    ghosts = [x._ghost()[piece] for piece in pieces]
    tape, node = x.tape, None
    if x.needs_grad and tape.recording:
        node = Node(tape, [source_of(x)], [(x.shape, x.dtype)], num_outputs=len(ghosts))
    return tuple(
        ShapeArray(tape, g.shape, x.dtype, x.buffer, strides=g.strides, node=node, output=i, needs_grad=x.needs_grad)
        for i, g in enumerate(ghosts)
    )


def combined(parts: Sequence[Any], *, keeps: Sequence[ShapeArray] = (), shares: bool = False) -> ShapeArray:
    """Return an element-by-element operation on arrays and numbers, broadcast against each other."""
    arrays = [part for part in parts if isinstance(part, ShapeArray)]
    if len(arrays) + sum(isinstance(part, (int, float)) for part in parts) != len(parts):
        raise TypeError(f"an outline is not combined with {[type(part).__name__ for part in parts]}")
    shape = np.broadcast_shapes(*(x.shape for x in arrays))
    dtype = promoted(*(x.dtype for x in arrays))
    return made(arrays, shape, dtype, keeps=keeps, shares=[shares and x.shape == shape for x in arrays])


def product(x: ShapeArray, y: ShapeArray, flops: int | None = None) -> ShapeArray:
    """Return the matrix product of (…, n, k) and (…, k, m).

    Args:
        flops: Of the product and of each gradient; None for those of all pairs of rows and columns.
    """
    if x.shape[-1] != y.shape[-2]:
        raise ValueError(f"{x.shape} cannot be multiplied with {y.shape}")
    shape = (*np.broadcast_shapes(x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-1])
    flops = 2 * math.prod(shape) * x.shape[-1] if flops is None else flops
    return made((x, y), shape, promoted(x.dtype, y.dtype), keeps=[x, y], flops=flops, back=(flops, flops))


def promoted(*dtypes: str) -> str:
    """Return the dtype of arithmetic between dtypes: the wider float, else the wider integer."""
    floats = {name for name in dtypes if name in ("fp64", "fp32", "bf16", "fp16")}
    if {"bf16", "fp16"} <= floats:
        floats.add("fp32")
    return max(sorted(floats or set(dtypes)), key=lambda name: BYTES[name])


def leaves(tree: Any) -> Iterator[ShapeArray]:
    """Yield the outlines in nested tuples and lists, in order."""
    if isinstance(tree, ShapeArray):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for part in tree:
            yield from leaves(part)


def mapped(tree: Any, function: Callable[[ShapeArray], ShapeArray]) -> Any:
    """Return nested tuples and lists with a function of each outline in its place."""
    if isinstance(tree, ShapeArray):
        return function(tree)
    return type(tree)(mapped(part, function) for part in tree) if isinstance(tree, (tuple, list)) else tree


def source_of(x: ShapeArray) -> tuple[Node, int] | None:
    """Return the node that made an array and the number of its output there, or None where no gradient is wanted."""
    return None if x.node is None else (x.node, x.output)


def _factors(x: ShapeArray, y: Any) -> list[ShapeArray]:
    if not isinstance(y, ShapeArray):
        return []
    return [*([x] if y.needs_grad else []), *([y] if x.needs_grad else [])]


def _plain(tape: CostTape, shape: Shape, dtype: str) -> ShapeArray:
    return ShapeArray(tape, shape, dtype, Buffer(tape, math.prod(shape) * BYTES[dtype]))


def _without_node(x: ShapeArray) -> ShapeArray:
    return ShapeArray(x.tape, x.shape, x.dtype, x.buffer, strides=x.strides, needs_grad=x.needs_grad)


def _entering(x: ShapeArray) -> ShapeArray:
    entry = _without_node(x)
    entry.node = Leaf(x.tape, is_weight=False) if x.needs_grad else None
    return entry


def _dense(shape: Shape) -> Shape:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _reshaped(shape: Shape, strides: Shape, new: Shape) -> Shape | None:
    """Return the strides of a view in another shape, or None where the elements have to be copied."""
    runs: list[tuple[int, int]] = []  # elements that lie at even distances, and the distance
    for length, stride in zip(shape, strides, strict=True):
        if length == 1:
            continue
        if runs and runs[-1][1] == length * stride:
            runs[-1] = (runs[-1][0] * length, stride)
        else:
            runs.append((length, stride))
    found = []
    for length in reversed(new):
        while runs and runs[-1][0] == 1:
            runs.pop()
        if length == 1:
            found.append(1)
            continue
        if not runs or runs[-1][0] % length:
            return None
        count, stride = runs[-1]
        found.append(stride)
        runs[-1] = (count // length, stride * length)
    return tuple(reversed(found))
