"""Many requests at once give the pictures that each gives alone; and what is left out is left out."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sampan.checkpoint.folder import open_folder
from sampan.pipeline import batch
from sampan.pipeline.batch import BatchItem, paint_all
from sampan.pipeline.pipeline import Pipeline
from sampan.pipeline.request import ImageRequest

PROMPTS = ('a red sign that says "OLÁ"', "a boat", 'a "CAT" and a "DOG"', 'the word "HOTEL" in white on blue')


def request(prompt: str, seed: int = 3) -> ImageRequest:
    return ImageRequest(prompt, width_px=64, height_px=64, num_inference_steps=2, seed=seed)


@pytest.fixture(scope="module")
def pipeline(tiny_folder: Path) -> Pipeline:
    return Pipeline(open_folder(tiny_folder), "cpu", "fp32")


def noisy(seed: int, side_px: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side_px, side_px, 3), np.uint8))


def far(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other).max())


def test_a_batch_is_what_each_is_alone(pipeline: Pipeline):
    requests = [request(prompt, seed) for seed, prompt in enumerate(PROMPTS)]
    together = paint_all(pipeline, [BatchItem(one) for one in requests])
    for one, pixels in zip(requests, together, strict=True):
        assert far(pipeline(one)[0], pixels) <= 1  # one step of 8 bits, where the sums' last bits differ
    assert far(together[0], together[1]) > 20


@pytest.mark.parametrize("guidance_scale", [1.0, 6.0])
def test_the_model_s_guidance_holds_unless_it_is_asked_for(guidance_scale: float, tiny_folder: Path, tmp_path: Path):
    folder = shutil.copytree(tiny_folder, tmp_path / "stating")
    (folder / "sampan.json").write_text(json.dumps({"painting": {"guidance_scale": guidance_scale}}), "utf-8")
    stating = Pipeline(open_folder(folder), "cpu", "fp32")
    plain, asked = request("a boat"), replace(request("a boat"), guidance_scale=1.5)
    assert far(stating(asked)[0], stating(plain)[0]) > 2
    assert far(stating(replace(plain, guidance_scale=guidance_scale))[0], stating(plain)[0]) == 0
    assert far(paint_all(stating, [BatchItem(plain)])[0], stating(plain)[0]) <= 1


def test_with_references_too(pipeline: Pipeline):
    asked = [
        BatchItem(request("make it red", 1), (noisy(1),)),
        BatchItem(request("make the boat blue", 2), (noisy(2),)),
    ]
    for one, pixels in zip(asked, paint_all(pipeline, asked), strict=True):
        assert far(pipeline(one.request, one.images)[0], pixels) <= 1


def test_each_part_left_out_changes_the_picture(pipeline: Pipeline):
    asked = [BatchItem(request(PROMPTS[0]), (), noisy(5))]
    (whole,) = paint_all(pipeline, asked)
    for name in ("prior", "glyph", "preview"):
        assert far(paint_all(pipeline, asked, frozenset({name}))[0], whole) > 2, name
    # without words the words in quotes are told to the generator alone
    (silent,) = paint_all(pipeline, [BatchItem(request("a boat"), (), noisy(5))], frozenset({"prior", "glyph"}))
    (same,) = paint_all(pipeline, asked, frozenset({"prior", "glyph"}))
    assert far(silent, same) == 0


def test_a_zeroed_decoder_leaves_the_noise(tiny_folder: Path):
    pipeline, seen = Pipeline(open_folder(tiny_folder), "cpu", "fp32"), []
    batch.zero_decoder(pipeline)
    clock = batch.StageClock()
    one, other = paint_all(
        pipeline, [BatchItem(request("a boat")), BatchItem(request(PROMPTS[0]))], clock=clock,
        progress=lambda what, done, total: seen.append((what, done, total)),
    )  # fmt: skip
    assert far(one, other) == 0
    assert set(clock.seconds) == set(batch.STAGES) and all(value > 0 for value in clock.seconds.values())
    assert seen[-1] == ("painting", 2, 2)
