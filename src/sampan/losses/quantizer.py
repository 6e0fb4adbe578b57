"""The vector quantizer's loss, with a straight path for gradients."""

from __future__ import annotations

from sampan.frameworks import ops
from sampan.models.layers import Array
from sampan.models.shapes import check_shapes

_LEADING = ("batch", "token", "row", "column")  # names for the axes of features before their channels


def quantize_straight(
    z: Array, codes: Array, ids: Array, commitment_weight: float, codebook_weight: float
) -> tuple[Array, Array]:
    """Return the chosen codes, carrying their gradient on to `z`, and the quantizer's loss.

    Args:
        z: Unit features (…, channels).
        codes: Unit codebook (num_codes, channels).
        ids: Chosen codes (…,).
        commitment_weight: Of the term that pulls features to their codes (1 in the reference's formula).
        codebook_weight: Of the term that pulls codes to the features that chose them (0.25 there).

    Raises:
        ValueError: Shapes differ, by axis.

    Source: van den Oord et al. 2017, eq. 3.
    """
    leading = _LEADING[: len(z.shape) - 1]
    check_shapes(("z", z, (*leading, "channel")), ("codes", codes, ("code", "channel")), ("ids", ids, leading))
    chosen = ops.take(codes, ids)
    to_features = z - ops.stop_gradient(chosen)
    to_codes = chosen - ops.stop_gradient(z)
    loss = commitment_weight * ops.mean(to_features * to_features) + codebook_weight * ops.mean(to_codes * to_codes)
    return z + ops.stop_gradient(chosen - z), loss
