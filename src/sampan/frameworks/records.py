"""What frameworks report about a step, in plain numbers. Loads no framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class StepReport:
    """What one step did.

    Args:
        loss: Mean loss over the step's micro-batches.
        grad_norm: Length of the gradient before clipping.
        values: Further numbers the loss function gave, averaged likewise.
        skipped: Loss or gradient was not finite and nothing was changed.
        bad_micro: Of a skipped step, the micro-batches whose own loss or gradient was not finite; empty where only
            their sum was not.
        arrays: Arrays that the loss function gave, of the step's last micro-batch, on the host.
    """

    loss: float
    grad_norm: float
    values: dict[str, float]
    skipped: bool
    bad_micro: tuple[int, ...] = ()
    arrays: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)


@dataclass(frozen=True)
class MicroShare:
    """Which micro-batches of a step are a rank's, where ranks share it.

    A step's loss is the mean over all of its micro-batches, whoever takes them. Where they do not divide by the ranks, some
    ranks have one less, or none: they compute one for nothing meanwhile, because the ranks exchange weights in every pass.

    Args:
        first, count: This rank's.
        total: Of the step.
        again: Returns any micro-batch of the step, for a look at what went wrong.
    """

    first: int
    count: int
    total: int
    again: Callable[[int], Sequence[Any]]


@dataclass(frozen=True)
class PassCost:
    """What one micro-batch costs. A multiplication with its addition is two FLOPs; of causal attention only the pairs that
    see each other count.

    Args:
        forward_flops: Of the forward pass.
        useful_flops: Of forward and backward, nothing computed twice: what MFU is about.
        executed_flops: With what is computed again, by checkpointed layers and by attention's backward: what HFU is about.
        kept_bytes: What lives when the loss is known, above weights and batch: above all what autograd keeps.
        activation_bytes: The most that lives at a time in the pass above weights, batch, and gradients of weights.
        peak_bytes: The most that lives at a time above weights and batch, gradients of weights included, in a pass that
            begins without any.
        batch_bytes: The batch itself.
        working_bytes: Working weights in a lower dtype, where the trained ones are a copy beside them that ranks share.
    """

    forward_flops: int
    useful_flops: int
    executed_flops: int
    kept_bytes: int
    activation_bytes: int
    peak_bytes: int
    batch_bytes: int
    working_bytes: int = 0


@dataclass(frozen=True)
class Collective:
    """What ranks exchange in one step, of one kind over one axis of their mesh.

    Args:
        kind: "all-gather", "reduce-scatter" or "all-reduce".
        axis: "dp_shard" or "dp_replicate".
        ranks: How many take part in one.
        calls: In a step; the buckets of one all-reduce are one call.
        sent_bytes: By each rank in a step, and as many are received: of n ranks (n - 1) / n of what is gathered or
            scattered, twice that of what is reduced for all (Thakur, Rabenseifner & Gropp 2005: no algorithm sends less).
        crosses_nodes: Whether it goes from node to node.
    """

    kind: str
    axis: str
    ranks: int
    calls: int
    sent_bytes: int
    crosses_nodes: bool


@dataclass(frozen=True)
class ParameterCount:
    """Values in a module's parameters.

    Args:
        trained: Of those that are trained.
        coded: Of those, in tensors whose moments are held in 8 bits where that is asked for.
        frozen: Of parameters that are not trained.
        frozen_rows: Of rows that are not trained, in parameters that are.
        workspace_bytes: What the update takes between tensors where moments are in 8 bits or weights in bf16.
        update_bytes: What it takes beside weights, gradients, moments and average in any case.
        num_ranks: Processes that share moments, average and the update.
    """

    trained: int
    coded: int
    frozen: int
    frozen_rows: int
    workspace_bytes: int = 0
    update_bytes: int = 0
    num_ranks: int = 1
