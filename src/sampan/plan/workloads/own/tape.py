"""A layer's operators as they are called, with what gradients each one needs, so that backward FLOPs are exact.

Which gradients there are follows from which weights are trained: all of them, or low-rank additions beside some layers.
An operator's input needs a gradient when something trained is before it. Left out: what moves values without products is
counted by its values alone.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass

from sampan.plan.records import Grad, Op, Split, WorkloadBlock, attention, memory_op, product


@dataclass(frozen=True)
class Additions:
    """Low-rank additions beside linear layers.

    Args:
        rank: Their rank.
        targets: Pieces of layer names between dots, as a job's `lora.targets`.
    """

    rank: int
    targets: tuple[str, ...]

    def beside(self, layer: str) -> bool:
        """Say whether a layer has one."""
        return any(f".{target}." in f".{layer}." for target in self.targets)


@dataclass
class Tape:
    """One layer or part, written down in the order of its code.

    Args:
        added: The low-rank additions that are trained; None where all weights are.
        is_shared: The weights were counted before, by a tape of the same layer.
        is_forward: Nothing of it is trained, and no gradient passes it.
    """

    added: Additions | None = None
    is_shared: bool = False
    is_forward: bool = False
    ops: list[Op] = dataclasses.field(default_factory=list)
    params: float = 0.0
    trained: float = 0.0
    kept: float = 0.0
    kept_whole: float = 0.0

    @property
    def is_full(self) -> bool:
        """Whether all weights are trained."""
        return self.added is None and not self.is_forward

    def linear(
        self, name: str, rows: float, inner: float, cols: float, *, live: bool, bias: bool = True,
        split: Split = "none",
    ) -> bool:  # fmt: skip
        """Write down a linear layer; return whether its output needs a gradient.

        Args:
            name: Of the layer, by which additions are found.
            live: Whether its input needs a gradient.
        """
        self.weigh(inner * cols + (cols if bias else 0))
        short = re.sub(r".*(layers|blocks)\.\d+\.", "", name)  # so that equal layers are equal
        self.ops.append(product(short, rows, inner, cols, input_grad=live, split=split))
        if self.added is None:
            return not self.is_forward
        if not self.added.beside(name):
            return live and not self.is_forward
        rank = self.added.rank
        size = 0 if self.is_shared else rank * (inner + cols)
        self.params, self.trained = self.params + size, self.trained + size
        # without a gradient of its input, the first matrix has one product in the backward pass, else it has two
        self.ops += [
            product(f"{short}.lora_A", rows, inner, rank, has_weights=not live),
            product(f"{short}.lora_B", rows, rank, cols, has_weights=False),
        ]
        self.keep(rows * rank)
        return not self.is_forward

    def reads(self, *names: str) -> bool:
        """Say whether the input of any of these layers is kept for a gradient of weights."""
        if self.is_forward:
            return False
        return self.added is None or any(self.added.beside(name) for name in names)

    def attend(
        self, queries: float, keys: float, heads: int, head_dim: float, *, kv_heads: int | None = None,
        causal: bool = False, live: tuple[bool, bool, bool] = (True, True, True),
    ) -> bool:  # fmt: skip
        """Write down an attention; return whether its output needs a gradient.

        Args:
            live: Whether queries, keys and values need gradients.
        """
        whole = attention("attention", queries, keys, heads, head_dim, kv_heads=kv_heads, causal=causal)
        if all(live) or self.is_forward:
            self.ops.append(whole)
            return not self.is_forward
        # scores and weighted sum apart: each has a product for each of its two sides that needs a gradient
        q, k, v = live
        for name, sides in (("scores", q + k), ("weighted sum", (q or k) + v)):
            self.ops.append(
                dataclasses.replace(
                    whole, name=f"attention, {name}", kind="matmul", flops=whole.flops / 2, values=whole.values / 2,
                    weights=0.0 if sides == 2 else 1.0, input_grad=sides == 1,
                )
            )  # fmt: skip
        return any(live)

    def moves(self, name: str, values: float, *, split: Split = "none") -> None:
        """Write down an operator that multiplies nothing."""
        self.ops.append(memory_op(name, values, split=split))

    def weigh(self, params: float) -> None:
        """Count parameters that are trained where all are."""
        if not self.is_shared:
            self.params += params
            self.trained += params if self.is_full else 0.0

    def keep(self, values: float, *, whole: bool = False) -> None:
        """Count values that stay until the backward pass.

        Args:
            whole: Tensor parallelism alone does not divide them.
        """
        if self.is_forward:
            return
        if whole:
            self.kept_whole += values
        else:
            self.kept += values

    def block(self, name: str, *, tokens: float, width: float, sums: int = 0, is_trunk: bool = False) -> WorkloadBlock:
        """Return what was written down."""
        grad: Grad = "none" if self.is_forward else "full" if self.added is None else "through"
        return WorkloadBlock(
            name=name, ops=tuple(self.ops), grad=grad, params=self.params, trained_params=self.trained, tokens=tokens,
            width=width, sums=sums, kept=self.kept, kept_whole=self.kept_whole, is_trunk=is_trunk,
            num_kernels=2.0 * len(self.ops),
        )  # fmt: skip


def grouped(blocks: Iterable[WorkloadBlock]) -> list[WorkloadBlock]:
    """Return blocks with equal neighbours put together."""
    found: list[WorkloadBlock] = []
    for block in blocks:
        if found and dataclasses.replace(found[-1], repeat=block.repeat) == block:
            found[-1] = dataclasses.replace(found[-1], repeat=found[-1].repeat + block.repeat)
        else:
            found.append(block)
    return found
