"""Numbers held in 8 bits: a code for each, and one fp32 scale for each block of 256, in the order of the flat tensor.

A code stands for a value between -1 and 1 (or 0 and 1), and the scale is the largest magnitude of its block. The values lie
close together near 1 and reach down to about 1e-6 in seven decades, each with twice as many as the one below it, because
moments of gradients span that much within a block. What is here is the same for every framework: which values there are,
where one ends and the next begins, and which tensors are held so.

Source: Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization" (dynamic tree quantization). Rounding is to the
nearest value, so that the bytes of a state depend on nothing but the numbers. One difference: what cannot be negative never
becomes 0 where it was not, because the square root of a second moment divides.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

BLOCK = 256
SMALLEST_QUANTIZED = 4096  # values of the smallest tensor whose moments are held in 8 bits: smaller ones save nothing
_DECADES = 7


@cache
def values(signed: bool) -> NDArray[np.float32]:
    """Return what the 256 codes stand for, rising: in [-1, 1] with one 0, or in [0, 1]."""
    magnitudes = []
    for decade in range(_DECADES):
        edges = np.linspace(0.1, 1, 2 ** (decade + (not signed)) + 1)
        magnitudes.append((edges[:-1] + edges[1:]) / 2 * 10.0 ** (decade - _DECADES + 1))
    positive = np.concatenate(magnitudes)
    negative = -positive if signed else positive[:0]
    return np.sort(np.concatenate([negative, [0.0], positive, [1.0]])).astype(np.float32)


@cache
def borders(signed: bool) -> NDArray[np.float32]:
    """Return the borders between neighbouring values (255,): a number above border k has a code above k."""
    table = values(signed).astype(np.float64)
    return ((table[:-1] + table[1:]) / 2).astype(np.float32)


def num_blocks(num_values: int) -> int:
    """Return how many scales a tensor of so many values has."""
    return -(-num_values // BLOCK)


def is_quantized(num_values: int, is_table: bool) -> bool:
    """Say whether the moments of a tensor are held in 8 bits where that is asked for.

    Tables of tokens are left out: most of their rows have no gradient in most steps, and then a large one.
    """
    return num_values >= SMALLEST_QUANTIZED and not is_table
