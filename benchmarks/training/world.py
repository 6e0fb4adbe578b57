"""One model and one picture set, as both sides of a timed training step see them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from rich.console import Console

from oracle import Sizes, build_tiny_pipeline
from parity.theirs import Theirs
from sampan.checkpoint import export
from sampan.data.transforms import grid_patches
from sampan.frameworks import device as dev
from sampan.frameworks import io, train_step
from sampan.job.sections import DataSection, Job, ModelSection, PlaceSection, TrainSection
from sampan.job.stages import ARStage, DecoderStage, StagesSection
from sampan.losses import tokens
from sampan.models import positions
from sampan.models.build import build
from sampan.models.text import glyph_batch
from sampan.samplers import euler
from sampan.train import stages
from sampan.train.run_state import RunState, open_run
from sampan.train.schedule import learning_rate
from training import library


@dataclass(frozen=True)
class World:
    """One model and one picture set, as both sides see them."""

    pipeline: Any
    work: RunState

    @cached_property
    def theirs(self) -> Theirs:
        return Theirs(self.pipeline)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Each sample's number by its key."""
        return {sample.key: number for number, sample in enumerate(self.work.data.samples)}


def make_world(
    folder: Path,
    *,
    sizes: Sizes,
    resolutions_px: tuple[int, ...],
    num_pictures: int,
    num_steps: int,
    micro_batch_size: Mapping[str, int],
) -> World:
    """Return a model with random weights and a drawn picture set, both written to a folder, opened and encoded."""
    write_pictures(folder / "pictures", num_pictures, resolutions_px)
    pipeline = build_tiny_pipeline(folder / "model", sizes=sizes)
    given = {"num_steps": num_steps, "lr": 1e-4}
    job = Job(
        out=folder / "run",
        model=ModelSection(start=folder / "model"),
        data=DataSection(path=folder / "pictures", resolutions_px=resolutions_px, workers=0),
        place=PlaceSection(device="cpu", dtype="fp32"),
        train=TrainSection(stages=("ar", "decoder")),
        stage=StagesSection(
            # a script on the libraries trains the whole table of tokens
            ar=ARStage(micro_batch_size=micro_batch_size["ar"], freeze_text=False, **given),
            decoder=DecoderStage(micro_batch_size=micro_batch_size["decoder"], **given),
        ),
    )
    work = open_run(job, "cpu", "fp32", resume=False, console=Console(quiet=True))
    work.encoded()
    return World(pipeline, work)


def write_pictures(folder: Path, count: int, resolutions_px: Sequence[int]) -> None:
    """Draw `count` pictures and each again with its subject in another colour; the second is an edit of the first.

    Captions have no word in quotes, so that the decoder's rows are all of one length and nobody needs a mask.
    """
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    names = ("square", "boat", "red apple", "small house by the sea", "tree", "lantern hanging over a quiet street")
    for number in range(count):
        side = 1.1 * resolutions_px[number % len(resolutions_px)]
        stretch = (1.0, 1.2, 1 / 1.2)[number // len(resolutions_px) % 3]
        width, height = round(side * stretch), round(side / stretch)
        corner = random.uniform(0.1, 0.4, 2) * (width, height)
        box = (*corner, *(corner + random.uniform(0.3, 0.5, 2) * (width, height)))
        ground = random.integers(0, 256, 3) + random.normal(0, 12, (height, width, 3))
        for kind in ("plain", "edit"):
            image = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
            ImageDraw.Draw(image).ellipse(box, fill=tuple(int(v) for v in random.integers(0, 256, 3)))
            image.save(folder / f"{number}-{kind}.png")
        what = names[number % len(names)]
        rows.append({"file_name": f"{number}-plain.png", "text": f"picture {number} of a {what}"})
        edit = {"file_name": f"{number}-edit.png", "text": f"give the {what} another colour"}
        rows.append({**edit, "references": [f"{number}-plain.png"]})
    lines = [json.dumps(row) + "\n" for row in rows]
    (folder / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")


# --- our side ----------------------------------------------------------------------------------------------------------


class Ours:
    """One stage, taking steps as the training loop does."""

    def __init__(self, world: World, name: str):
        self.settings = settings = getattr(world.work.job.stage, name)
        members = world.work.data.training
        if name == "decoder":  # text-to-image scripts know no references
            members = tuple(i for i in members if not world.work.data.references_of[i])
        self.stage = stages.make(name, world.work.stage_inputs(settings, members))
        self.module = build(name, world.work.config)
        io.put_weights(self.module, export.part_tensors(world.work.out, name, world.work.start))
        self.updater = train_step.TrainStep(
            self.module,
            lr=settings.lr,
            beta1=settings.beta1,
            beta2=settings.beta2,
            weight_decay=settings.weight_decay,
            clip_norm=settings.clip_norm,
            ema_decay=settings.ema_decay,
            autocast="fp32",
        )

    def lr_at(self, step: int) -> float:
        """Return the learning rate of a step."""
        s = self.settings
        return learning_rate(step, s.num_steps, s.warmup_steps, s.lr, s.min_lr_ratio)

    def step(self, step: int) -> float:
        """Draw and take a step; return its loss."""
        drawn = self.stage.draw(step, 0).arrays
        arrays = tuple(a if a is None or isinstance(a, tuple) else dev.array(a, "cpu") for a in drawn)
        return self.updater.step(self.stage.loss, [arrays], self.lr_at(step)).loss

    def optimizer(self) -> library.Optimizer:
        """Return the settings for the other side."""
        s = self.settings
        return library.Optimizer(s.lr, s.beta1, s.beta2, s.weight_decay, s.clip_norm, s.ema_decay, self.lr_at)


# --- the same draws for their side -------------------------------------------------------------------------------------


def decoder_batch(world: World, drawn: stages.HostBatch) -> library.DecoderBatch:
    """Return what our draw of the decoder holds, as a script's data loader would give it."""
    work = world.work
    _, noise, sigma, _, priors, keep, times, _, _, _, mask, *references = drawn.arrays
    assert mask is None and not references, "captions without quotes and rows without references need no mask"
    chosen = [work.data.image_of[world.numbers[key]] for key in drawn.keys]
    size = work.data.pictures.size_of(chosen[0])
    ids = np.stack([positions.upsample_ids(work.encoded().target_ids(i), work.config.upsample) for i in chosen])
    given = torch.from_numpy(priors)
    pixels = work.config.vae.factor * work.config.dit.patch_size
    mu = euler.shift(size[0] * size[1] // pixels**2, work.config.scheduler)
    # the time that the network is told, from the noise level: the shift undone
    unshifted = 1 / (1 + mu * (1 / sigma.astype(np.float64) - 1))
    t = np.maximum(1000 * unshifted - 1, 0).astype(np.float32)
    assert np.allclose(positions.sinusoid(t, work.config.dit.time_embed_dim), times, atol=1e-3), "another time"
    glyph_ids, glyph_mask = (np.repeat(a, len(chosen), 0) for a in glyph_batch(()))
    return library.DecoderBatch(
        pixels=torch.from_numpy(work.data.pictures.arrays(chosen)),
        views=_views(world, [(i, work.config.geometry.prior_grid(*size)) for i in chosen]),
        glyph_ids=torch.from_numpy(glyph_ids),
        glyph_mask=torch.from_numpy(glyph_mask).long(),
        noise=torch.from_numpy(noise),
        sigma=torch.from_numpy(sigma),
        t=torch.from_numpy(t),
        drop=torch.from_numpy(keep) == 0,
        replaced=given != torch.from_numpy(ids).flatten(1),
        replacement=given,
        size=torch.tensor([size] * len(chosen), dtype=torch.float32),
        crop=torch.tensor([work.data.pictures.crop_of(i) for i in chosen], dtype=torch.float32),
    )


def ar_batch(world: World, drawn: stages.HostBatch) -> library.ARBatch:
    """Return the samples of our draw of the generator, padded on the right."""
    rows = [_sequence(world, world.numbers[key]) for key in drawn.keys]
    width = max(len(row.ids) for row in rows)
    pad = world.work.config.ar.text.pad_token_id

    def padded(values: Sequence[np.ndarray], with_what: int) -> torch.Tensor:
        wide = [
            np.pad(v, [(0, 0)] * (v.ndim - 1) + [(0, width - v.shape[-1])], constant_values=with_what) for v in values
        ]
        return torch.from_numpy(np.stack(wide, -2))

    return library.ARBatch(
        views=_views(world, [view for row in rows for view in row.views]),
        ids=padded([row.ids for row in rows], pad),
        mask=padded([np.ones(len(row.ids), np.int64) for row in rows], 0),
        positions=padded([row.positions for row in rows], 1),
        weights=padded([row.weights for row in rows], 0),
    )


@dataclass(frozen=True)
class _Sequence:
    """One sample of the generator: ids with placeholders, positions (3, tokens), label weights, and its pictures."""

    ids: np.ndarray
    positions: np.ndarray
    weights: np.ndarray
    views: tuple[tuple[int, positions.Grid], ...]


def _sequence(world: World, index: int) -> _Sequence:
    data, config, theirs = world.work.data, world.work.config, world.theirs
    picture, references = data.image_of[index], data.references_of[index]
    (caption,), size = data.samples[index].captions, data.pictures.size_of(picture)
    images = [data.pictures[i] for i in references]
    target, preview = config.geometry.prior_grid(*size), config.geometry.preview_grid(*size)
    grids = [config.geometry.prior_grid(*data.pictures.size_of(i)) for i in references]
    prompt = world.work.prompt_tokenizer.encode(caption, target, None if references else preview, grids)
    ids = theirs.prompt_ids(caption, size, images)
    assert np.array_equal(ids, prompt.ids), "the prompts differ"
    before, after = theirs.positions([caption], size, images)
    written = [(picture, target)] if references else [(picture, preview), (picture, target)]
    num_target = target[0] * target[1]
    num_preview = 0 if references else preview[0] * preview[1]
    placeholders = np.full(num_preview + num_target, theirs.placeholder)
    weights = tokens.token_weights(num_preview, num_target, tokens.preview_weight(num_preview, num_target))
    return _Sequence(
        np.concatenate([ids, placeholders, [config.ar.text.eos_token_id]]),
        np.concatenate([before[:, 0], after[0]], axis=1),
        np.concatenate([np.zeros(len(ids), np.float32), weights]),
        (*zip(references, grids, strict=True), *written),
    )


def _views(world: World, wanted: Sequence[tuple[int, positions.Grid]]) -> library.Views:
    patch, pictures = world.work.config.processor.patch_size, world.work.data.pictures
    patches = [grid_patches(pictures[index], grid, patch) for index, grid in wanted]
    return library.Views(torch.from_numpy(np.concatenate(patches)), torch.tensor([[1, *grid] for _, grid in wanted]))
