"""The stages of a training run: what each trains, on what, and by which loss.

A stage module offers `make(context) -> Stage`; the loop does the rest.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sampan.data.encode import Encoded, Pictures
from sampan.data.readers.image_folder import Sample
from sampan.models.config import ModelConfig
from sampan.models.text import PromptTokenizer

STAGES = {
    "vae": "sampan.train.stages.vae:make",
    "tokenizer": "sampan.train.stages.tokenizer:make",
    "glyph": "sampan.train.stages.glyph:make",
    "ar": "sampan.train.stages.ar:make",
    "decoder": "sampan.train.stages.decoder:make",
}


@dataclass(frozen=True)
class Context:
    """What a stage may draw on.

    Args:
        settings: This stage's section of the job.
        samples: The data set; `image_of[i]` is sample i's picture number, `references_of[i]` those of its references.
        pictures: Every picture once, targets and references.
        frozen: Returns a part that is finished, on the device, out of training.
        encoded: Returns the pictures as the finished tokenizer and autoencoder see them.
    """

    settings: Any
    seed: int
    config: ModelConfig
    samples: list[Sample]
    image_of: list[int]
    references_of: list[tuple[int, ...]]
    pictures: Pictures
    prompt_tokenizer: PromptTokenizer
    device: str
    dtype: str
    frozen: Callable[[str], Any]
    encoded: Callable[[], Encoded]


@dataclass
class Stage:
    """One stage, ready for the loop.

    Args:
        module: What is trained, heads that are not exported included.
        prefix: Where in it the part's own weights stand ("" when it is the part).
        draw: Returns the host arrays of (step, micro-batch).
        loss: Called with the module and those arrays on the device; returns a scalar and numbers for the log.
        after: Called after every step with its number; may change the module (dead codes) and returns numbers to log.
        finish: Called once at the end with the finished part; returns what changes in the model's config.
        extra: Host arrays that a checkpoint must keep beside weights and moments.
    """

    module: Any
    draw: Callable[[int, int], tuple[np.ndarray, ...]]
    loss: Callable[..., Any]
    prefix: str = ""
    after: Callable[[int], dict[str, float]] | None = None
    finish: Callable[[Any], ModelConfig] | None = None
    extra: dict[str, np.ndarray] = field(default_factory=dict)


def make(name: str, context: Context) -> Stage:
    """Return a stage by name."""
    module, function = STAGES[name].split(":")
    return getattr(importlib.import_module(module), function)(context)


def caption_texts(samples: list[Sample]) -> list[str]:
    """Return every caption once, in order."""
    return list(dict.fromkeys(caption for sample in samples for caption in sample.captions))


def unique_pictures(samples: list[Sample]) -> tuple[list[Path], list[int], list[tuple[int, ...]]]:
    """Return every picture once, each sample's picture number, and each sample's reference numbers."""
    numbers: dict[Path, int] = {}
    for sample in samples:
        for path in (sample.image, *sample.references):
            numbers.setdefault(path, len(numbers))
    return (
        list(numbers),
        [numbers[sample.image] for sample in samples],
        [tuple(numbers[path] for path in sample.references) for sample in samples],
    )
