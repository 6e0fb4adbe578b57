"""What one pass costs: arithmetic by phase, memory as it comes and goes, and the way back from the loss."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from sampan.frameworks.records import PassCost

BYTES = {
    "fp64": 8, "fp32": 4, "bf16": 2, "fp16": 2, "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1
}  # fmt: skip
Shape = tuple[int, ...]


Calls = tuple[tuple[str, int], ...]
"""The modules within which an operation is called, outermost first, each with the number of its call."""


@dataclass(frozen=True)
class Kernels:
    """What the kernels of a framework on a device keep for gradients: all in which frameworks differ here.

    Args:
        attention: One kernel that writes no scores; without it all pairs are written out.
        result: How it lays out its result: by "heads", by "tokens", or in the order of the "queries".
        norms: One kernel for a norm; without it their sums and products.
        norm_dtype: The dtype to which norms bring what they read, and which they return; None is its own.
        wide_group_norm: Group norms bring what they read to fp32, and their result back.
        fp32_rms_norm: RMS norms bring what they read to fp32 and their result back; their weight comes after that.
        frozen_input: A linear map keeps its input although its weight is not trained.
        lower: The dtype to which products bring what they read, weights included; None leaves it to the arrays.
    """

    attention: bool = True
    result: Literal["heads", "tokens", "queries"] = "heads"
    norms: bool = True
    norm_dtype: str | None = None
    wide_group_norm: bool = False
    fp32_rms_norm: bool = False
    frozen_input: bool = False
    lower: str | None = None


@dataclass(slots=True, eq=False)
class Operation:
    """One operation of a forward pass.

    Args:
        kind: "matmul", "conv", "attention", or "memory", which multiplies nothing.
        name: What is called: "linear", "product" of two arrays, "convolution", "attention".
        rows, inner, cols: The sides of its product; for attention queries, head width and keys.
        copies: Products of these sides; heads of attention.
        kv_heads: Heads of attention's keys and values.
        weights: Values of its weight; 0 where it has none.
        moved: Values that are read and written; of "memory" alone.
        cells_in: Of a convolution, the values that go in.
        division: How tensor parallelism divides a linear map: "columns", "rows" or "none"; None where it goes by the inputs.
        calls: Where it is called.
        is_divided: Whether what comes out is divided by tensor parallelism.
        needs: For each array that goes in, whether it needs a gradient.
        gradients: Products that were computed in the backward pass; attention's are not counted apart.
        is_visited: Whether a gradient went through it.
    """

    kind: Literal["matmul", "conv", "attention", "memory"] = "memory"
    name: str = ""
    rows: int = 0
    inner: int = 0
    cols: int = 0
    copies: int = 1
    kv_heads: int = 0
    weights: int = 0
    moved: int = 0
    cells_in: int = 0
    is_causal: bool = False
    division: str | None = None
    calls: Calls = ()
    is_divided: bool = False
    needs: tuple[bool, ...] = ()
    gradients: int = 0
    is_visited: bool = False


class CostTape:
    """Adds up what one pass costs.

    Args:
        records: Operations are also kept one by one, in `operations`, and bytes that are kept for gradients when the loss is
            known, in `kept_forward`: by the first and the last operation that keeps them, and whether tensor parallelism
            divides them.
        division: Returns how tensor parallelism divides a linear layer ("columns", "rows" or "none"), by its dotted name.
    """

    def __init__(
        self,
        kernels: Kernels = Kernels(),  # frozen
        *,
        records: bool = False,
        division: Callable[[str], str] = lambda name: "none",
    ):
        self.kernels, self.records, self.division = kernels, records, division
        self.flops = {"forward": 0, "backward": 0, "again": 0}
        self.phase = "forward"
        self.recording = True
        self.live = self.peak = self.gradients = self.activation_peak = 0
        self.num_nodes = 0
        self.paths: dict[int, str] = {}
        self.calls: Calls = ()
        self.operations: list[Operation] = []
        self.kept: defaultdict[tuple[int, int, bool], int] = defaultdict(int)
        self.kept_forward: dict[tuple[int, int, bool], int] = {}
        self._call_numbers = itertools.count()

    @property
    def path(self) -> str:
        """The dotted name of the module that computes now."""
        return self.calls[-1][0] if self.calls else ""

    @contextmanager
    def inside(self, module: Any) -> Iterator[None]:
        """Let operations be a module's while the block runs."""
        before = self.calls
        self.calls = (*before, (self.paths.get(id(module), ""), next(self._call_numbers)))
        try:
            yield
        finally:
            self.calls = before

    def measure(self, loss: Callable[[], Any], *, batch_bytes: int) -> PassCost:
        """Call a loss, go back through what it did, and return what both cost.

        Args:
            loss: Returns a scalar, or a tuple that begins with one, made of this tape's arrays.

        Raises:
            ValueError: Nothing that is trained takes part in it.
        """
        result = loss()
        value = result[0] if isinstance(result, tuple) else result
        if value.node is None:
            raise ValueError("nothing that is trained takes part in the loss")
        forward, kept = self.flops["forward"], self.live
        self.kept_forward = {keeper: num_bytes for keeper, num_bytes in self.kept.items() if num_bytes}
        self.expect([(value.node, value.output)])
        self.backward([(value.node, value.output, Gradient(self, value.shape, value.dtype))])
        useful = forward + self.flops["backward"]
        return PassCost(
            forward_flops=forward,
            useful_flops=useful,
            executed_flops=useful + self.flops["again"],
            kept_bytes=kept,
            activation_bytes=self.activation_peak,
            peak_bytes=self.peak,
            batch_bytes=batch_bytes,
        )

    def expect(self, starts: Sequence[tuple[Node, int]]) -> None:
        """Tell every weight how many gradients will come to it from these outputs of nodes."""
        waiting, seen = list(starts), set()
        while waiting:
            node, output = waiting.pop()
            for leaf in node.repeated[output] - node.expected if node.repeated else ():
                node.expected.add(leaf)
                leaf.num_awaited += 1
            if node in seen:
                continue
            seen.add(node)
            for source, number in filter(None, node.sources):
                if isinstance(source, Leaf):
                    source.num_awaited += 1
                else:
                    waiting.append((source, number))

    def backward(self, given: list[tuple[Node, int, Gradient]]) -> None:
        """Go back from the given (node, number of its output, gradient), the latest node first.

        The list is empty afterwards, so that it holds no memory.
        """
        waiting: dict[Node, list[Gradient | None]] = {}
        order: list[tuple[int, Node]] = []

        def give(node: Node, output: int, gradient: Gradient) -> None:
            if isinstance(node, Leaf):
                node.accumulate(gradient)
                return
            if node not in waiting:
                waiting[node] = [None] * node.num_outputs
                heapq.heappush(order, (-node.number, node))
            before = waiting[node][output]
            waiting[node][output] = gradient if before is None else Gradient(self, before.shape, before.dtype)

        while given:
            give(*given.pop())
        while order:
            node = heapq.heappop(order)[1]
            found = node.gradients(waiting.pop(node))
            node.free()
            for source in node.sources:
                gradient = found.pop(0)
                if source is not None and gradient is not None:
                    give(*source, gradient)
                del gradient

    @contextmanager
    def unrecorded(self) -> Iterator[None]:
        """Keep nothing for gradients while the block runs."""
        before, self.recording = self.recording, False
        try:
            yield
        finally:
            self.recording = before


class Buffer:
    """Memory, from its making until nothing refers to it."""

    __slots__ = ("keeper", "num_bytes", "tape")

    def __init__(self, tape: CostTape, num_bytes: int):
        self.tape, self.num_bytes = tape, num_bytes
        self.keeper: tuple[int, int, bool] | None = None
        tape.live += num_bytes
        tape.peak = max(tape.peak, tape.live)
        tape.activation_peak = max(tape.activation_peak, tape.live - tape.gradients)

    def keep(self, operation: int, is_divided: bool) -> None:
        """Count it as kept for gradients by an operation."""
        first = operation
        if self.keeper is not None:
            first = self.keeper[0]
            self.tape.kept[self.keeper] -= self.num_bytes
        self.keeper = first, operation, is_divided
        self.tape.kept[self.keeper] += self.num_bytes

    def __del__(self) -> None:
        self.tape.live -= self.num_bytes
        if self.keeper is not None:
            self.tape.kept[self.keeper] -= self.num_bytes


class Gradient:
    """The gradient of one array, in a buffer of its own or in that of another gradient."""

    __slots__ = ("buffer", "dtype", "shape")

    def __init__(self, tape: CostTape, shape: Shape, dtype: str, buffer: Buffer | None = None):
        self.shape, self.dtype = shape, dtype
        self.buffer = Buffer(tape, math.prod(shape) * BYTES[dtype]) if buffer is None else buffer


class Node:
    """How gradients go back through one operation.

    Args:
        sources: For each input, the node that made it and the number of its output there; None where it needs no gradient.
        inputs: Shape and dtype of each input.
        num_outputs: Arrays that came out.
        keeps: Buffers that live until its gradients are known.
        back: FLOPs of each input's gradient.
        shares: For each input, whether its gradient is that of the output, perhaps seen otherwise.
        once, again: FLOPs of all gradients together, and of what they compute a second time.
    """

    operation: Operation | None = None
    repeated: Sequence[set[Leaf]] = ()
    """For each output, the weights whose gradients come when it is computed again."""

    def __init__(
        self,
        tape: CostTape,
        sources: Sequence[tuple[Node, int] | None],
        inputs: Sequence[tuple[Shape, str]] = (),
        *,
        num_outputs: int = 1,
        keeps: Sequence[Buffer] = (),
        back: Sequence[int] = (),
        shares: Sequence[bool] = (),
        once: int = 0,
        again: int = 0,
    ):
        tape.num_nodes += 1
        self.expected: set[Leaf] = set()
        self.tape, self.number, self.num_outputs = tape, tape.num_nodes, num_outputs
        self.sources, self.inputs, self.keeps = tuple(sources), tuple(inputs), tuple(keeps)
        self.back, self.shares, self.once, self.again = tuple(back), tuple(shares), once, again

    def weights_since(self, number: int) -> set[Leaf]:
        """Return the weights that it and nodes before it are made of, back to a node's number."""
        found: set[Leaf] = set()
        waiting: list[Node] = [self]
        seen: set[Node] = {self}
        while waiting:
            for source, _ in filter(None, waiting.pop().sources):
                if isinstance(source, Leaf):
                    found.add(source)
                elif source.number > number and source not in seen:
                    seen.add(source)
                    waiting.append(source)
        return found

    def free(self) -> None:
        """Let go of what was kept."""
        self.keeps = ()

    def gradients(self, given: list[Gradient | None]) -> list[Gradient | None]:
        """Return a gradient for each input that needs one, from those of the outputs."""
        tape, arrived = self.tape, given[0]
        tape.flops["backward"] += self.once
        tape.flops["again"] += self.again
        if self.operation is not None:
            self.operation.is_visited = True
            self.operation.gradients = sum(
                source is not None and flops > 0 for source, flops in zip(self.sources, self.back, strict=False)
            )
        found: list[Gradient | None] = []
        for index, ((shape, dtype), source) in enumerate(zip(self.inputs, self.sources, strict=True)):
            if source is None:
                found.append(None)
                continue
            tape.flops["backward"] += self.back[index] if self.back else 0
            is_shared = self.shares and self.shares[index] and arrived is not None and arrived.dtype == dtype
            found.append(Gradient(tape, shape, dtype, arrived.buffer if arrived and is_shared else None))
        return found


class Leaf(Node):
    """Where gradients end: at a trained weight, or at an input of what is computed again."""

    def __init__(self, tape: CostTape, *, is_weight: bool):
        super().__init__(tape, ())
        self.is_weight = is_weight
        self.gradient: Gradient | None = None
        self.num_awaited = 0

    def accumulate(self, gradient: Gradient) -> None:
        """Take a gradient. The sum of two is a new array; it is the weight's gradient when all have come."""
        before = self.gradient
        self.gradient = gradient if before is None else Gradient(self.tape, gradient.shape, gradient.dtype)
        self.arrived()

    def arrived(self) -> None:
        """Count one gradient as come."""
        self.num_awaited -= 1
        if self.is_weight and not self.num_awaited and self.gradient is not None:
            self.tape.gradients += self.gradient.buffer.num_bytes
