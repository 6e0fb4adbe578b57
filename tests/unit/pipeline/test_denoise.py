"""Painting with a decoder that is made up: which branch sees what, and that the steps are Euler's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from sampan.models import presets
from sampan.pipeline.denoise import DenoiseInputs, Denoiser, InpaintingRegion, stack_inputs
from sampan.samplers import euler

CONFIG = presets.get("nano", {"geometry": {"prior_px": 16, "default_px": 64}})
SHAPE = (CONFIG.vae.latent_channels, 16, 16)


class Constant:
    """Says 3 where the prior is shown, 1 where it is dropped, and keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def __call__(self, latent: Any, text: Any, ids: Any, keep: Any, *rest: Any) -> Any:
        self.told.append((latent, text, ids, keep, *rest))
        return torch.ones_like(latent) * (1 + 2 * keep[:, None, None, None])


def paint(model: Constant, guidance_scale: float, unconditional: np.ndarray | None, count: int = 2) -> np.ndarray:
    seen: list[tuple[int, int]] = []
    inputs = DenoiseInputs(
        np.arange(16 * count).reshape(count, 4, 4),
        np.zeros((count, *SHAPE), np.float32),
        np.ones((count, 3, CONFIG.dit.text_embed_dim), np.float32),
        (64, 64),
        2,
        guidance_scale,
        unconditional,
    )
    out = Denoiser(model, CONFIG, "cpu", "fp32").denoise(inputs, lambda done, total: seen.append((done, total)))
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
    assert Denoiser(Constant(), CONFIG, "cpu", "fp32").reference_kv([]) is None


def inputs(**changes: Any) -> DenoiseInputs:
    plain = DenoiseInputs(
        np.zeros((2, 4, 4), np.int64),
        np.zeros((2, *SHAPE), np.float32),
        np.ones((2, 3, CONFIG.dit.text_embed_dim), np.float32),
        (64, 64),
        2,
    )
    return replace(plain, **changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"noise": np.zeros((2, SHAPE[0], 16, 9), np.float32)},
            "`noise` has 9 on the axis width, and `the size's latent` has 16",
        ),
        ({"noise": np.zeros((3, *SHAPE), np.float32)}, "`noise` has 3 on the axis batch, and `prior_ids` has 2"),
        (
            {"prior_ids": np.zeros((2, 3, 4), np.int64)},
            "`prior_ids` has 3 on the axis row, and `the size's grid` has 4",
        ),
        ({"prior_ids": np.zeros((4, 4), np.int64)}, r"`prior_ids` has the shape \(4, 4\), and should have the axes"),
        (
            {"glyph_embeds": np.ones((2, 3, 5), np.float32)},
            "`glyph_embeds` has 5 on the axis channel of words",
        ),
        ({"size": (64, 80)}, "`prior_ids` has 4 on the axis column, and `the size's grid` has 5"),
        (
            {"inpainting": InpaintingRegion(np.zeros((1, *SHAPE), np.float32), np.zeros((1, 1, 4, 16), np.float32))},
            "`mask` has 4 on the axis height, and `the size's latent` has 16",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_refused_by_the_name_of_their_axis(changes: dict[str, Any], says: str):
    with pytest.raises(ValueError, match=says):
        Denoiser(Constant(), CONFIG, "cpu", "fp32").start(inputs(**changes))


def test_steps_may_be_taken_one_at_a_time_and_looked_at():
    denoiser = Denoiser(Constant(), CONFIG, "cpu", "fp32")
    state = denoiser.start(inputs())
    state.step()
    assert not state.done and (state.steps_taken, state.num_steps) == (1, 2)
    # the velocity is constant, so that what a step heads for is the end
    halfway = state.predict_clean().numpy()
    state.step()
    assert state.done
    np.testing.assert_allclose(halfway, state.latent.numpy(), rtol=1e-6)
    np.testing.assert_array_equal(denoiser.denoise(inputs()).numpy(), state.latent.numpy())


def test_what_stays_is_the_base_image_at_the_end():
    base, mask = np.full((1, *SHAPE), 7, np.float32), np.zeros((1, 1, *SHAPE[1:]), np.float32)
    mask[..., :4] = 1
    out = Denoiser(Constant(), CONFIG, "cpu", "fp32").denoise(inputs(inpainting=InpaintingRegion(base, mask))).numpy()
    assert (out[..., 4:] == 7).all() and (out[..., :4] < 0).all()


def test_a_stack_is_one_batch_of_its_images():
    one = inputs(prior_ids=np.full((2, 4, 4), 3), references=((torch.zeros(2, 1, 5, 2), torch.ones(2, 1, 5, 2)),))
    both = stack_inputs([one, inputs(references=one.references)])
    assert both.prior_ids.shape == (4, 4, 4) and both.noise.shape[0] == both.glyph_embeds.shape[0] == 4
    assert both.references is not None and both.references[0][1].shape == (4, 1, 5, 2)
    assert both.prior_ids[:2].min() == 3 and both.prior_ids[2:].max() == 0
