"""Batches: the same for every framework, in the order that the losses take them, of the sizes that are stated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sampan import job
from sampan.bench import shapes
from sampan.errors import RequestError

SHORTEST = 'out = "runs/job"\n\n[data]\npath = "pictures"\n'


@pytest.mark.parametrize("part", ["ar", "decoder"])
def test_a_batch_follows_from_the_seed_and_is_read_as_it_was_written(part: str, tmp_path: Path):
    first, again, other = (shapes.batch(part, shapes.SMALL, seed) for seed in (0, 0, 1))
    assert list(first) == list(again)
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    drawn = {"ar": "ids", "decoder": "clean"}[part]
    assert not np.array_equal(first[drawn], other[drawn])
    shapes.save(tmp_path / "batch.npz", first)
    read = shapes.load(tmp_path / "batch.npz")
    for mine, (name, wanted) in zip(read, first.items(), strict=True):
        if name == "segments":
            assert mine == tuple(wanted) and all(type(n) is int for n in mine)
        else:
            np.testing.assert_array_equal(mine, wanted)
            assert mine.dtype == wanted.dtype


def test_labels_of_the_generator_are_the_tokens_that_follow():
    batch = shapes.batch("ar", shapes.SMALL, 0)
    config = shapes.SMALL.config
    ids, labels, lengths = batch["ids"][0], batch["labels"][0], batch["segments"]
    assert ids.shape[0] == lengths.sum() and len(lengths) == 2
    ends = set(np.cumsum(lengths) - 1)
    for place, label in zip(batch["read_at"], labels, strict=True):
        assert label == (config.ar.text.eos_token_id if place in ends else ids[place + 1])
    assert (batch["weights"] == 4).sum() == 2 * 16 and (batch["weights"] == 1).sum() == 2 * 65


def test_a_jobs_model_and_micro_batches_are_measured():
    text = (
        SHORTEST + "resolutions_px = [128, 256]\n[model.override.dit]\nnum_layers = 2\n[stage.ar]\nmicro_batch_size = 3"
    )
    shape = shapes.of_job(job.parse(text))
    assert (shape.px, shape.config.dit.num_layers, shape.micro_batch_size) == (256, 2, {"ar": 3, "decoder": 16})
    assert shapes.of_job(job.parse(SHORTEST)).px == 128
    vae = shape.config.vae
    assert shapes.batch("decoder", shape, 0)["clean"].shape == (
        16,
        vae.latent_channels,
        256 // vae.factor,
        256 // vae.factor,
    )


def test_pictures_that_do_not_divide_into_tokens_are_refused():
    with pytest.raises(RequestError) as caught:
        shapes.of_job(job.parse(SHORTEST + "resolutions_px = [136]\n"))
    assert caught.value.render() == (
        "error: a picture of 136×136 px cannot be measured\n  because this model's tokens stand for 16 px\n\n"
        "hint: set data.resolutions_px to a multiple of 16"
    )


def test_a_block_sees_what_a_picture_of_1024_px_has():
    assert shapes.block_tokens("ar") == 24 + 16 * 16 + 32 * 32
    assert shapes.block_tokens("decoder") == 16 + 64 * 64
    assert shapes.block_batch("ar", 5, 0)["x"].shape == (1, 5, 4096)
    batch = shapes.block_batch("decoder", 20, 0)
    assert batch["x"].shape == (1, 4, 4096) and batch["cos"].shape == (1, 1, 20, 64)
