"""Which samples a step sees: decided by (seed, stage, step) alone, so that a restart goes on where it stopped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampan.samplers import noise


class ShuffledOrder:
    """Endless shuffled passes over a set of samples.

    Args:
        members: Sample numbers, in a fixed order.
    """

    def __init__(self, members: Sequence[int], seed: int, purpose: str):
        assert members, "an order needs samples"
        self.members = np.asarray(members, np.int64)
        self.seed, self.purpose = seed, purpose
        self._pass = lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        return self.members[noise.generator(self.seed, self.purpose, epoch).permutation(len(self.members))]

    def take(self, start: int, count: int) -> list[int]:
        """Return `count` sample numbers from position `start` on; each pass visits every sample once."""
        size = len(self.members)
        return [int(self._pass(place // size)[place % size]) for place in range(start, start + count)]


class ShapeGroups:
    """Blocks of samples that go together: of one size, with one number of references.

    A block draws its kind in proportion to the kind's samples, and takes the next samples of that kind's own order. Blocks
    are numbered through the run; a longer run begins with the blocks of a shorter one.

    Args:
        members: Sample numbers, in a fixed order.
        kind_of: The kind of each member; kinds can be sorted.
        num_blocks: How many blocks the run draws.
        size: Samples in a block.
    """

    def __init__(
        self, members: Sequence[int], kind_of: Sequence[Any], num_blocks: int, size: int, seed: int, purpose: str
    ):
        groups: dict[Any, list[int]] = defaultdict(list)
        for member, kind in zip(members, kind_of, strict=True):
            groups[kind].append(member)
        names = sorted(groups)
        edges = np.cumsum([len(groups[name]) for name in names]) / len(members)
        draws = noise.generator(seed, f"{purpose}/kind").random(num_blocks)
        self.size = size
        self.kinds = np.minimum(np.searchsorted(edges, draws, "right"), len(names) - 1)
        self._before = [np.cumsum(self.kinds == kind) - (self.kinds == kind) for kind in range(len(names))]
        self._orders = [ShuffledOrder(groups[name], seed, f"{purpose}/order/{name}") for name in names]

    def take(self, block: int) -> list[int]:
        """Return the sample numbers of a block."""
        kind = int(self.kinds[block])
        return self._orders[kind].take(int(self._before[kind][block]) * self.size, self.size)
