"""Masks that the tests give to the generator, and that the program itself has no use for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def left_padded_mask(lengths: Sequence[int], num_tokens: int) -> NDArray[np.bool_]:
    """Return a causal mask (batch, 1, num_tokens, num_tokens) for left-padded rows of the given true lengths.

    A padding position attends to itself, because a softmax over nothing is not a number.
    """
    index = np.arange(num_tokens)
    causal = index[None, :] <= index[:, None]
    valid = index[None, :] >= num_tokens - np.asarray(lengths)[:, None]
    return ((causal[None] & valid[:, None, :]) | np.eye(num_tokens, dtype=bool)[None])[:, None]
