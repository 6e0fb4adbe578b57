"""Random numbers by counter, so that any framework and any restart sees the same draw.

A draw is named by the seed, a purpose and integer coordinates (picture, step …), and depends on nothing else.
"""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, purpose: str, *coordinates: int) -> np.random.Generator:
    """Return a fresh counter-based generator for one draw.

    Args:
        seed: The user's seed.
        purpose: What is drawn ("latent", "tokens", "order" …); different purposes never share numbers.
        coordinates: Which one: picture number, step, sample …
    """
    text = "/".join([str(seed), purpose, *(str(c) for c in coordinates)])
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key))
