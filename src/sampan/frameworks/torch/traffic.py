"""What the ranks of a step send each other, counted before it is run: bytes and calls, by kind and axis of the mesh.

A block in slices is gathered for the forward pass and given up after it, and gathered again for the backward pass, in
which it is also computed again where that is asked for: twice for each time that a batch goes through it. What stands
outside of blocks is gathered once a micro-batch. Gradients are scattered once a micro-batch, in fp32, and then added up
over replicas. Weights that are whole on every rank have one sum a step.

Norms, losses and logs are left out: some numbers a step. Every trained weight counts as one that the loss reaches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import torch

from sampan.frameworks.records import Collective
from sampan.frameworks.torch import parallel
from sampan.frameworks.torch.sharding import FROZEN, ShardedModule, blocks_of

_SUM_BYTES = 4  # gradients are added up in fp32


@dataclass(frozen=True)
class _Group:
    """Weights that are gathered by one call: what a rank puts in, how often, and its part of their gradients."""

    gathered_bytes: int
    summed_bytes: int
    times: int


def collectives(
    module: torch.nn.Module, shared: ShardedModule | None, *, passes: int, throughs: int
) -> list[Collective]:
    """Return what each rank exchanges in a step.

    Args:
        module: With weights on any device, meta included.
        shared: As `train_step.share` returned it for this module.
        passes: Micro-batches that a rank computes.
        throughs: How often it goes through the blocks in these.
    """
    ranks = parallel.num_ranks()
    if shared is None:
        size = sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
        found = [_over("all-reduce", "dp_replicate", ranks, 1, 2 * (ranks - 1) * size // ranks, ranks)]
    else:
        replicate, shards = shared.plan.replicate, shared.plan.shard
        groups = list(_groups(shared, passes, throughs))
        sums = [group for group in groups if group.summed_bytes]
        gathered = sum(group.gathered_bytes * group.times for group in groups)
        summed, num_sums = passes * sum(group.summed_bytes for group in sums), passes * len(sums)
        found = [
            _over("all-gather", "dp_shard", shards, sum(g.times for g in groups), (shards - 1) * gathered, shards),
            _over("reduce-scatter", "dp_shard", shards, num_sums, (shards - 1) * summed, shards),
            _over("all-reduce", "dp_replicate", replicate, num_sums, 2 * (replicate - 1) * summed // replicate, ranks),
        ]
    return [one for one in found if one.sent_bytes]


def _over(kind: str, axis: str, ranks: int, calls: int, sent_bytes: int, reach: int) -> Collective:
    """Return a collective; `reach` neighbouring ranks hold all that take part in one."""
    return Collective(kind, axis, ranks, calls, sent_bytes, parallel.ranks_per_node() % reach != 0)


def _groups(shared: ShardedModule, passes: int, throughs: int) -> Iterator[_Group]:
    low, seen = shared.plan.gathered_dtype, set()
    for block in blocks_of(shared.module):
        own = [p for p in block.parameters() if id(p) not in seen]
        seen.update(map(id, own))
        yield _group(own, shared.plan.shard, low, 2 * throughs)
    rest = [p for name, p in shared.module.named_parameters() if id(p) not in seen and not name.endswith(f".{FROZEN}")]
    if rest:
        yield _group(rest, shared.plan.shard, None, passes)


def _group(parameters: Sequence[torch.Tensor], shards: int, low: torch.dtype | None, times: int) -> _Group:
    gathered = summed = 0
    for parameter in parameters:
        length, *width = parameter.shape
        values = -(-length // shards) * prod(width)  # the last ranks' rows are filled up
        gathered += values * (low.itemsize if low else parameter.element_size())
        summed += values * _SUM_BYTES if parameter.requires_grad else 0
    return _Group(gathered, summed, times)
