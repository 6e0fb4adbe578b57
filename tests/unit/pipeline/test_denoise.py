"""Painting with a decoder that is made up: which branch sees what, and that the steps are Euler's."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sampan.models import presets
from sampan.pipeline.denoise import Denoiser
from sampan.samplers import euler

CONFIG = presets.get("nano", {"geometry": {"prior_px": 16, "default_px": 64}})
SHAPE = (CONFIG.vae.latent_channels, 8, 8)


class Constant:
    """Says 3 where the prior is shown, 1 where it is dropped, and keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def __call__(self, latent: Any, text: Any, ids: Any, keep: Any, *rest: Any) -> Any:
        self.told.append((latent, text, ids, keep, *rest))
        return torch.ones_like(latent) * (1 + 2 * keep[:, None, None, None])


def paint(model: Constant, guidance_scale: float, unconditional: np.ndarray | None, count: int = 2) -> np.ndarray:
    seen: list[tuple[int, int]] = []
    out = Denoiser(model, CONFIG, "cpu", "fp32").paint(
        np.arange(16 * count).reshape(count, 4, 4),
        np.zeros((count, *SHAPE), np.float32),
        np.ones((1, 3, CONFIG.dit.text_embed_dim), np.float32),
        unconditional,
        None,
        (64, 64),
        2,
        guidance_scale,
        lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 2), (2, 2)]
    return out.numpy()


def test_the_whole_way_is_the_velocity_times_the_noise_level():
    model = Constant()
    painted = paint(model, 1.0, None)
    _, sigmas = euler.schedule(2, 16, CONFIG.scheduler)
    np.testing.assert_allclose(painted, np.full((2, *SHAPE), -3 * sigmas[0]), rtol=1e-6)
    assert len(model.told) == 2
    latent, text, ids, keep = model.told[0][:4]
    assert (latent.shape, text.shape[:2], ids.shape) == ((2, *SHAPE), (2, 3), (2, 16))
    assert keep.tolist() == [1.0, 1.0]


def test_guidance_asks_a_second_time_without_prior_and_words():
    model = Constant()
    nothing = np.zeros((1, 1, CONFIG.dit.text_embed_dim), np.float32)
    painted = paint(model, 2.0, nothing)
    _, sigmas = euler.schedule(2, 16, CONFIG.scheduler)
    np.testing.assert_allclose(painted, np.full((2, *SHAPE), -(1 + 2 * (3 - 1)) * sigmas[0]), rtol=1e-6)
    assert [told[3].tolist() for told in model.told] == [[1.0, 1.0], [0.0, 0.0]] * 2
    assert model.told[1][1].shape[1] == 1


def test_without_references_there_is_nothing_to_look_at():
    assert Denoiser(Constant(), CONFIG, "cpu", "fp32").reference_kv([], [], []) is None
