"""What one pass costs: arithmetic by phase, memory as it comes and goes, and the way back from the loss."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sampan.frameworks.records import PassCost

BYTES = {
    "fp64": 8, "fp32": 4, "bf16": 2, "fp16": 2, "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1
}  # fmt: skip
Shape = tuple[int, ...]


class CostTape:
    """Adds up what one pass costs.

    Args:
        fused: Norms and attention are one kernel each. Without it attention writes out all pairs.
    """

    def __init__(self, *, fused: bool):
        self.fused = fused
        self.flops = {"forward": 0, "backward": 0, "again": 0}
        self.phase = "forward"
        self.recording = True
        self.live = self.peak = self.gradients = self.activation_peak = 0
        self.num_nodes = 0

    def measure(self, loss: Callable[[], Any], *, batch_bytes: int) -> PassCost:
        """Call a loss, go back through what it did, and return what both cost.

        Args:
            loss: Returns a scalar, or a tuple that begins with one, made of this tape's outlines.

        Raises:
            ValueError: Nothing that is trained takes part in it.
        """
        result = loss()
        value = result[0] if isinstance(result, tuple) else result
        if value.node is None:
            raise ValueError("nothing that is trained takes part in the loss")
        forward, kept = self.flops["forward"], self.live
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

    __slots__ = ("num_bytes", "tape")

    def __init__(self, tape: CostTape, num_bytes: int):
        self.tape, self.num_bytes = tape, num_bytes
        tape.live += num_bytes
        tape.peak = max(tape.peak, tape.live)
        tape.activation_peak = max(tape.activation_peak, tape.live - tape.gradients)

    def __del__(self) -> None:
        self.tape.live -= self.num_bytes


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
        self.tape, self.number, self.num_outputs = tape, tape.num_nodes, num_outputs
        self.sources, self.inputs, self.keeps = tuple(sources), tuple(inputs), tuple(keeps)
        self.back, self.shares, self.once, self.again = tuple(back), tuple(shares), once, again

    def free(self) -> None:
        """Let go of what was kept."""
        self.keeps = ()

    def gradients(self, given: list[Gradient | None]) -> list[Gradient | None]:
        """Return a gradient for each input that needs one, from those of the outputs."""
        tape, arrived = self.tape, given[0]
        tape.flops["backward"] += self.once
        tape.flops["again"] += self.again
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

    def accumulate(self, gradient: Gradient) -> None:
        """Take a gradient; one that comes later is added in place."""
        if self.gradient is None:
            self.gradient = gradient
            if self.is_weight:
                self.tape.gradients += gradient.buffer.num_bytes
