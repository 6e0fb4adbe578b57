"""Arrays that have a shape and a dtype and no values, and what an operation makes of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sampan.frameworks.shapes.tape import BYTES, Buffer, CostTape, Leaf, Node, Operation, Shape

FLOATS = ("fp64", "fp32", "bf16", "fp16")
_OF_NUMPY = {"float64": "fp64", "float32": "fp32", "float16": "fp16"}


@dataclass(frozen=True)
class Blank:
    """An array of a batch before a pass is counted.

    Args:
        dtype: As NumPy or as this project calls it.
    """

    shape: Shape
    dtype: str = "fp32"

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return math.prod(self.shape) * BYTES[_OF_NUMPY.get(self.dtype, self.dtype)]


def weight(tape: CostTape, shape: Sequence[int], dtype: str, *, trained: bool) -> ShapeArray:
    """Return a weight, whose memory is counted elsewhere."""
    leaf = Leaf(tape, is_weight=True) if trained else None
    return ShapeArray(tape, tuple(shape), dtype, Buffer(tape, 0), node=leaf, needs_grad=trained, is_weight=True)


def of_batch(tape: CostTape, given: Any) -> Any:
    """Return an array of the batch, whose memory is counted elsewhere; of tuples, the same with arrays for blanks."""
    if isinstance(given, tuple):
        return tuple(of_batch(tape, part) for part in given)
    if not isinstance(given, Blank):
        return given
    return ShapeArray(tape, given.shape, _OF_NUMPY.get(given.dtype, given.dtype), Buffer(tape, 0))


class ShapeArray:
    """An array without values. What model code does with arrays works on it; what looks at values raises TypeError."""

    __slots__ = (
        "buffer", "dtype", "is_divided", "is_weight", "needs_grad", "node", "output", "shape", "strides", "tape",
    )  # fmt: skip

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
        is_divided: bool = False,
        is_weight: bool = False,
    ):
        self.tape, self.shape, self.dtype, self.buffer = tape, shape, dtype, buffer
        self.strides = _dense(shape) if strides is None else strides
        self.node, self.output, self.needs_grad = node, output, needs_grad
        self.is_divided, self.is_weight = is_divided, is_weight

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def __repr__(self) -> str:
        return f"ShapeArray({self.dtype}, {self.shape})"

    def __bool__(self) -> bool:
        raise TypeError("an array without values cannot be looked at")

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
        shape, strides = _indexed(self, index)
        whole = math.prod(shape) == self.size  # the gradient of a part is put into zeros
        return made((self,), shape, self.dtype, view_of=self, strides=strides, shares=(whole,))

    def transposed(self, axes: Sequence[int]) -> ShapeArray:
        """Return a view with the axes in another order."""
        shape, strides = (tuple(lengths[axis] for axis in axes) for lengths in (self.shape, self.strides))
        return made((self,), shape, self.dtype, view_of=self, strides=strides, shares=(True,))

    def __neg__(self) -> ShapeArray:
        return made((self,), self.shape, self.dtype)

    def __add__(self, other: Any) -> ShapeArray:
        return combined((self, other), shares=True)

    __radd__ = __sub__ = __add__

    def __rsub__(self, other: Any) -> ShapeArray:
        return combined((self, other))

    def __mul__(self, other: Any) -> ShapeArray:
        return combined((self, other), keeps=factors(self, other))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> ShapeArray:
        keeps = [*factors(self, other), *([other] if isinstance(other, ShapeArray) and other.needs_grad else [])]
        return combined((self, other), keeps=keeps)

    def __rtruediv__(self, other: Any) -> ShapeArray:
        return combined((self, other), keeps=[self])

    def __matmul__(self, other: ShapeArray) -> ShapeArray:
        return product(self, other)


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
    product: Operation | None = None,
    moved: int | None = None,
) -> ShapeArray:
    """Return what an operation makes of its inputs, and record how gradients go back.

    Args:
        keeps: What its gradient needs; `keeps_itself` for what came out, `statistics` for fp32 arrays of these shapes.
        flops: Of the operation; `back` of each input's gradient, `once` of all gradients together, `again` of what they
            compute a second time.
        view_of: Whose memory it is; None for its own.
        shares: For each input, whether its gradient is the output's, perhaps seen otherwise.
        product: What is multiplied; None where nothing is.
        moved: Values that are read and written; None for all inputs and the output.
    """
    tape, shape = inputs[0].tape, tuple(shape)
    tape.flops[tape.phase] += flops
    buffer = Buffer(tape, math.prod(shape) * BYTES[dtype]) if view_of is None else view_of.buffer
    needs_grad = any(x.needs_grad for x in inputs)
    if product is None or product.division is None:
        is_divided = any(x.is_divided for x in inputs)
    else:
        is_divided = product.division == "columns"
    out = ShapeArray(
        tape, shape, dtype, buffer, strides=strides, needs_grad=needs_grad, is_divided=is_divided,
        is_weight=view_of is not None and view_of.is_weight,
    )  # fmt: skip
    operation = None
    if tape.records and tape.phase == "forward" and (product is not None or view_of is None):
        operation = product or Operation(moved=sum(x.size for x in inputs) + out.size if moved is None else moved)
        operation.calls, operation.is_divided = tape.calls, is_divided
        operation.needs = tuple(x.needs_grad for x in inputs)
        operation.weights = max((x.size for x in inputs[1:2] if x.is_weight and product is not None), default=0)
        tape.operations.append(operation)
    if not needs_grad:
        return out
    sources = [source_of(x) for x in inputs]
    if not tape.recording:
        out.node = Node(tape, sources)  # says what it was made of
        return out
    held = [x.buffer for x in keeps] + ([buffer] if keeps_itself else [])
    own = [Buffer(tape, math.prod(one) * BYTES["fp32"]) for one in statistics]
    if tape.records:
        number = len(tape.operations) - 1
        for x in keeps:
            x.buffer.keep(number, x.is_divided)
        for one in (*([buffer] if keeps_itself else ()), *own):
            one.keep(number, is_divided)
    described = [(x.shape, x.dtype) for x in inputs]
    out.node = Node(tape, sources, described, keeps=held + own, back=back, shares=shares, once=once, again=again)
    out.node.operation = operation
    return out


def views(x: ShapeArray, pieces: Sequence[Any]) -> tuple[ShapeArray, ...]:
    """Return views of an array at the given indices, whose gradients are put together in one buffer."""
    places = [_indexed(x, piece) for piece in pieces]
    tape, node = x.tape, None
    if x.needs_grad:
        node = Node(tape, [source_of(x)], [(x.shape, x.dtype)], num_outputs=len(places))
    return tuple(
        ShapeArray(
            tape, shape, x.dtype, x.buffer, strides=strides, node=node, output=i, needs_grad=x.needs_grad,
            is_divided=x.is_divided,
        )
        for i, (shape, strides) in enumerate(places)
    )  # fmt: skip


def broadcast(*shapes: Shape) -> Shape:
    """Return the shape of arrays that are put on top of each other."""
    if all(shape == shapes[0] for shape in shapes):
        return shapes[0]
    found = []
    for lengths in itertools.zip_longest(*(reversed(shape) for shape in shapes), fillvalue=1):
        wide = {length for length in lengths if length != 1}
        if len(wide) > 1:
            raise ValueError(f"{' and '.join(map(str, shapes))} cannot be broadcast")
        found.append(wide.pop() if wide else 1)
    return tuple(reversed(found))


def combined(parts: Sequence[Any], *, keeps: Sequence[ShapeArray] = (), shares: bool = False) -> ShapeArray:
    """Return an element-by-element operation on arrays and numbers, broadcast against each other."""
    arrays = [part for part in parts if isinstance(part, ShapeArray)]
    if len(arrays) + sum(isinstance(part, (int, float)) for part in parts) != len(parts):
        raise TypeError(f"an array without values is not combined with {[type(part).__name__ for part in parts]}")
    shape = broadcast(*(x.shape for x in arrays))
    dtype = promoted(*(x.dtype for x in arrays))
    return made(arrays, shape, dtype, keeps=keeps, shares=[shares and x.shape == shape for x in arrays])


def product(x: ShapeArray, y: ShapeArray, flops: int | None = None) -> ShapeArray:
    """Return the matrix product of (…, n, k) and (…, k, m).

    Args:
        flops: Of the product and of each gradient; None for those of all pairs of rows and columns.
    """
    if x.shape[-1] != y.shape[-2]:
        raise ValueError(f"{x.shape} cannot be multiplied with {y.shape}")
    x, y = lowered(x), lowered(y)
    shape = (*broadcast(x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-1])
    operation = Operation("matmul", "product", x.shape[-2], x.shape[-1], y.shape[-1], copies=math.prod(shape[:-2]))
    flops = 2 * math.prod(shape) * x.shape[-1] if flops is None else flops
    keeps = [x, y] if x.tape.kernels.frozen_input else factors(x, y)
    dtype = promoted(x.dtype, y.dtype)
    return made((x, y), shape, dtype, keeps=keeps, flops=flops, back=(flops, flops), product=operation)


def lowered(x: ShapeArray) -> ShapeArray:
    """Return an array as a product reads it: in the lower dtype where the kernels have one."""
    lower = x.tape.kernels.lower
    if lower is None or x.dtype == lower or x.dtype not in FLOATS:
        return x
    return cast(x, lower)


def cast(x: ShapeArray, dtype: str) -> ShapeArray:
    """Return an array in another dtype."""
    return x if x.dtype == dtype else made((x,), x.shape, dtype)


def promoted(*dtypes: str) -> str:
    """Return the dtype of arithmetic between dtypes: the wider float, else the wider integer."""
    floats = {name for name in dtypes if name in FLOATS}
    if {"bf16", "fp16"} <= floats:
        floats.add("fp32")
    return max(sorted(floats or set(dtypes)), key=lambda name: BYTES[name])


def leaves(tree: Any) -> Iterator[ShapeArray]:
    """Yield the arrays in nested tuples and lists, in order."""
    if isinstance(tree, ShapeArray):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for part in tree:
            yield from leaves(part)


def mapped(tree: Any, function: Callable[[ShapeArray], ShapeArray]) -> Any:
    """Return nested tuples and lists with a function of each array in its place."""
    if isinstance(tree, ShapeArray):
        return function(tree)
    return type(tree)(mapped(part, function) for part in tree) if isinstance(tree, (tuple, list)) else tree


def source_of(x: ShapeArray) -> tuple[Node, int] | None:
    """Return the node that made an array and the number of its output there, or None where no gradient is wanted."""
    return None if x.node is None else (x.node, x.output)


def factors(x: ShapeArray, y: Any) -> list[ShapeArray]:
    """Return which of two factors a product keeps: each whose counterpart needs a gradient."""
    if not isinstance(y, ShapeArray):
        return []
    return [*([x] if y.needs_grad else []), *([y] if x.needs_grad else [])]


def without_node(x: ShapeArray) -> ShapeArray:
    """Return an array of which is not known what made it."""
    return ShapeArray(
        x.tape, x.shape, x.dtype, x.buffer, strides=x.strides, needs_grad=x.needs_grad, is_divided=x.is_divided
    )


def _indexed(x: ShapeArray, index: Any) -> tuple[Shape, Shape]:
    """Return shape and strides of a view at an index of integers, slices, None and an ellipsis."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if not all(part is None or part is Ellipsis or isinstance(part, (int, slice)) for part in parts):
        raise TypeError(f"an array without values is not indexed with {index!r}")
    rest = x.ndim - sum(isinstance(part, (int, slice)) for part in parts)
    at = parts.index(Ellipsis) if Ellipsis in parts else len(parts)
    parts[at : at + 1] = [slice(None)] * rest
    shape, strides, axis = [], [], 0
    for part in parts:
        if part is None:
            shape.append(1)
            strides.append(1)
            continue
        if isinstance(part, slice):
            places = range(*part.indices(x.shape[axis]))
            shape.append(len(places))
            strides.append(x.strides[axis] * places.step)
        axis += 1
    return tuple(shape), tuple(strides)


def _dense(shape: Shape) -> Shape:
    strides, stride = [], 1
    for length in reversed(shape):
        strides.append(stride)
        stride *= length
    return tuple(reversed(strides))


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
    found: list[int] = []
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
