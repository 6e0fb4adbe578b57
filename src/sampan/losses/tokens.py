"""Next-token cross-entropy of the generator, over visual positions, the preview weighted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.frameworks import ops
from sampan.models.layers import Array
from sampan.models.shapes import check_shapes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def preview_weight(num_preview: int, num_target: int) -> float:
    """Return the weight of one preview token: n/m, between 1 and 4, so that the preview is not drowned by the target."""
    return 1.0 if num_preview == 0 else min(4.0, max(1.0, num_target / num_preview))


def token_weights(num_preview: int, num_target: int, weight: float) -> NDArray[np.float32]:
    """Return (num_preview + num_target + 1,): `weight` on the preview, 1 on the target and on the end token."""
    import numpy as np  # here, because a plan counts losses without NumPy

    return np.concatenate([np.full(num_preview, weight), np.ones(num_target + 1)]).astype(np.float32)


def token_loss(logits: Array, labels: Array, weights: Array) -> Array:
    """Return Σ w·CE / Σ w in fp32.

    Args:
        logits: (batch, tokens, vision_vocab_size).
        labels: (batch, tokens); visual ids as they stand, the end token last.
        weights: (batch, tokens); 0 leaves a position out.

    Raises:
        ValueError: Shapes differ, by axis.
    """
    places = ("batch", "token")
    check_shapes(("logits", logits, (*places, "id")), ("labels", labels, places), ("weights", weights, places))
    return ops.cross_entropy(logits.reshape((-1, logits.shape[-1])), labels.reshape((-1,)), weights.reshape((-1,)))
