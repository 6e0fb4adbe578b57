"""Contrast of two views of the same things: each should find its partner among the batch."""

from __future__ import annotations

from sampan.frameworks import ops
from sampan.models.layers import Array
from sampan.models.shapes import check_shapes


def contrast_loss(left: Array, right: Array, labels: Array, weights: Array, temperature: float) -> Array:
    """Return the symmetric cross-entropy of finding row i of one side from row i of the other.

    Args:
        left, right: (batch, channel), any length; they are normalised here.
        labels: (batch,), 0..batch-1.
        weights: (batch,), 1 for rows that count.
        temperature: Smaller is sharper.

    Raises:
        ValueError: Shapes differ, by axis.

    Source: Radford et al. 2021 (CLIP), fig. 3, with a fixed temperature.
    """
    check_shapes(
        ("left", left, ("batch", "channel")), ("right", right, ("batch", "channel")),
        ("labels", labels, ("batch",)), ("weights", weights, ("batch",)),
    )  # fmt: skip
    scores = ops.linear(ops.normalize(left), ops.normalize(right)) / temperature
    turned = ops.permute(scores, (1, 0))
    return 0.5 * (ops.cross_entropy(scores, labels, weights) + ops.cross_entropy(turned, labels, weights))
