"""Many requests at once give the images that each gives alone."""

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
from sampan.pipeline.batch import generate_images, generate_priors
from sampan.pipeline.pipeline import Pipeline
from sampan.pipeline.prepare import prepare
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


def together(pipeline: Pipeline, *requests: ImageRequest) -> list[list[np.ndarray]]:
    return generate_images(pipeline, [prepare(pipeline, one) for one in requests])


def test_a_batch_is_what_each_is_alone(pipeline: Pipeline):
    requests = [request(prompt, seed) for seed, prompt in enumerate(PROMPTS)]
    made = together(pipeline, *requests)
    for one, (pixels,) in zip(requests, made, strict=True):
        assert far(pipeline(one)[0], pixels) <= 1  # one step of 8 bits, where the sums' last bits differ
    assert far(made[0][0], made[1][0]) > 20


def test_requests_of_several_images_too(pipeline: Pipeline):
    requests = [replace(request("a boat", 1), count=6), replace(request("a cat", 2), count=2)]
    made = together(pipeline, *requests)
    assert [len(images) for images in made] == [6, 2]
    for one, images in zip(requests, made, strict=True):
        for pixels, wanted in zip(images, pipeline(one), strict=True):
            assert far(pixels, wanted) <= 1


def test_more_sequences_than_are_written_at_once(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    requests = [prepare(pipeline, replace(request(prompt, seed), count=2)) for seed, prompt in enumerate(PROMPTS)]
    whole, seen = generate_priors(pipeline, requests), []
    monkeypatch.setattr(batch, "_SEQUENCES_AT_ONCE", 4)
    parts = generate_priors(pipeline, requests, lambda what, done, total: seen.append((done, total)))
    assert all(np.array_equal(one, other) for one, other in zip(whole, parts, strict=True))
    total = sum(requests[0].sequence(0).total for _ in range(8))
    assert seen == sorted(seen) and seen[-1] == (total, total)


@pytest.mark.parametrize("guidance_scale", [1.0, 6.0])
def test_the_model_s_guidance_holds_unless_it_is_asked_for(guidance_scale: float, tiny_folder: Path, tmp_path: Path):
    folder = shutil.copytree(tiny_folder, tmp_path / "stating")
    (folder / "sampan.json").write_text(json.dumps({"painting": {"guidance_scale": guidance_scale}}), "utf-8")
    stating = Pipeline(open_folder(folder), "cpu", "fp32")
    plain, asked = request("a boat"), replace(request("a boat"), guidance_scale=1.5)
    assert far(stating(asked)[0], stating(plain)[0]) > 2
    assert far(stating(replace(plain, guidance_scale=guidance_scale))[0], stating(plain)[0]) == 0
    ((beside,), _) = together(stating, plain, asked)
    assert far(beside, stating(plain)[0]) <= 1


def test_with_references_too(pipeline: Pipeline):
    asked = [("make it red", 1), ("make the boat blue", 2)]
    requests = [prepare(pipeline, request(*one), [noisy(one[1])]) for one in asked]
    for one, (pixels,) in zip(asked, generate_images(pipeline, requests), strict=True):
        assert far(pipeline(request(*one), [noisy(one[1])])[0], pixels) <= 1
    # those of one that is done are not kept: a batch would hold the keys and values of every reference
    assert ["reference_kv" in vars(one) for one in requests] == [False, True]


def test_parts_take_turns_on_the_device(tiny_folder: Path):
    loaded: list[str] = []

    def progress(what: str, done: int, total: int) -> None:
        if what.startswith("loading") and done:
            loaded.append(what.split()[1])

    pipeline = Pipeline(open_folder(tiny_folder), "cpu", "fp32", offload=True, progress=progress)
    requests = [prepare(pipeline, request(prompt), [noisy(1)]) for prompt in PROMPTS[:2]]
    generate_images(pipeline, requests, images_at_once=1)
    assert loaded == ["tokenizer", "ar", "glyph", "vae", "decoder", "vae"]


def test_time_is_charged_to_stages_and_progress_is_told(pipeline: Pipeline):
    seen, clock = [], batch.StageClock()
    generate_images(
        pipeline, [prepare(pipeline, request("a boat")), prepare(pipeline, request(PROMPTS[0]))], clock=clock,
        progress=lambda what, done, total: seen.append((what, done, total)),
    )  # fmt: skip
    assert set(clock.seconds) == set(batch.STAGES) and all(value > 0 for value in clock.seconds.values())
    # two kinds of images, of as many words: each takes its own steps
    assert [told for told in seen if told[0] == "painting"] == [("painting", k, 4) for k in (1, 2, 3, 4)]
