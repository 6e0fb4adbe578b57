"""Parts of the model that are left out, to see what each brings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sampan.checkpoint.folder import open_folder
from sampan.evaluate.generators import ABLATIONS, prepare_without, zero_decoder
from sampan.pipeline.batch import generate_images
from sampan.pipeline.pipeline import Pipeline
from sampan.pipeline.request import ImageRequest

SIGN = 'a red sign that says "OLÁ"'


@pytest.fixture(scope="module")
def pipeline(tiny_folder: Path) -> Pipeline:
    return Pipeline(open_folder(tiny_folder), "cpu", "fp32")


def paint(pipeline: Pipeline, prompt: str, *ablate: str) -> np.ndarray:
    truth = Image.fromarray(np.random.default_rng(5).integers(0, 255, (64, 64, 3), np.uint8))
    request = ImageRequest(prompt, width_px=64, height_px=64, num_inference_steps=2, seed=3)
    ((image,),) = generate_images(pipeline, [prepare_without(frozenset(ablate), pipeline, request, (), truth)])
    return image.astype(int)


@pytest.mark.parametrize("name", ["prior", "glyph", "preview"])
def test_each_part_left_out_changes_the_image(name: str, pipeline: Pipeline):
    assert np.abs(paint(pipeline, SIGN, name) - paint(pipeline, SIGN)).max() > 2


def test_without_words_those_in_quotes_are_told_to_the_generator_alone(pipeline: Pipeline):
    assert np.array_equal(paint(pipeline, "a boat", "prior", "glyph"), paint(pipeline, SIGN, "prior", "glyph"))


def test_a_zeroed_decoder_leaves_the_noise(tiny_folder: Path):
    zeroed = Pipeline(open_folder(tiny_folder), "cpu", "fp32")
    zero_decoder(zeroed)
    assert np.array_equal(paint(zeroed, "a boat"), paint(zeroed, SIGN))
    assert set(ABLATIONS) == {"prior", "glyph", "preview", "decoder"}
