"""Every shape of an image gets exactly its number of prior tokens, a preview before them, and nothing but image tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sampan.checkpoint.folder import open_folder
from sampan.pipeline.batch import generate_priors
from sampan.pipeline.pipeline import Pipeline
from sampan.pipeline.prepare import prepare
from sampan.pipeline.request import ImageRequest

QUICK = 6, 1  # tokens of the longest side, and seeds: 36 shapes
ALL = 16, 40  # 256 shapes, 10,240 runs


@pytest.fixture(scope="module")
def pipeline(tiny_folder: Path) -> Pipeline:
    """A pipeline whose AR generator wants to write control tokens: whatever it is asked, they are the likeliest."""
    made = Pipeline(open_folder(tiny_folder), "cpu", "fp32")
    num_codes = made.config.ar.vq.num_embeddings

    def push(_: Any, __: Any, output: tuple[Any, Any]) -> tuple[Any, Any]:
        logits = output[0].clone()
        assert logits.shape[-1] > num_codes
        logits[..., num_codes:] += 100
        return logits, output[1]

    made.part("ar").register_forward_hook(push)
    return made


@pytest.mark.parametrize(
    ("longest", "num_seeds"), [QUICK, pytest.param(*ALL, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_every_grid_gets_its_tokens(
    longest: int, num_seeds: int, pipeline: Pipeline, record_property: Callable[..., None]
):
    geometry = pipeline.config.geometry
    sides = [(rows, columns) for rows in range(1, longest + 1) for columns in range(1, longest + 1)]
    codes = min(pipeline.config.ar.vq.num_embeddings, pipeline.config.dit.prior_vq_quantizer_codebook_size)
    runs, shown = 0, set()
    for rows, columns in sides:
        height, width = rows * geometry.prior_px, columns * geometry.prior_px
        seeds = range(num_seeds)
        asked = [ImageRequest("a boat", height_px=height, width_px=width, seed=seed, temperature=1.0) for seed in seeds]
        for first in range(0, num_seeds, 8):
            ready = [prepare(pipeline, request) for request in asked[first : first + 8]]
            for one in ready:
                preview, target = one.sequence(0).grids
                assert target == (rows, columns)
                # the preview has the shape of the image at about preview_side² tokens
                assert preview == geometry.preview_grid(height, width)
                assert one.sequence(0).total == preview[0] * preview[1] + rows * columns
            for (ids,) in generate_priors(pipeline, ready):
                assert ids.shape == (rows, columns)
                assert ids.min() >= 0 and ids.max() < codes  # no control token, though each was likelier
                shown.update(np.unique(ids).tolist())
                runs += 1
    assert runs == len(sides) * num_seeds and len(shown) > codes / 4
    record_property("runs of exactly the tokens of their grids", runs)
