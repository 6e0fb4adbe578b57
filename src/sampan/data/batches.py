"""Which samples a step sees: decided by (seed, stage, step) alone, so that a restart goes on where it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sampan.samplers import noise


class Order:
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


def kinds(shares: Sequence[float], num_steps: int, seed: int, purpose: str) -> NDArray[np.int64]:
    """Return which kind of batch each step draws (num_steps,), kind k with probability in proportion to shares[k].

    A longer run begins with the kinds of a shorter one.
    """
    edges = np.cumsum(np.asarray(shares, np.float64) / np.sum(shares))
    draws = noise.generator(seed, purpose).random(num_steps)
    return np.minimum(np.searchsorted(edges, draws, "right"), len(shares) - 1)
