"""Draw a token from logits: temperature, top-k, top-p, and one uniform number a token."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sampan.models.config import SamplingConfig

Floats = NDArray[np.float32]


def top_p_probabilities(logits: Floats, config: SamplingConfig) -> NDArray[np.float64]:
    """Return probabilities (sequences, classes): temperature, then top-k, then top-p, which keeps the token that crosses.

    With tokens in falling order of probability p, token i stays while p[0] + … + p[i - 1] < top_p. A temperature of 0 puts
    everything on the greatest logit.

    Args:
        logits: (sequences, classes).

    Raises:
        ValueError: The logits have another number of axes.

    Source: top-k: Fan et al. 2018, "Hierarchical Neural Story Generation"; top-p: Holtzman et al. 2020, "The Curious Case of
    Neural Text Degeneration", eq. 2 and 3.
    """
    if logits.ndim != 2:
        raise ValueError(f"`logits` has the shape {logits.shape} and must be (sequences, classes)")
    rows, classes = logits.shape
    if config.temperature == 0:
        return np.eye(classes)[logits.argmax(-1)]
    scaled = logits.astype(np.float64) / config.temperature
    order = np.argsort(-scaled, axis=-1, kind="stable")[:, : min(config.top_k or classes, classes)]
    each = np.arange(rows)[:, None]
    ranked = scaled[each, order]
    weights = np.exp(ranked - ranked[:, :1])
    weights /= weights.sum(-1, keepdims=True)
    # a token stays while the mass before it is under top_p
    before = np.cumsum(weights, -1) - weights
    weights = np.where(before < config.top_p, weights, 0.0)
    probabilities = np.zeros((rows, classes))
    probabilities[each, order] = weights / weights.sum(-1, keepdims=True)
    return probabilities


def sample_token(probabilities: NDArray[np.float64], draw: np.random.Generator) -> int:
    """Return a token by inverse transform: one uniform number a token, so that sequences do not depend on one another.

    Args:
        probabilities: (classes,).

    Raises:
        ValueError: The probabilities have another number of axes.
    """
    if probabilities.ndim != 1:
        raise ValueError(f"`probabilities` has the shape {probabilities.shape} and must be (classes,)")
    cumulative = np.cumsum(probabilities)
    return min(int(np.searchsorted(cumulative, draw.random() * cumulative[-1], "right")), len(probabilities) - 1)
