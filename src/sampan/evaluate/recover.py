"""What is left of true pictures after the autoencoder, and of what the tokens alone say of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import mean
from typing import Any

import numpy as np
from PIL import Image

from sampan.data.pictures import to_array, to_uint8
from sampan.evaluate.case import EvalCase
from sampan.evaluate.generators import Report, prepare_without
from sampan.frameworks import device as dev
from sampan.metrics.likeness import psnr, ssim
from sampan.metrics.ocr import Reading, score_words
from sampan.pipeline.batch import generate_images
from sampan.pipeline.pipeline import Pipeline
from sampan.pipeline.prepare import Pixels
from sampan.pipeline.request import ImageRequest

Read = Callable[[list[Image.Image]], list[Reading]]
AT_MOST = 100  # pictures; more hardly move the means
BATCH = 8  # pictures at a time


def through_vae(pipeline: Pipeline, images: Sequence[Image.Image]) -> list[Image.Image]:
    """Return pictures as the autoencoder gives them back."""
    decoded = []
    for first in range(0, len(images), BATCH):
        latents = pipeline.encode(np.stack([to_array(image) for image in images[first : first + BATCH]]))
        decoded += [to_uint8(pixels) for pixels in pipeline.decode(dev.array(latents, pipeline.device, "fp32"))]
    return [Image.fromarray(pixels) for pixels in decoded]


def through_tokens(
    pipeline: Pipeline, images: Sequence[Image.Image], num_steps: int, guidance_scale: float, progress: Report
) -> list[Image.Image]:
    """Return what the decoder paints from the true tokens of pictures, told no words."""
    painted: list[Pixels] = []
    for first in range(0, len(images), BATCH):
        progress("from tokens alone", first, len(images))
        requests = []
        for number, image in enumerate(images[first : first + BATCH]):
            request = ImageRequest(
                "",
                width_px=image.width,
                height_px=image.height,
                seed=number,
                num_inference_steps=num_steps,
                guidance_scale=guidance_scale,
            )
            requests.append(prepare_without(frozenset({"prior"}), pipeline, request, truth=image))
        painted += [image for (image,) in generate_images(pipeline, requests, images_at_once=BATCH)]
    progress("from tokens alone", len(images), len(images))
    return [Image.fromarray(image) for image in painted]


def reconstruction(
    pipeline: Pipeline,
    cases: Sequence[EvalCase],
    num_steps: int,
    guidance_scale: float,
    read: Read,
    progress: Report,
) -> dict[str, Any]:
    """Return what is left of the true pictures of some cases, through the autoencoder and from their tokens alone."""
    cases = [case for case in cases if case.truth is not None][:AT_MOST]
    truths = [case.truth for case in cases if case.truth is not None]
    from_tokens = through_tokens(pipeline, truths, num_steps, guidance_scale, progress)
    return {
        "vae": likeness(cases, through_vae(pipeline, truths), read),
        "tokens alone": likeness(cases, from_tokens, read),
    }


def likeness(cases: Sequence[EvalCase], again: Sequence[Image.Image], read: Read) -> dict[str, Any]:
    """Return how like pictures are to the true ones, and how many of their words can be read in each.

    Args:
        cases: With true pictures.
        again: What became of them.
    """
    truths = [case.truth for case in cases if case.truth is not None]
    ratios = [psnr(truth, image) for truth, image in zip(truths, again, strict=True)]
    similar = [ssim(truth, image) for truth, image in zip(truths, again, strict=True)]
    measured: dict[str, Any] = {
        "count": len(truths),
        "psnr_db": round(mean(min(ratio, 100.0) for ratio in ratios), 2),
        "ssim": round(mean(value for value in similar if value is not None), 4),
    }
    worded = [index for index, case in enumerate(cases) if case.words]
    if worded:
        for name, images in (("true_word_accuracy", truths), ("word_accuracy", again)):
            scores = [
                score_words(cases[index].words or (), reading.words)
                for index, reading in zip(worded, read([images[index] for index in worded]), strict=True)
            ]
            measured[name] = round(sum(score.right for score in scores) / sum(score.total for score in scores), 4)
    assert all(map(math.isfinite, measured.values())), "every number is one that JSON can hold"
    return measured
