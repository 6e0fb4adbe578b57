"""Sizes that are measured, and the batches of them: drawn on the host, the same for every framework. Loads no framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampan.bench.backends import PARTS
from sampan.errors import RequestError
from sampan.job import Job
from sampan.models import positions, presets
from sampan.models.config import ModelConfig
from sampan.samplers import noise

Arrays = dict[str, NDArray[Any]]
NUM_PROMPT, NUM_GLYPH = 24, 16  # tokens of a prompt, and of the words that are drawn
_PREVIEW_WEIGHT = 4.0  # the greatest that training gives a preview token


@dataclass(frozen=True)
class BenchShape:
    """A model's size, and what one step sees.

    Args:
        preset, override: As sampan.models.presets.get takes them.
        px: Side of a picture.
        micro_batch_size: Pictures in a step, by part.
        origin: Where it comes from, in words.
    """

    preset: str
    px: int
    micro_batch_size: Mapping[str, int]
    override: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    origin: str = "built in"

    @property
    def config(self) -> ModelConfig:
        """The model's config."""
        return presets.get(self.preset, self.override)

    @property
    def model(self) -> dict[str, Any]:
        """The model's preset and override as plain values."""
        return {"preset": self.preset, "override": {part: dict(values) for part, values in self.override.items()}}

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "origin": self.origin,
            **self.model,
            "px": self.px,
            "micro_batch_size": dict(self.micro_batch_size),
        }


# a step of either part takes PyTorch about a second on two CPU cores
BUILT_IN = BenchShape(
    "nano",
    256,
    {"ar": 4, "decoder": 4},
    {
        "text": {"hidden_size": 384, "intermediate_size": 1024, "num_attention_heads": 6},
        "dit": {"num_attention_heads": 6},
    },
)
# every array of it is written and read at every step of a comparison
SMALL = BenchShape("nano", 128, dict.fromkeys(PARTS, 2), {"text": {"num_hidden_layers": 2}, "dit": {"num_layers": 2}})


def of_job(job: Job) -> BenchShape:
    """Return a job's model and micro-batches; of its resolutions the largest.

    Raises:
        RequestError: Its pictures do not divide into tokens.
    """
    config = presets.get(job.model.preset, job.model.override)
    cell = np.lcm(config.geometry.prior_px, config.vae.factor * config.dit.patch_size)
    px = max(job.data.resolutions_px, default=config.geometry.default_px)
    if px % cell:
        raise RequestError(
            f"a picture of {px}×{px} px cannot be measured",
            f"this model's tokens stand for {cell} px",
            f"set data.resolutions_px to a multiple of {cell}",
        )
    sizes = {part: getattr(job.stage, part).micro_batch_size for part in PARTS}
    return BenchShape(job.model.preset, px, sizes, job.model.override, origin="the job")


def batch(part: str, shape: BenchShape, seed: int) -> Arrays:
    """Return what the loss of a part takes after the module, by name and in order (sampan.bench.blocks)."""
    random = noise.generator(seed, f"bench/{part}")
    draw = {"ar": _ar, "decoder": _decoder}[part]
    return draw(shape.config, shape.px, shape.micro_batch_size[part], random)


def block_batch(part: str, num_tokens: int, seed: int) -> Arrays:
    """Return what the loss of one block of the released size takes after the module."""
    config, random = presets.get("glm-image"), noise.generator(seed, f"bench/block/{part}")
    if part == "ar":
        text = config.ar.text
        places = positions.text_positions(0, num_tokens)[:, None]
        cos, sin = positions.rope_text(places, text)
        return {"x": random.standard_normal((1, num_tokens, text.hidden_size), np.float32), "cos": cos, "sin": sin}
    dit, num_image = config.dit, num_tokens - NUM_GLYPH
    cos, sin = positions.rope_image((1, num_image), dit.attention_head_dim, NUM_GLYPH)
    return {
        "x": random.standard_normal((1, num_image, dit.dim), np.float32),
        "text": random.standard_normal((1, NUM_GLYPH, dit.dim), np.float32),
        "condition": random.standard_normal((1, dit.time_embed_dim), np.float32),
        "cos": cos,
        "sin": sin,
    }


def block_tokens(part: str, px: int = 1024) -> int:
    """Return how many tokens a block of the released size sees of one picture: prompt or words, and the picture's own."""
    config = presets.get("glm-image")
    if part == "ar":
        rows, columns = config.geometry.prior_grid(px, px)
        preview_rows, preview_columns = config.geometry.preview_grid(px, px)
        return NUM_PROMPT + preview_rows * preview_columns + rows * columns
    return NUM_GLYPH + (px // (config.vae.factor * config.dit.patch_size)) ** 2


def save(path: Path, arrays: Arrays) -> None:
    """Write a batch; `load` returns it in the same order."""
    np.savez(path, **{f"{number:02d} {name}": array for number, (name, array) in enumerate(arrays.items())})


def load(path: Path) -> list[Any]:
    """Return the arrays that `save` wrote; what is no array to a loss but a constant of it comes as a tuple."""
    with np.load(path) as stored:
        return [
            tuple(int(n) for n in stored[name]) if name.endswith(" segments") else stored[name]
            for name in sorted(stored.files)
        ]


def _ar(config: ModelConfig, px: int, count: int, random: np.random.Generator) -> Arrays:
    """Return samples packed one after another into a row, as the generator's training has them."""
    text, codes = config.ar.text, config.ar.vq.num_embeddings
    grids = [config.geometry.preview_grid(px, px), config.geometry.prior_grid(px, px)]
    num_preview, num_target = (rows * columns for rows, columns in grids)
    num_generated = num_preview + num_target
    length = NUM_PROMPT + num_generated
    prefix, following = positions.prompt_positions(NUM_PROMPT)
    places = np.concatenate([prefix, positions.generated_positions(following, grids)[:, :-1]], axis=1)
    cos, sin = positions.rope_text(np.tile(places, (1, count))[:, None], text)
    prompts = random.integers(text.vision_vocab_size, text.vocab_size, (count, NUM_PROMPT))
    prompts[:, -1] = config.ar.image_start_token_id
    written = random.integers(0, codes, (count, num_generated))
    ends = np.arange(1, count + 1) * length
    weights = np.concatenate([np.full(num_preview, _PREVIEW_WEIGHT), np.ones(num_target + 1)]).astype(np.float32)
    return {
        "ids": np.concatenate([prompts, written], axis=1).reshape(1, -1),
        "cos": cos,
        "sin": sin,
        "read_at": np.concatenate([np.arange(end - num_generated - 1, end) for end in ends]),
        "labels": np.pad(written, ((0, 0), (0, 1)), constant_values=text.eos_token_id).reshape(1, -1),
        "weights": np.tile(weights, count)[None],
        "segments": np.full(count, length),
    }


def _decoder(config: ModelConfig, px: int, count: int, random: np.random.Generator) -> Arrays:
    dit, cells = config.dit, px // config.vae.factor
    side = cells // dit.patch_size
    sigma = random.uniform(0.05, 0.95, count).astype(np.float32)
    prior = random.integers(0, config.ar.vq.num_embeddings, (count, *config.geometry.prior_grid(px, px)))
    cos, sin = positions.rope_image((side, side), dit.attention_head_dim, NUM_GLYPH)
    return {
        "clean": random.standard_normal((count, dit.in_channels, cells, cells), np.float32),
        "noise": random.standard_normal((count, dit.in_channels, cells, cells), np.float32),
        "sigma": sigma,
        "embeds": random.standard_normal((count, NUM_GLYPH, dit.text_embed_dim), np.float32),
        "prior": positions.upsample_ids(prior, config.upsample).reshape(count, -1),
        "keep": np.ones(count, np.float32),
        "times": positions.sinusoid(1000 * sigma, dit.time_embed_dim),
        "sizes": positions.size_features((0, 0), (px, px), dit.condition_dim, count),
        "cos": cos,
        "sin": sin,
    }


def output_file(folder: Path, call: int, place: int) -> Path:
    """Return the file of one array of one call of an operation, as a step that is recorded writes them."""
    return folder / f"{call:06d}-{place}.npy"
