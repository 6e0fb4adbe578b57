"""What a client leaves out is in the request nevertheless."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sampan.errors import ApiError
from sampan.models.config import PaintingConfig, PromptConfig
from sampan.pipeline.pipeline import Pipeline
from sampan.pipeline.prepare import Prepared
from sampan.pipeline.request import ImageRequest
from sampan.serve.request import ServeRequest, build_request
from sampan.serve.schemas import EditFields, GenerationBody
from sampan.serve.settings import Settings

SETTINGS = Settings("127.0.0.1", 0, Path("data"), "tiny", default_steps=7, proofread=3, label=True)


def built(pipeline: Pipeline, references: tuple[Any, ...] = (), **fields: Any) -> ServeRequest:
    values = (EditFields if references else GenerationBody)(**{"prompt": "a boat", **fields})
    return build_request(
        "edit" if references else "generation",
        "key:alice:1",
        values,
        references,
        settings=SETTINGS,
        config=pipeline.config,
        can_proofread=True,
        can_enhance=True,
    )


def test_a_bare_prompt_has_every_default(pipeline: Pipeline):
    request, image = built(pipeline), built(pipeline, seed=3).image
    side = pipeline.config.geometry.default_px
    assert (image.width_px, image.height_px, image.count, image.seed) == (side, side, 1, 3)
    assert image.num_inference_steps == 7 and image.guidance_scale == pipeline.config.painting.guidance_scale
    assert request.image.seed != built(pipeline).image.seed  # drawn anew
    assert request.label and request.enhance and not request.stream and request.output_format == "png"
    assert request.num_rows == 1  # no quoted word that could be read
    with pytest.raises(dataclasses.FrozenInstanceError):
        request.label = False  # type: ignore[misc]


@pytest.mark.parametrize(
    ("quality", "stated", "server", "wanted"),
    [
        ("auto", 50, None, 50),
        ("auto", 20, None, 20),
        ("high", 20, 30, 30),
        ("medium", 50, None, 25),
        ("medium", 20, None, 20),  # never more than the best quality has
        ("low", 20, None, 10),
    ],
)
def test_steps_are_the_model_s_own_where_nobody_says_others(
    pipeline: Pipeline, quality: str, stated: int, server: int | None, wanted: int
):
    config = dataclasses.replace(pipeline.config, painting=PaintingConfig(num_inference_steps=stated))
    settings = dataclasses.replace(SETTINGS, default_steps=server)
    fields = GenerationBody(prompt="a boat", quality=quality)
    request = build_request(
        "generation", "me", fields, settings=settings, config=config, can_proofread=True, can_enhance=True
    )
    assert request.image.num_inference_steps == wanted


def test_what_a_client_says_counts_more(pipeline: Pipeline):
    request = built(pipeline, quality="low", size="96x64", n=2, enhance=False, partial_images=2, guidance_scale=1.0)
    assert request.image.num_inference_steps == 7 and request.size == "96x64" and request.image.count == 2
    assert not request.enhance and request.num_partials == 0 and request.image.guidance_scale == 1.0
    assert built(pipeline, quality="low", num_inference_steps=4).image.num_inference_steps == 4
    assert built(pipeline, stream=True, partial_images=2).num_partials == 2
    words = GenerationBody(prompt='a sign "OPEN"')
    limits: Any = {"settings": SETTINGS, "config": pipeline.config, "can_enhance": False}
    assert build_request("generation", "", words, can_proofread=True, **limits).num_rows == 3
    with pytest.raises(ApiError) as caught:
        build_request("generation", "", words, can_proofread=False, **limits)
    assert caught.value.code == "no_proofreading" and caught.value.status == 400


@pytest.mark.parametrize("photo", [(130, 66), (512, 336), (4000, 3000), (64, 64)])
def test_an_edit_without_a_size_has_that_of_the_command_line(pipeline: Pipeline, photo: tuple[int, int]):
    image = Image.new("RGB", photo)
    request = built(pipeline, (image, Image.new("RGB", (64, 64))))
    height, width = Prepared(pipeline, ImageRequest("x"), [image]).size
    assert request.size == f"{width}x{height}"
    assert built(pipeline, (image,), size="auto").size == request.size


def test_an_aspect_ratio_and_two_sides_are_sizes_too(pipeline: Pipeline):
    side = pipeline.config.geometry.default_px
    assert built(pipeline, aspect_ratio="4:1").size == f"{2 * side}x{side // 2}"
    assert built(pipeline, width=96, height=64).size == built(pipeline, size="96x64").size == "96x64"


def test_a_prompt_is_revised_where_the_model_knows_straight_marks_alone(pipeline: Pipeline):
    config = dataclasses.replace(pipeline.config, prompt=PromptConfig("straight"))
    limits: Any = {"settings": SETTINGS, "config": config, "can_enhance": False, "can_proofread": True}
    asked = build_request("generation", "", GenerationBody(prompt="a sign “OPEN”"), **limits)
    assert asked.image.prompt == 'a sign "OPEN"' and asked.is_revised and asked.num_rows == 3
    assert not build_request("generation", "", GenerationBody(prompt='a sign "OPEN"'), **limits).is_revised
    assert not built(pipeline, prompt="a sign “OPEN”").is_revised  # as the release reads it
