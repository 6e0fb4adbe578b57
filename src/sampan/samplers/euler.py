"""Euler steps along a rectified flow, with the released time convention and classifier-free guidance.

The latent moves with a shifted noise level σ', while the network is told the unshifted integer t = raw - 1. Feeding the
network σ'·1000 instead drifts colours, the more the larger the picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampan.models.config import SchedulerConfig
from sampan.models.shapes import IMAGE, check_shapes

Floats = NDArray[np.float32]


def shift(num_image_tokens: int, config: SchedulerConfig) -> float:
    """Return μ, by which noise levels are shifted: larger pictures stay noisy longer.

    Args:
        num_image_tokens: Decoder tokens of the picture, h·w/patch².

    Source: Esser et al. 2024, "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", at eq. 23: the shift
    grows with the square root of the number of pixels. The offset and the slope are the release's.
    """
    return (num_image_tokens / config.base_image_seq_len) ** 0.5 * config.max_shift + config.base_shift


def shift_time(sigma: Floats, mu: float) -> Floats:
    """Return the shifted noise level μ·σ/(1 + (μ - 1)·σ) of levels in [0, 1].

    Source: Esser et al. 2024, eq. 23, where μ is √(m/n).
    """
    return (mu * sigma / (1 + (mu - 1) * sigma)).astype(np.float32)


def schedule(num_steps: int, num_image_tokens: int, config: SchedulerConfig) -> tuple[Floats, Floats]:
    """Return what the network is told (num_steps,) and the noise levels (num_steps + 1,), the last one 0.

    The raw times are truncated to integers first, and the noise levels come from the truncated ones, shifted as in
    `shift_time`, in the form μ/(μ + 1/σ - 1) whose rounding is the release's.
    """
    raw = np.linspace(config.num_train_timesteps, 1.0, num_steps + 1)[:-1].astype(np.int64).astype(np.float32)
    sigma = raw / np.float32(config.num_train_timesteps)
    mu = np.float32(shift(num_image_tokens, config))
    shifted = (mu / (mu + (1 / sigma - 1))).astype(np.float32)
    return raw - 1, np.append(shifted, np.float32(0))


def euler_step(latent: Any, velocity: Any, sigmas: Floats, step: int) -> Any:
    """Return the latent after one step, z + (σ[step + 1] - σ[step])·v.

    Args:
        latent: (batch, channel, height, width) at noise level sigmas[step], in fp32.
        velocity: Noise minus clean latent, as the network predicts it there; of the same shape.
        sigmas: Noise levels, from 1 down to 0.

    Raises:
        ValueError: The shapes differ.

    Source: the forward Euler method on the flow dz = v·dσ of Liu et al. 2022, "Flow Straight and Fast", and Lipman et al.
    2023, "Flow Matching for Generative Modeling", eq. 1, with time reversed: 1 is noise.
    """
    check_shapes(("latent", latent, IMAGE), ("velocity", velocity, IMAGE))
    return latent + float(sigmas[step + 1] - sigmas[step]) * velocity


def apply_guidance(conditional: Any, unconditional: Any, scale: float) -> Any:
    """Return unconditional + scale·(conditional - unconditional) of two velocities (batch, channel, height, width).

    Raises:
        ValueError: The shapes differ.

    Source: Ho and Salimans 2022, "Classifier-Free Diffusion Guidance", eq. 6, with scale = 1 + w.
    """
    check_shapes(("conditional", conditional, IMAGE), ("unconditional", unconditional, IMAGE))
    return unconditional + scale * (conditional - unconditional)
