"""Rectified flow: where on the way from picture to noise to train, and the error of the velocity there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.frameworks import ops
from sampan.models.layers import Array
from sampan.models.shapes import IMAGE, check_shapes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def flow_times(
    draws: NDArray[np.float64], mean: float, std: float, mu: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return noise levels σ and the times the network is told, both (n,).

    Levels are logit-normal and then shifted by μ as in inference; the network is told the unshifted time
    1000·σ₀ - 1, at least 0, which is the convention of the released weights.

    Args:
        draws: Standard normal numbers.

    Source: Esser et al. 2024 (logit-normal sampling, resolution shift).
    """
    import numpy as np  # here, because a plan counts losses without NumPy

    from sampan.samplers.euler import shift_time

    unshifted = (1 / (1 + np.exp(-(mean + std * draws)))).astype(np.float32)
    return shift_time(unshifted, mu).astype(np.float32), np.maximum(1000 * unshifted - 1, 0).astype(np.float32)


def add_noise(clean: Array, noise: Array, sigma: Array) -> Array:
    """Return (1 - σ)·clean + σ·noise (batch, channel, height, width).

    Args:
        clean, noise: (batch, channel, height, width).
        sigma: Noise levels σ (batch,).

    Raises:
        ValueError: Shapes differ, by axis.
    """
    check_shapes(("clean", clean, IMAGE), ("noise", noise, IMAGE), ("sigma", sigma, ("batch",)))
    s = sigma[:, None, None, None]
    return (1 - s) * clean + s * noise


def flow_loss(velocity: Array, clean: Array, noise: Array) -> Array:
    """Return the mean squared error of the velocity against noise - clean, in fp32.

    Args:
        velocity: What the decoder predicts, (batch, channel, height, width).
        clean, noise: The latent and the noise that made the decoder's input, of the same shape.

    Raises:
        ValueError: Shapes differ, by axis.

    Source: Liu et al. 2022, "Flow Straight and Fast", eq. 1, with time reversed (σ = 1 is noise).
    """
    check_shapes(("velocity", velocity, IMAGE), ("clean", clean, IMAGE), ("noise", noise, IMAGE))
    error = ops.cast(velocity, ops.float32) - (noise - clean)
    return ops.mean(error * error)
