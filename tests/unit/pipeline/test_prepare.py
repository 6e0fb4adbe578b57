"""What the two loops are told of a request: computed once, and only when it is needed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from sampan.checkpoint.folder import open_folder
from sampan.errors import RequestError
from sampan.models.config import PromptConfig
from sampan.pipeline.denoise import initial_noise, latent_shape
from sampan.pipeline.pipeline import Pipeline
from sampan.pipeline.prepare import Prepared, lay_out_tokens, prepare
from sampan.pipeline.prompt import note_on
from sampan.pipeline.request import ImageRequest
from sampan.pipeline.tokens import generate_tokens


@pytest.fixture(scope="module")
def pipeline(tiny_folder: Path) -> Pipeline:
    return Pipeline(open_folder(tiny_folder), "cpu", "fp32")


def noisy(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 255, (height, width, 3), np.uint8))


def test_nothing_is_loaded_before_it_is_needed(tiny_folder: Path):
    pipeline = Pipeline(open_folder(tiny_folder), "cpu", "fp32")
    prepared = prepare(pipeline, ImageRequest('a "CAT"', width_px=96, height_px=64), [])
    assert prepared.size == (64, 96) and prepared.layout.grids[-1] == (2, 3) and pipeline._parts == {}
    assert prepared.glyph_embeds is prepared.glyph_embeds and set(pipeline._parts) == {"glyph"}


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (ImageRequest("a boat", width_px=65, height_px=64), "cannot paint 65x64 pixels"),
        (ImageRequest(f'"{"x" * 3000}"', width_px=64, height_px=64), "too long to draw"),
        (ImageRequest("a boat", width_px=64, height_px=64, inject=Path("nowhere")), "no file `nowhere` to inject"),
    ],
)
def test_what_cannot_be_done_is_said_early(pipeline: Pipeline, request_: ImageRequest, says: str):
    with pytest.raises(RequestError, match=says):
        prepare(pipeline, request_, [])


def test_without_a_size_an_image_has_the_models_area_and_the_shape_of_its_first_reference(pipeline: Pipeline):
    request, side = ImageRequest("make it blue"), pipeline.config.geometry.default_px
    assert Prepared(pipeline, request).size == (side, side)
    assert Prepared(pipeline, request, [noisy(400, 100), noisy(64, 64)]).size == (side // 2, side * 2)
    assert Prepared(pipeline, request, [noisy(1000, 1000)]).size == (side, side)


def test_quotations_are_straight_where_the_folder_asks_for_it_and_as_written_elsewhere(pipeline: Pipeline):
    written, straight = ImageRequest("a sign « OPEN »"), ImageRequest('a sign "OPEN"')
    assert Prepared(pipeline, written).request == written
    asking = dataclasses.replace(pipeline.config, prompt=PromptConfig("straight"))
    knowing = Pipeline(dataclasses.replace(pipeline.folder, config=asking), "cpu", "fp32")
    read = Prepared(knowing, written)
    assert read.request == straight
    assert np.array_equal(read.layout.prompt_ids, Prepared(pipeline, straight).layout.prompt_ids)
    assert np.array_equal(read.glyph_embeds, Prepared(pipeline, straight).glyph_embeds)
    assert note_on(written.prompt, asking) is not None and note_on(straight.prompt, asking) is None


def test_with_references_there_is_no_preview(pipeline: Pipeline):
    config, tokenizer = pipeline.config, pipeline.prompt_tokenizer
    ids = np.arange(6).reshape(2, 3)
    plain = lay_out_tokens("a cat", (64, 96), [], tokenizer=tokenizer, config=config)
    edit = lay_out_tokens("a cat", (64, 96), [ids], tokenizer=tokenizer, config=config)
    assert (len(plain.grids), edit.grids, edit.references[0][1]) == (2, ((2, 3),), (2, 3))
    first = edit.references[0][0]
    assert edit.prompt_ids[first : first + 6].tolist() == [0, 1, 2, 3, 4, 5]
    assert len(lay_out_tokens("a", (64, 96), [], tokenizer=tokenizer, config=config, with_preview=False).grids) == 1


def test_tokens_of_any_size_and_reference_are_written_the_same_each_time(pipeline: Pipeline):
    config, reference = pipeline.config, np.zeros((2, 2), np.int64)

    def write(*asked: tuple[str, tuple[int, int], list[np.ndarray]]) -> list[np.ndarray]:
        sequences = [
            lay_out_tokens(*one, tokenizer=pipeline.prompt_tokenizer, config=config).sequence(
                config, config.sampling, 0, number
            )
            for number, one in enumerate(asked)
        ]
        generate_tokens(pipeline.token_decoder(), sequences)
        return [sequence.grid_ids(-1) for sequence in sequences]

    first, second = write(("a boat", (64, 64), []), ("a red apple", (64, 96), [reference]))
    assert (first.shape, second.shape) == ((2, 2), (2, 3))
    num_codes = config.ar.vq.num_embeddings
    assert 0 <= min(first.min(), second.min()) <= max(first.max(), second.max()) < num_codes
    assert np.array_equal(write(("a boat", (64, 64), []))[0], first)


def test_the_noise_of_an_image_is_named_by_its_seed_and_number(pipeline: Pipeline):
    prepared = Prepared(pipeline, ImageRequest("a boat", width_px=96, height_px=64, seed=4, guidance_scale=1.0))
    prior = np.zeros((2, 3), np.int64)
    inputs = prepared.denoise_inputs(prior, 1)
    assert inputs.noise.shape == (1, *latent_shape((64, 96), pipeline.config)) and inputs.no_glyph_embeds is None
    assert np.array_equal(inputs.noise[0], initial_noise(4, 1, (64, 96), pipeline.config))
    assert np.array_equal(prepared.denoise_inputs(prior, 1, 9).noise[0], initial_noise(9, 1, (64, 96), pipeline.config))
    guided = prepared.denoise_inputs(prior, guidance_scale=2.0, num_steps=3)
    assert guided.no_glyph_embeds is not None and (guided.num_steps, guided.guidance_scale) == (3, 2.0)
    preview = prepared.denoise_inputs(np.zeros((1, 2), np.int64), is_preview=True)
    assert preview.size == (32, 64) and preview.noise.shape[-2:] == latent_shape((32, 64), pipeline.config)[1:]


def test_what_is_injected_is_not_computed(pipeline: Pipeline, tmp_path: Path):
    noise = initial_noise(8, 0, (64, 64), pipeline.config)[None]
    glyph = np.ones((1, 2, pipeline.config.glyph.d_model), np.float32)
    save_file({"noise": noise, "glyph_embeds": glyph}, tmp_path / "file.safetensors")
    request = ImageRequest("a boat", width_px=64, height_px=64, inject=tmp_path / "file.safetensors")
    inputs = prepare(pipeline, request, []).denoise_inputs(np.zeros((2, 2), np.int64))
    assert np.array_equal(inputs.noise, noise) and np.array_equal(inputs.glyph_embeds, glyph)


def test_a_mask_leaves_the_base_image_where_it_is_closed(pipeline: Pipeline):
    base, mask = noisy(64, 64), np.zeros((64, 64), bool)
    mask[:30, :20] = True
    prepared = Prepared(pipeline, ImageRequest("a boat", width_px=64, height_px=64), [base], mask)
    assert prepared.mask_at(2, 2).tolist() == [[True, False], [False, False]]
    prior = np.full((2, 2), 3)
    inputs = prepared.denoise_inputs(prior)
    ids = prepared.references[0].ids
    assert inputs.prior_ids[0].tolist() == [[3, ids[0, 1]], [ids[1, 0], ids[1, 1]]]
    assert inputs.inpainting is not None
    factor = pipeline.config.vae.factor
    assert np.array_equal(inputs.inpainting.mask[0, 0] > 0, prepared.mask_at(64 // factor, 64 // factor))
    black = np.zeros((64, 64, 3), np.uint8)
    composed = prepared.compose(black)
    assert (composed[mask] == 0).all() and np.array_equal(composed[~mask], np.asarray(base)[~mask])
