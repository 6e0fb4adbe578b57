"""The stages of a training run: what each trains, on what, and by which loss.

A stage module offers `make(inputs) -> Stage`; the loop does the rest.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sampan.data.encode import EncodedInputs
from sampan.data.image_cache import ImageCache
from sampan.data.image_source import ImageSource
from sampan.data.readers import Sample
from sampan.models.config import ModelConfig
from sampan.models.text import PromptTokenizer

STAGES = {
    "vae": "sampan.train.stages.vae:make",
    "tokenizer": "sampan.train.stages.tokenizer:make",
    "glyph": "sampan.train.stages.glyph:make",
    "ar": "sampan.train.stages.ar:make",
    "decoder": "sampan.train.stages.decoder:make",
}

Rows = dict[str, tuple[np.ndarray, np.ndarray]]  # parameter name to row numbers and their new values


@dataclass(frozen=True)
class StageInputs:
    """What a stage may draw on.

    Args:
        settings: This stage's section of the job.
        samples: The data set; `image_of[i]` is sample i's picture number, `references_of[i]` those of its references.
        members: Numbers of the samples that are drawn from: those of training, or those of validation.
        pictures: Every picture once, targets and references.
        adapting: Training starts from a folder's weights.
        module_dtype: Of the weights that are trained, for what uses them outside training.
        frozen: Returns a part that is finished, on the device, out of training.
        encoded: Returns the pictures as the finished tokenizer and autoencoder see them.
        paint_ids: Returns a function that makes an image of visual ids (rows, columns), for a look at them.
    """

    settings: Any
    seed: int
    config: ModelConfig
    samples: Sequence[Sample]
    image_of: Sequence[int]
    references_of: Sequence[tuple[int, ...]]
    members: Sequence[int]
    pictures: ImageCache
    prompt_tokenizer: PromptTokenizer
    device: str
    module_dtype: str
    adapting: bool
    frozen: Callable[[str], Any]
    encoded: Callable[[], EncodedInputs]
    paint_ids: Callable[[], Callable[[Any], Any]]

    @property
    def num_blocks(self) -> int:
        """Micro-batches that the stage draws in all."""
        return self.settings.num_steps * self.settings.grad_accum_steps

    def block(self, step: int, micro: int) -> int:
        """Return the number of a micro-batch, counted through the stage."""
        return step * self.settings.grad_accum_steps + micro

    def rows(self, micro: int) -> range:
        """Return the places of a micro-batch's samples in the step's global batch, by which their draws are keyed."""
        size = self.settings.micro_batch_size
        return range(micro * size, (micro + 1) * size)

    def picture_members(self) -> list[int]:
        """Return the numbers of the pictures that the members have, references included."""
        return sorted({p for i in self.members for p in (self.image_of[i], *self.references_of[i])})

    def caption(self, sample: int, random: np.random.Generator) -> str:
        """Return one of a sample's captions, drawn."""
        captions = self.samples[sample].captions
        return captions[int(random.integers(len(captions)))]


@dataclass(frozen=True)
class HostBatch:
    """One micro-batch on the host.

    Args:
        arrays: What the loss takes after the module. NumPy arrays are brought to the device; tuples stay as they are.
        keys: Names of its samples, for a report of what went wrong.
    """

    arrays: tuple[Any, ...]
    keys: tuple[str, ...] = ()


@dataclass
class TrainableStage:
    """One stage, ready for the loop.

    Args:
        module: What is trained, heads that are not exported included; on the meta device until the loop gives it weights.
        prefix: Where in it the part's own weights stand ("" when it is the part).
        draw: Returns the batch of (step, micro-batch).
        loss: Called with the module and a batch's arrays on the device; returns a scalar, and by name numbers for the log
            and arrays for `after`. It keeps nothing, so that a framework may compile it.
        after: Called after every step with its number and the arrays of its last micro-batch; returns numbers to log, and
            rows of weight tables to overwrite (dead codes).
        finish: Called once at the end with the finished part; returns what changes in the model's config.
        measure: Called at the end with the trained module; returns numbers that say how well it does what it is for.
        sample: Called now and then with the trained module; returns a picture of what it does, of given samples.
        extra: Host arrays that a checkpoint must keep beside weights and moments.
        frozen_rows: Parameter name to the first of its rows that is never changed.
        delayed: Parameter name to the step at which its training begins.
        num_extra: Returns how often (step, micro-batch) goes through the blocks beside once; None: never. Ranks that share
            the blocks' weights do it equally often.
        idle: Returns a batch that goes through the blocks so many times more, for nothing.
    """

    module: Any
    draw: Callable[[int, int], HostBatch]
    loss: Callable[..., Any]
    prefix: str = ""
    after: Callable[[int, Mapping[str, np.ndarray]], tuple[dict[str, float], Rows]] | None = None
    finish: Callable[[Any], ModelConfig] | None = None
    measure: Callable[[Any], dict[str, float]] | None = None
    sample: Callable[[Any, Sequence[int]], Any] | None = None
    extra: dict[str, np.ndarray] = field(default_factory=dict)
    frozen_rows: dict[str, int] = field(default_factory=dict)
    delayed: dict[str, int] = field(default_factory=dict)
    num_extra: Callable[[int, int], int] | None = None
    idle: Callable[[HostBatch, int], HostBatch] | None = None


def make(name: str, inputs: StageInputs) -> TrainableStage:
    """Return a stage by name."""
    module, function = STAGES[name].split(":")
    return getattr(importlib.import_module(module), function)(inputs)


def caption_texts(samples: Iterable[Sample]) -> list[str]:
    """Return every caption once, in order."""
    return list(dict.fromkeys(caption for sample in samples for caption in sample.captions))


def unique_pictures(samples: Iterable[Sample]) -> tuple[list[ImageSource], list[int], list[tuple[int, ...]]]:
    """Return every picture once, each sample's picture number, and each sample's reference numbers."""
    numbers: dict[ImageSource, int] = {}
    image_of: list[int] = []
    references_of: list[tuple[int, ...]] = []
    for sample in samples:
        for source in (sample.image, *sample.references):
            numbers.setdefault(source, len(numbers))
        image_of.append(numbers[sample.image])
        references_of.append(tuple(numbers[source] for source in sample.references))
    return list(numbers), image_of, references_of
