"""Euler steps along a rectified flow, with the released time convention.

The latent moves with a shifted noise level σ', while the network is told the unshifted integer t = raw - 1. Feeding the
network σ'·1000 instead drifts colours, the more the larger the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampan.models.config import SchedulerConfig

Floats = NDArray[np.float32]


def shift(num_image_tokens: int, config: SchedulerConfig) -> float:
    """Return μ, by which noise levels are shifted: larger pictures stay noisy longer.

    Args:
        num_image_tokens: Decoder tokens of the picture, h·w/patch².
    """
    return (num_image_tokens / config.base_image_seq_len) ** 0.5 * config.max_shift + config.base_shift


def shifted(sigma: Floats, mu: float) -> Floats:
    """Return μ/(μ + 1/σ - 1), written so that σ = 0 gives 0."""
    return (mu * sigma / (1 + (mu - 1) * sigma)).astype(np.float32)


def schedule(num_steps: int, num_image_tokens: int, config: SchedulerConfig) -> tuple[Floats, Floats]:
    """Return what the network is told (num_steps,) and the noise levels (num_steps + 1,), the last one 0.

    The raw times are truncated to integers first, and the noise levels come from the truncated ones.
    """
    raw = np.linspace(config.num_train_timesteps, 1.0, num_steps + 1)[:-1].astype(np.int64).astype(np.float32)
    sigma = raw / np.float32(config.num_train_timesteps)
    mu = shift(num_image_tokens, config)
    moved = (np.float32(mu) / (np.float32(mu) + (1 / sigma - 1))).astype(np.float32)
    return raw - 1, np.append(moved, np.float32(0))


def integrate(
    latent: Any, velocity: Callable[[Any, float, int], Any], times: Sequence[float] | Floats, sigmas: Floats
) -> Any:
    """Walk from noise to a clean latent and return it.

    Args:
        latent: Noise (batch, channels, h, w) in fp32.
        velocity: Called with the latent, the network's time and the step number; returns noise minus clean, fp32.
    """
    for step, t in enumerate(times):
        latent = moved(latent, velocity(latent, float(t), step), sigmas, step)
    return latent


def moved(latent: Any, velocity: Any, sigmas: Floats, step: int) -> Any:
    """Return the latent after one step."""
    return latent + float(sigmas[step + 1] - sigmas[step]) * velocity


def guided(conditional: Any, unconditional: Any, scale: float) -> Any:
    """Return unconditional + scale·(conditional - unconditional)."""
    return unconditional + scale * (conditional - unconditional)
