"""Reference pictures: which sizes are taken, and to what they are brought."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sampan.errors import RequestError
from sampan.models import pixels, presets
from sampan.models.config import ImageProcessorConfig

RELEASED = ImageProcessorConfig()


@given(height=st.integers(20, 6000), ratio=st.floats(0.25, 4.0))
def test_both_sides_agree_on_the_grid_of_every_size_that_is_taken(height: int, ratio: float):
    width = min(4 * height, max(-(-height // 4), round(height * ratio)))  # rounded, and not beyond a ratio of 4
    taken = pixels.reference_size(height, width, RELEASED, 32)
    assert all(side % 32 == 0 and 512 <= side <= 2048 for side in taken)
    seen = pixels.smart_resize(*taken, RELEASED, 2)
    assert seen == (taken[0] // 2, taken[1] // 2)  # tokens of 32 px, patches of 16 px: the same grid
    assert pixels.reference_size(*taken, RELEASED, 32) == taken


def test_a_fitting_size_stays():
    assert pixels.reference_size(1024, 768, RELEASED, 32) == (1024, 768)
    assert pixels.reference_size(1016, 1016, RELEASED, 32) == (1024, 1024)
    assert pixels.reference_size(300, 500, RELEASED, 32) == (512, 864)
    assert pixels.reference_size(4096, 2048, RELEASED, 32) == (2048, 1024)


def test_nano_reads_pictures_at_their_own_size():
    nano = presets.get("nano")
    image = Image.new("RGB", (128, 128), (255, 0, 128))
    patches, grid = pixels.to_patches(image, nano.processor, nano.token_scale)
    assert grid == nano.geometry.prior_grid(128, 128) == (8, 8)
    assert patches.shape == (64, 768)
    # channel, row, column: 256 values of each channel
    assert np.unique(patches[:, :256]).tolist() == [1.0]
    assert np.unique(patches[:, 256:512]).tolist() == [-1.0]
    assert np.unique(patches[:, 512:]).tolist() == pytest.approx([128 / 255 * 2 - 1], abs=1e-6)


@pytest.mark.parametrize(
    ("height", "width", "said"),
    [
        (
            15,
            20,
            "error: a reference of 20x15 pixels is too small\n  because its shorter side must have 16 pixels at least",
        ),
        (
            100,
            401,
            (
                "error: a reference of 401x100 pixels is too narrow\n"
                "  because its aspect ratio is 4.01 and the model takes at most 4\n\n"
                "hint: crop it first"
            ),
        ),
    ],
)
def test_sizes_that_are_refused(height: int, width: int, said: str):
    with pytest.raises(RequestError) as caught:
        pixels.smart_resize(height, width, RELEASED, 2)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (1024, 1024, (1024, 1024)),
        (1016, 1016, (1024, 1024)),  # tokens 64 and latent patches 63 in the reference, which then fails
        (300, 400, (512, 672)),
        (5000, 4000, (2048, 1632)),
        (500, 2000, (512, 2048)),
        (10, 10, (512, 512)),
    ],
)
def test_a_reference_is_brought_to_a_size_on_which_both_sides_agree(height: int, width: int, size: tuple[int, int]):
    assert pixels.reference_size(height, width, RELEASED, 32) == size
    tokens = pixels.smart_resize(*size, RELEASED, 2)
    assert (tokens[0] // 16, tokens[1] // 16) == (size[0] // 32, size[1] // 32)


def test_a_reference_that_is_too_narrow_is_refused_before_it_is_distorted():
    with pytest.raises(RequestError, match=r"its aspect ratio is 6\.00"):
        pixels.reference_size(500, 3000, RELEASED, 32)


def test_patches_become_the_picture_they_were_cut_from():
    nano = presets.get("nano")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 160, 3), np.uint8))
    config = dataclasses.replace(nano.processor, min_pixels=256, max_pixels=512**2)
    patches, grid = pixels.to_patches(image, config, 1)
    assert grid == (6, 10)
    again = pixels.from_patches(patches, grid, config.patch_size)
    assert again.shape == (3, 96, 160)
    assert np.array_equal(np.round((again + 1) * 127.5).transpose(1, 2, 0), np.asarray(image))
