"""What one chip does in one update: FLOPs, bytes, launches and messages, before any speed is known.

Exact arithmetic over operators and a layout; every speed and every efficiency belongs to sampan.plan.time.

Sources: pipeline schedule and tensor-parallel sums, Narayanan et al. 2021 ("Efficient Large-Scale Language Model Training
on GPU Clusters", sections 2.2 and 3.2); sharding, Rajbhandari et al. 2020 ("ZeRO", section 7).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from sampan.plan.records import Op, ParallelLayout, Recompute, Workload, WorkloadBlock

_BYTES = 2.0  # of an activation and of a weight at work, in half precision; lower ones keep these in 16 bits
_GRADIENT_BYTES = 4.0  # of what is added up over data-parallel ranks: sums are kept in fp32
_SCATTERED_BYTES = 2.0  # and of what ZeRO-3 scatters after every pass
_OPTIMIZER_BYTES = (
    34.0  # an update of one value: gradient, master, two moments read, all but the first written, weight written
)
_AVERAGE_BYTES = 12.0
_BACKWARD_KERNELS = 2.0  # launches of a backward pass for one of the forward pass


@dataclass(frozen=True, slots=True)
class PassWork:
    """One micro-batch forward and backward on one chip, a part of the model.

    Args:
        matmul_flops: Of weighted products and convolutions.
        thin_flops: Sum of FLOPs over the shortest side of their product, per value of that side.
        matmul_bytes: What they read and write if nothing stays on the chip.
        attention_flops: Of attention, the masked half left out where it is causal.
        memory_bytes: What the other operators move.
        kernels: Launches.
        sum_bytes, sums: Sent by this chip to add up over tensor-parallel chips, in how many collectives.
        dispatch_bytes, dispatches: Sent to experts and back.
        ring_bytes, rings: Keys and values passed on over context-parallel chips.
    """

    matmul_flops: float = 0.0
    thin_flops: float = 0.0
    matmul_bytes: float = 0.0
    attention_flops: float = 0.0
    memory_bytes: float = 0.0
    kernels: float = 0.0
    sum_bytes: float = 0.0
    sums: float = 0.0
    dispatch_bytes: float = 0.0
    dispatches: float = 0.0
    ring_bytes: float = 0.0
    rings: float = 0.0

    def plus(self, other: PassWork, times: float = 1.0) -> PassWork:
        """Return this and `times` another, added up."""
        return PassWork(*(getattr(self, n) + times * getattr(other, n) for n in _NAMES))


_NAMES = tuple(PassWork.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class DeviceWork:
    """One update on the busiest chip.

    Args:
        middle: A micro-batch through a pipeline stage's share of the trunk.
        ends: A micro-batch through embedding, head and other parts, as far as the busiest stage has them.
        passes: Micro-batches of an update.
        bubble: Micro-batches' time that the pipeline stands idle, in units of `middle`.
        sent_bytes: A micro-batch's activations to the next stage and their gradients back.
        shared_bytes: Gradients of all trained values on this chip, which data-parallel ranks add up.
        returned_bytes: What ranks send back once they are added up: sums, or the weights that a rank has updated (ZeRO).
        gathered_bytes: Weights that are gathered for one pass (ZeRO-3), all blocks together; 0 is none.
        update_bytes: What the optimizer reads and writes.
        input_bytes: What is read from storage.
        layout: The degrees, for the topology.
        replicas: Chips over which weights and gradients are shared (dp·cp).
        hides: Whether adding up gradients runs beside the backward pass.
    """

    middle: PassWork
    ends: PassWork
    passes: float
    bubble: float
    sent_bytes: float
    shared_bytes: float
    returned_bytes: float
    gathered_bytes: float
    update_bytes: float
    input_bytes: float
    layout: ParallelLayout
    replicas: int
    hides: bool = True


def device_work(workload: Workload, layout: ParallelLayout, *, hides: bool = True) -> DeviceWork:
    """Return what one update is on the busiest chip of a layout.

    Args:
        hides: Whether the software adds gradients up beside the backward pass, or after it.
    """
    trunk, ends, weights, trained, widest = _parts(
        workload, layout.tp, layout.cp, layout.ep, layout.micro_batch, layout.recompute
    )
    pp = layout.pp
    middle = PassWork().plus(trunk, 1 / pp)
    replicas = layout.dp * layout.cp
    held, updated = weights / pp, trained / pp
    share = updated / (replicas if layout.zero_stage else 1)
    average = _AVERAGE_BYTES if workload.has_average else 0.0
    return DeviceWork(
        middle=middle,
        ends=ends,
        passes=layout.accum,
        bubble=(pp - 1) / layout.virtual,
        sent_bytes=2 * _BYTES * widest * layout.micro_batch / layout.cp if pp > 1 else 0.0,
        shared_bytes=(_SCATTERED_BYTES if layout.zero_stage == 3 else _GRADIENT_BYTES) * updated,
        returned_bytes=(_BYTES if layout.zero_stage else _GRADIENT_BYTES) * updated,
        gathered_bytes=_BYTES * held if layout.zero_stage == 3 else 0.0,
        update_bytes=(_OPTIMIZER_BYTES + average) * share,
        input_bytes=workload.input_bytes * layout.micro_batch * layout.accum,
        layout=layout,
        replicas=replicas,
        hides=hides,
    )


@lru_cache(maxsize=4096)
def _sums(
    workload_id: int, tp: int, cp: int, ep: int, micro_batch: int, recompute: Recompute
) -> tuple[PassWork, PassWork, float, float, float]:
    workload = _KNOWN[workload_id]
    trunk, ends = PassWork(), PassWork()
    weights = trained = widest = 0.0
    for block in workload.blocks:
        one = _block(block, tp, cp, ep, micro_batch, recompute if block.is_trunk else "none")
        if block.is_trunk:
            trunk = trunk.plus(one, block.repeat)
            widest = max(widest, block.tokens * block.width)
        else:
            ends = ends.plus(one, block.repeat)
        split = (block.params - block.expert_params) / tp + block.expert_params / ep
        share = split / block.params if block.params else 1 / tp
        weights += block.repeat * split
        trained += block.repeat * block.trained * share
    return trunk, ends, weights, trained, widest


_KNOWN: dict[int, Workload] = {}


def _parts(
    workload: Workload, tp: int, cp: int, ep: int, micro_batch: int, recompute: Recompute
) -> tuple[PassWork, PassWork, float, float, float]:
    # hashing a workload would walk through all its operators; it is kept alive here, so that its id stays its own
    _KNOWN.setdefault(id(workload), workload)
    return _sums(id(workload), tp, cp, ep, micro_batch, recompute)


def _block(block: WorkloadBlock, tp: int, cp: int, ep: int, micro_batch: int, recompute: Recompute) -> PassWork:
    """Return one repeat of a block, forward and backward, on one chip."""
    flops = thin = moved = attended = memory = 0.0
    again = {"full": 1.0, "selective": 0.0, "none": 0.0}[recompute] if block.grad != "none" else 0.0
    back = block.grad != "none"
    for op in block.ops:
        share = _share(op, tp)
        batch = micro_batch / cp
        if op.kind == "attention":
            forward = op.flops * (0.5 if op.causal else 1.0) * share * batch
            # the backward pass of attention that writes no scores computes five products for the forward's two
            attended += forward * (1 + again + (recompute == "selective") + 2.5 * back)
            memory += _BYTES * op.values * share * batch * (1 + again + 2 * back)
        elif op.flops:
            times = 1 + again + _products(op, block)
            work = op.flops * share * batch * times
            flops += work
            thin += work / max(1.0, _shortest(op, tp, ep, batch))
            # each product reads its weights once a pass, however many rows there are
            own = 1 / ep if op.split == "experts" and ep > 1 else share
            moved += _BYTES * (op.values * share * batch + op.weights * own) * times
        else:
            memory += _BYTES * op.values * share * batch * (1 + again + 1.5 * back)
    rounds = 1 + again + back
    whole = _BYTES * block.tokens * block.width * micro_batch / cp
    sums = block.sums * rounds if tp > 1 else 0.0
    dispatches = 2 * rounds if ep > 1 and block.dispatch else 0.0
    return PassWork(
        matmul_flops=flops,
        thin_flops=thin,
        matmul_bytes=moved,
        attention_flops=attended,
        memory_bytes=memory,
        kernels=block.num_kernels * (1 + again + _BACKWARD_KERNELS * back),
        sum_bytes=sums * 2 * whole * (tp - 1) / tp,
        sums=sums,
        dispatch_bytes=rounds * _BYTES * block.dispatch * micro_batch / cp * (ep - 1) / ep / tp,
        dispatches=dispatches,
        ring_bytes=2 * whole * (cp - 1) / tp * rounds if cp > 1 else 0.0,
        rings=(cp - 1) * rounds,
    )


def _share(op: Op, tp: int) -> float:
    """Return the part of an operator's work that one chip has.

    Expert parallelism sends a chip as many tokens as it sends away, so it divides the experts' weights, not their work.
    What multiplies nothing and is not divided is spread over tokens by sequence parallelism.
    """
    return 1.0 if op.split == "none" and op.flops else 1 / tp


def _shortest(op: Op, tp: int, ep: int, batch: float) -> float:
    """Return the shortest side of one product on one chip."""
    rows = op.rows * batch * (ep if op.split == "experts" else 1)
    inner = op.inner / tp if op.split == "rows" else op.inner
    cols = op.cols / tp if op.split == "columns" else op.cols
    return min(rows, inner, cols)


def _products(op: Op, block: WorkloadBlock) -> float:
    if block.grad == "none":
        return 0.0
    if not op.weights:
        return 2.0
    return op.input_grad + (block.grad == "full")
