"""What the autoencoder minimises: absolute error, error of edges at several scales, and the divergence of the latent."""

from __future__ import annotations

from sampan.frameworks import ops
from sampan.models.layers import Array
from sampan.models.shapes import IMAGE, check_shapes


def edge_loss(image: Array, target: Array, num_scales: int = 3) -> Array:
    """Return the mean absolute difference of horizontal and vertical differences, over halved scales.

    A perceptual term that needs no trained network: it punishes blur, which the plain error hardly sees.

    Args:
        image, target: (batch, channel, height, width); sides divisible by 2^(num_scales - 1).

    Raises:
        ValueError: Shapes differ, by axis.
    """
    check_shapes(("image", image, IMAGE), ("target", target, IMAGE))
    total = 0.0
    for scale in range(num_scales):
        if scale:
            image, target = _halve(image), _halve(target)
        error = image - target
        across = error[:, :, :, 1:] - error[:, :, :, :-1]
        down = error[:, :, 1:] - error[:, :, :-1]
        total = total + ops.mean(ops.abs(across)) + ops.mean(ops.abs(down))
    return total / num_scales


def kl_divergence(mean: Array, log_variance: Array) -> Array:
    """Return the Kullback-Leibler divergence from the standard normal, summed over a latent, averaged over the batch.

    Args:
        mean, log_variance: (batch, channel, height, width).

    Raises:
        ValueError: Shapes differ, by axis.
    """
    check_shapes(("mean", mean, IMAGE), ("log_variance", log_variance, IMAGE))
    per_cell = 0.5 * (mean * mean + ops.exp(log_variance) - 1 - log_variance)
    return ops.mean(ops.sum(per_cell, (1, 2, 3)))


def _halve(x: Array) -> Array:
    batch, channels, height, width = x.shape
    return ops.mean(x.reshape((batch, channels, height // 2, 2, width // 2, 2)), (3, 5))
