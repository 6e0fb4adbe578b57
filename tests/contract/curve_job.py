"""The small run whose loss curves are compared: its job, its pictures, and what stands for the frozen parts' work.

Pictures, captions and draws are real. What generator and decoder are trained on (ids, latents, embeddings of words) comes
from random numbers and not from the trained frozen parts, so that every framework's stages see the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from sampan import job as jobs
from sampan.samplers import noise

STAGES = ("vae", "tokenizer", "glyph", "ar", "decoder")
NUM_STEPS = 50

_JOB = """
out = "{out}"
seed = 4

[data]
path = "{pictures}"
workers = 0

[model]
preset = "nano"
override.geometry = {{ prior_px = 16, preview_side = 2, default_px = 64 }}
override.processor = {{ min_pixels = 1024, max_pixels = 65536 }}
override.vae = {{ block_out_channels = [8, 8, 16], norm_num_groups = 4, sample_size = 64 }}
override.vision = {{ depth = 1, hidden_size = 48, intermediate_size = 80, num_heads = 3, image_size = 64 }}
override.vq = {{ num_embeddings = 32, embed_dim = 16, latent_channels = 48 }}
override.glyph = {{ d_model = 32, d_kv = 8, d_ff = 48, num_layers = 2, num_heads = 4 }}

[model.override.text]
hidden_size = 64
intermediate_size = 96
num_hidden_layers = 2
mrope_section = [1, 1, 2]

[model.override.dit]
num_layers = 2
attention_head_dim = 16
num_attention_heads = 2
text_embed_dim = 32
time_embed_dim = 32
condition_dim = 8

[stage.vae]
num_steps = 50
micro_batch_size = 2
crop_px = 32

[stage.tokenizer] # few codes and small steps: which of two near codes a feature takes is not left to rounding
num_steps = 50
micro_batch_size = 4
lr = 3e-4

[stage.glyph]
num_steps = 50
micro_batch_size = 4

[stage.ar]
num_steps = 50
micro_batch_size = 2
grad_accum_steps = 2

[stage.decoder]
num_steps = 50
micro_batch_size = 2
"""


def read(folder: Path, framework: str) -> jobs.Job:
    """Return the job, with a run folder of the framework's own."""
    return jobs.parse(_JOB.format(out=folder / f"run-{framework}", pictures=folder / "pictures"))


def write_pictures(folder: Path) -> None:
    """Write a few pictures with captions, some of them with words to be drawn; two are edits of another."""
    place = folder / "pictures"
    place.mkdir()
    random = np.random.default_rng(0)
    lines: list[dict[str, Any]] = []
    for number in range(6):
        waves = np.add.outer(np.arange(64) * random.random(), np.arange(64) * random.random())
        values = 127 * (1 + np.sin(waves[..., None] / 4 + random.random(3) * 6))
        Image.fromarray(values.astype(np.uint8)).save(place / f"{number}.png")
        words = ('a sign that says "Ahoy"', "waves of colour", 'stripes and "No 7"')[number % 3]
        lines.append({"file_name": f"{number}.png", "text": f"{words}, number {number}"})
    lines += [
        {"file_name": f"{number}.png", "text": f"turn it, {number}", "references": [f"{number + 1}.png"]}
        for number in range(2)
    ]
    (place / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")


class Drawn:
    """Ids, latents and embeddings out of random numbers, in the place of `sampan.data.encode.EncodedInputs`."""

    def __init__(self, config: Any):
        self.config = config
        size = config.geometry.default_px
        self.grid = config.geometry.prior_grid(size, size)
        self.preview = config.geometry.preview_grid(size, size)
        self.cells = size // config.vae.factor

    def target_ids(self, picture: int) -> Any:
        return self._random("target", picture).integers(0, self.config.ar.vq.num_embeddings, self.grid)

    def preview_ids(self, picture: int) -> Any:
        return self._random("preview", picture).integers(0, self.config.ar.vq.num_embeddings, self.preview)

    def latents(self, pictures: Sequence[int]) -> Any:
        shape = (self.config.dit.in_channels, self.cells, self.cells)
        return np.stack([self._random("latent", p).standard_normal(shape, np.float32) for p in pictures])

    def glyph(self, texts: tuple[str, ...]) -> Any:
        length = 1 + sum(len(text.encode()) for text in texts)
        return self._random("/".join(("glyph", *texts))).standard_normal(
            (length, self.config.glyph.d_model), np.float32
        )

    def _random(self, what: str, *coordinates: int) -> np.random.Generator:
        return noise.generator(0, "contract/" + what, *coordinates)


def open_run(job: jobs.Job) -> Any:
    """Return the run's workspace, on the CPU in fp32."""
    from sampan.train.run_state import open_run

    work = open_run(job, "cpu", "fp32", resume=False, console=Console(quiet=True))
    work._encoded = Drawn(work.config)  # pyright: ignore[reportAttributeAccessIssue]
    return work


def open_stage(job: jobs.Job, name: str) -> Any:
    """Return one stage by what its draws and its loss need, for a framework that has no runs."""
    from sampan.models import presets, text
    from sampan.train.dataset import open_dataset
    from sampan.train.stages import StageInputs, caption_texts, make

    config = presets.get(job.model.preset, job.model.override)
    data = open_dataset(job.data, config, job.out / "cache", Console(quiet=True))
    words, codes = config.ar.text, config.ar.vq.num_embeddings
    learned = text.train_tokenizer(
        caption_texts(data.samples[i] for i in data.training),
        words.vision_vocab_size,
        codes,
        words.vocab_size - words.vision_vocab_size - text.NUM_SPECIALS,
    )
    config = text.with_token_ids(config, learned)
    tokenizer = text.PromptTokenizer(learned["tokenizer.json"].decode(), json.loads(learned["tokenizer_config.json"]))
    context = StageInputs(
        settings=getattr(job.stage, name),
        seed=job.seed,
        config=config,
        samples=data.samples,
        image_of=data.image_of,
        references_of=data.references_of,
        members=data.training,
        pictures=data.pictures,
        prompt_tokenizer=tokenizer,
        device="cpu",
        module_dtype="fp32",
        adapting=False,
        frozen=_nothing,
        encoded=lambda: Drawn(config),
        paint_ids=_nothing,
    )
    return make(name, context)


def _nothing(*_: Any) -> Any:
    raise AssertionError("drawing and losses ask for no trained part")
