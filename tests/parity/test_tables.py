"""Host-side tables and sizes agree with the published implementation at the released sizes, not only at tiny ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.models.embeddings import Timesteps
from diffusers.models.transformers.transformer_glm_image import GlmImageRotaryPosEmbed
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import GlmImageProcessor, GlmImageTextConfig, GlmImageVisionConfig
from transformers.models.glm_image.image_processing_pil_glm_image import smart_resize as library_resize
from transformers.models.glm_image.modeling_glm_image import GlmImageTextRotaryEmbedding, GlmImageVisionEmbeddings
from transformers.models.t5.modeling_t5 import T5Attention

from parity.compare import FP32_TOLERANCE, draw, relative_error
from sampan.errors import RequestError
from sampan.models import pixels, positions
from sampan.models.config import Geometry, GlyphConfig, ImageProcessorConfig, TextConfig

RELEASED_ROPE = {
    "rope_type": "default",
    "rope_theta": 10000.0,
    "partial_rotary_factor": 0.5,
    "mrope_section": [8, 12, 12],
}
LAST_PLACE = 2.0**-24  # half a unit in the last place of an fp32 number near 1


@pytest.mark.parametrize("greatest", [300, 5000, 131071])
def test_text_rotation_of_the_release(greatest: int):
    rotary = GlmImageTextRotaryEmbedding(GlmImageTextConfig(rope_parameters=RELEASED_ROPE))
    ids = np.random.default_rng(greatest).integers(0, greatest + 1, (3, 2, 400))
    wanted = rotary(torch.zeros(1), torch.from_numpy(ids))
    for got, table in zip(positions.rope_text(ids, TextConfig()), wanted, strict=True):
        half = table[..., : table.shape[-1] // 2]
        assert torch.equal(half, table[..., table.shape[-1] // 2 :])
        assert relative_error(torch.from_numpy(got[:, 0]), half) <= 2 * LAST_PLACE


@pytest.mark.parametrize("grid", [(64, 64), (128, 128), (40, 96)])
def test_picture_rotation_of_the_release(grid: tuple[int, int]):
    wanted = GlmImageRotaryPosEmbed(128, 2)(torch.zeros(1, 1, 2 * grid[0], 2 * grid[1]))
    for got, table, text in zip(positions.rope_image(grid, 128, 3), wanted, (1, 0), strict=True):
        assert relative_error(torch.from_numpy(got[0, 0, 3:]), table[:, :64]) <= 2 * LAST_PLACE
        assert (got[0, 0, :3] == text).all()


@pytest.mark.parametrize(("channels", "values"), [(512, range(1000)), (256, range(0, 2049, 32))])
def test_time_and_size_features_of_the_release(channels: int, values: range):
    numbers = np.array(values, np.float32)
    wanted = Timesteps(channels, flip_sin_to_cos=True, downscale_freq_shift=0)(torch.from_numpy(numbers))
    difference = np.abs(positions.sinusoid(numbers, channels) - wanted.numpy())
    # PyTorch rounds two of 256 frequencies the other way; that moves an angle by half a unit in the last place of it
    assert (difference <= numbers[:, None] * LAST_PLACE + 2 * LAST_PLACE).all()
    assert (difference.max(0) > 1e-6).mean() < 0.02


@pytest.mark.parametrize("grid", [(16, 16), (32, 32), (64, 64), (64, 16), (17, 45)])
def test_position_table_of_the_release(grid: tuple[int, int]):
    module = GlmImageVisionEmbeddings(GlmImageVisionConfig(hidden_size=8, num_heads=1))
    table = draw(5, 128 * 128, 8)
    module.position_embedding.weight.data.copy_(table)
    row, column = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    with torch.no_grad():
        wanted = module(
            torch.zeros(len(row), 8),
            [len(row)],
            torch.tensor([[1, *grid]]),
            torch.from_numpy(row),
            torch.from_numpy(column),
        )
    ids, weights = positions.bilinear_gather(grid, 128)
    assert relative_error((table[ids] * torch.from_numpy(weights)[..., None]).sum(0), wanted) <= FP32_TOLERANCE


@pytest.mark.parametrize("length", [1, 2, 17, 400])
def test_relative_buckets_of_the_release(length: int):
    glyph = GlyphConfig()
    offset = torch.arange(length)[None] - torch.arange(length)[:, None]
    wanted = T5Attention._relative_position_bucket(
        offset,
        bidirectional=True,
        num_buckets=glyph.relative_attention_num_buckets,
        max_distance=glyph.relative_attention_max_distance,
    )
    got = positions.relative_buckets(
        length, glyph.relative_attention_num_buckets, glyph.relative_attention_max_distance
    )
    assert np.array_equal(got, wanted.numpy())


SIDES = st.integers(min_value=1, max_value=9000)


@settings(max_examples=400, deadline=None)
@given(height=SIDES, width=SIDES, tiny=st.booleans())
@example(height=1016, width=1016, tiny=False)
@example(height=512, width=2048, tiny=False)
@example(height=2049, width=8196, tiny=False)
@example(height=15, width=16, tiny=False)
@example(height=16, width=64, tiny=False)
def test_smart_resize_agrees_for_every_size(height: int, width: int, tiny: bool):
    config = ImageProcessorConfig(64 * 64, 256 * 256) if tiny else ImageProcessorConfig()
    try:
        wanted = library_resize(height, width, config.patch_size, config.min_pixels, config.max_pixels)
    except ValueError:
        with pytest.raises(RequestError):
            pixels.smart_resize(height, width, config, token_scale=2)
    else:
        assert pixels.smart_resize(height, width, config, token_scale=2) == wanted


@settings(max_examples=300, deadline=None)
@given(height=st.integers(16, 4400), ratio=st.floats(0.26, 3.9))
def test_smart_resize_agrees_where_it_resizes(height: int, ratio: float):
    width = max(16, round(height * ratio))
    config = ImageProcessorConfig()
    wanted = library_resize(height, width, config.patch_size, config.min_pixels, config.max_pixels)
    assert pixels.smart_resize(height, width, config, token_scale=2) == wanted


def test_grids_agree_for_every_size_up_to_2048():
    geometry = Geometry()
    for height in range(32, 2049, 32):
        for width in range(32, 2049, 32):
            shape = GlmImageProcessor._get_target_shape(None, height, width)
            assert (*geometry.prior_grid(height, width), *geometry.preview_grid(height, width)) == tuple(shape)


def test_mu_at_the_sizes_the_specification_names():
    from sampan.models.config import SchedulerConfig
    from sampan.samplers import euler

    assert [euler.shift((px // 16) ** 2, SchedulerConfig()) for px in (512, 1024, 2048)] == [1.75, 3.25, 6.25]
