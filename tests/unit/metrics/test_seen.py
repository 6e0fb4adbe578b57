"""Colours by name, likeness and nearest pictures, against values worked out by hand or elsewhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sampan.metrics import color, nearest
from sampan.metrics.likeness import psnr, ssim
from sampan.synthetic.signs.colors import COLORS


def noisy(seed: int, amplitude: int) -> Image.Image:
    random = np.random.default_rng(seed)
    base = np.linspace(40, 200, 64)[None, :, None].repeat(64, 0).repeat(3, 2)
    return Image.fromarray(
        np.clip(base + random.integers(-amplitude, amplitude + 1, (64, 64, 3)), 0, 255).astype(np.uint8)
    )


def test_oklab_of_white_and_red_are_those_of_its_author():
    white, red = color.oklab(np.array([[255, 255, 255], [255, 0, 0]]))
    assert white == pytest.approx([1, 0, 0], abs=1e-3)
    assert red == pytest.approx([0.628, 0.225, 0.126], abs=1e-3)


@pytest.mark.parametrize("plate", sorted(COLORS))
def test_every_named_colour_is_recognised(plate: str):
    ink = "white" if plate != "white" else "black"
    picture = Image.new("RGB", (64, 64), COLORS[plate])
    ImageDraw.Draw(picture).rectangle((20, 28, 44, 36), fill=COLORS[ink])
    assert color.plate_and_ink(picture) == (plate, ink)


def test_psnr_and_ssim():
    one = noisy(0, 0)
    assert psnr(one, one) == math.inf and ssim(one, one) == pytest.approx(1)
    shifted = Image.fromarray(np.asarray(one) + 10)
    assert psnr(one, shifted) == pytest.approx(10 * math.log10(255**2 / 100))
    values = [ssim(one, noisy(1, amplitude)) or 0 for amplitude in (2, 10, 40)]
    assert values == sorted(values, reverse=True) and values[0] > 0.9 > 0.5 > values[-1]
    assert ssim(one, noisy(1, 40), np.zeros((64, 64), bool)) is None


def test_the_nearest_picture_is_the_one_it_was_made_from():
    shapes = []
    for number in range(6):
        picture = Image.new("RGB", (96, 96), "white")
        draw = ImageDraw.Draw(picture)
        draw.rectangle(
            (10 + 8 * number, 10, 40 + 8 * number, 80 - 9 * number), fill=(40 * number, 90, 200 - 30 * number)
        )
        shapes.append(picture)
    candidates = nearest.of_all(shapes)
    for number, picture in enumerate(shapes):
        soft = picture.resize((48, 48)).resize((128, 128))
        assert nearest.rank(soft, candidates, number) == 0
