"""Sizes made from areas, and to which a picture goes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.data import bucket
from sampan.models import presets
from sampan.models.pixels import MAX_ASPECT_RATIO

MULTIPLES = st.sampled_from([8, 16, 32])
SIDES = st.integers(1, 6000)


@st.composite
def settings(draw: st.DrawFn) -> tuple[tuple[int, ...], float, int]:
    multiple = draw(MULTIPLES)
    cells = draw(st.lists(st.integers(4, 64), min_size=1, max_size=3))
    return tuple(n * multiple for n in cells), draw(st.floats(1, 4)), multiple


@given(settings())
def test_sizes_are_near_their_area_and_within_the_aspect_ratio(given_settings):
    resolutions, ratio, multiple = given_settings
    sizes = bucket.sizes(resolutions, ratio, multiple)
    assert len(set(sizes)) == len(sizes)
    for side in resolutions:
        assert (side, side) in sizes
    for height, width in sizes:
        assert height % multiple == width % multiple == 0
        assert max(height, width) <= ratio * min(height, width) or height == width
        assert (width, height) in sizes
        # half a cell of the long side away, and never much above
        nearest = min(resolutions, key=lambda side: abs(math.log(height * width / side**2)))
        assert height * width <= 1.04 * nearest**2
        assert abs(height * width - nearest**2) <= min(height, width) * multiple
    one = bucket.sizes(resolutions[:1], ratio, multiple)
    assert len({h / w for h, w in one}) == len(one)
    assert len({min(size) for size in one}) == (len(one) + 1) // 2  # a lying and a standing size for each shorter side


@given(settings(), SIDES, SIDES)
def test_a_picture_goes_to_the_nearest_aspect_ratio_of_the_largest_resolution_it_reaches(given_settings, height, width):
    sizes = bucket.sizes(*given_settings)
    chosen = sizes[bucket.assign((height, width), sizes)]
    by_resolution = [bucket.sizes((side,), *given_settings[1:]) for side in sorted(set(given_settings[0]))]

    def distance(size):
        return abs(math.log(size[0] / size[1]) - math.log(height / width))

    def reached(size):
        return height >= size[0] and width >= size[1]

    best = [min(group, key=distance) for group in by_resolution]
    assert any(
        distance(chosen) <= distance(b) + 1e-9 and chosen in group for b, group in zip(best, by_resolution, strict=True)
    )
    if not reached(chosen):
        assert chosen in by_resolution[0]
    elif len(best) > 1 and reached(best[-1]):
        assert distance(chosen) <= distance(best[-1]) + 1e-9
        assert chosen in by_resolution[-1] or math.prod(chosen) >= 0.9 * math.prod(best[-1])


@given(settings(), SIDES, SIDES)
def test_the_crop_is_the_largest_centred_part(given_settings, height, width):
    sizes = bucket.sizes(*given_settings)
    size = sizes[bucket.assign((height, width), sizes)]
    (tall, wide), (top, left) = bucket.crop((height, width), size)
    assert tall == size[0] or wide == size[1]
    assert min(top, left) == 0
    assert 0 <= tall - size[0] - 2 * top <= 1 and 0 <= wide - size[1] - 2 * left <= 1
    # scaled evenly, to the pixel
    scale = max(size[0] / height, size[1] / width)
    assert abs(tall - height * scale) <= 0.5 + 1e-6 and abs(wide - width * scale) <= 0.5 + 1e-6


def test_sizes_of_nano():
    assert bucket.sizes((128,), 2.0, 16) == ((96, 176), (112, 144), (128, 128), (144, 112), (176, 96))
    assert bucket.sizes((128,), 1, 16) == ((128, 128),)
    assert bucket.sizes((128, 64, 64), 1, 16) == ((64, 64), (128, 128))


def test_a_picture_is_not_enlarged_where_that_can_be_helped():
    sizes = bucket.sizes((512, 1024), 2, 32)

    def of(height, width):
        return sizes[bucket.assign((height, width), sizes)]

    assert of(1024, 1024) == (1024, 1024)
    assert of(1023, 1023) == (512, 512)
    assert of(1023, 1100) == (992, 1056)
    assert of(100, 100) == (512, 512)
    assert of(4000, 1000) == (1440, 736)
    assert of(100, 300) == (384, 672)


def test_crop_coordinates_are_in_pixels_of_the_scaled_picture():
    assert bucket.crop((1000, 2000), (128, 128)) == ((128, 256), (0, 64))
    assert bucket.crop((2000, 1000), (128, 128)) == ((256, 128), (64, 0))
    assert bucket.crop((64, 64), (128, 128)) == ((128, 128), (0, 0))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (((), 2, 16), "there is no resolution to make sizes of"),
        (((120,), 2, 16), "a resolution of 120 px is not a multiple of 16 px"),
        (((0,), 2, 16), "a resolution of 0 px is not a multiple of 16 px"),
        (((128,), 0.5, 16), "a long side over a short side is at least 1, and 0.5 is asked for"),
    ],
)
def test_settings_that_make_no_sizes(arguments, text):
    with pytest.raises(ValueError) as caught:
        bucket.sizes(*arguments)
    assert str(caught.value) == text


@pytest.mark.parametrize("preset", ["glm-image", "nano"])
@pytest.mark.parametrize("ratio", [1, 1.5, 2, MAX_ASPECT_RATIO])
def test_every_size_has_a_preview_smaller_than_itself(preset, ratio):
    geometry = presets.get(preset).geometry
    for height, width in bucket.sizes((geometry.default_px, geometry.default_px * 2), ratio, geometry.prior_px):
        rows, columns = geometry.preview_grid(height, width)
        target = geometry.prior_grid(height, width)
        assert (target[0] * geometry.prior_px, target[1] * geometry.prior_px) == (height, width)
        assert 1 <= rows <= target[0] and 1 <= columns <= target[1]
        assert rows * columns <= geometry.preview_side**2
        # rounding down changes the aspect ratio by less than a row or a column does
        assert (rows + 1) / columns > target[0] / target[1] > rows / (columns + 1)
