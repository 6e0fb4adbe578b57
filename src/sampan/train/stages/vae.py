"""The autoencoder, on crops: absolute error, edges at several scales, and a light pull of latents to the normal."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from sampan.data.batches import ShapeGroups
from sampan.frameworks import device as dev
from sampan.losses.stages import vae_loss
from sampan.models.build import build_on_meta
from sampan.models.config import ModelConfig
from sampan.samplers import noise
from sampan.train import sample_grid
from sampan.train.stages import HostBatch, StageInputs, TrainableStage

_STATISTICS_PICTURES = 512  # enough for means and deviations to two digits


def make(inputs: StageInputs) -> TrainableStage:
    """Return the stage; at its end the latents' mean and deviation per channel are measured and set in the config."""
    settings, vae, seed = inputs.settings, inputs.config.vae, inputs.seed
    pictures, members = inputs.pictures, inputs.picture_members()
    batch = settings.micro_batch_size
    sizes = [pictures.size_of(i) for i in members]
    crop = min(settings.crop_px or 0, *(min(size) for size in sizes))
    crop -= crop % vae.factor
    # crops of one side come from pictures of any size; whole pictures make a batch of one size
    kinds = [0 if crop else size for size in sizes]
    order = ShapeGroups(members, kinds, inputs.num_blocks, batch, seed, "vae")

    def draw(step: int, micro: int) -> HostBatch:
        chosen = order.take(inputs.block(step, micro))
        images, draws = [], []
        for row, index in zip(inputs.rows(micro), chosen, strict=True):
            random = noise.generator(seed, "vae", step, row)
            image = pictures.arrays([index])[0]
            height, width = (crop, crop) if crop else image.shape[1:]
            top, left = (
                int(random.integers(0, n - k + 1)) for n, k in zip(image.shape[1:], (height, width), strict=True)
            )
            piece = image[:, top : top + height, left : left + width]
            images.append(piece[:, :, ::-1] if random.random() < 0.5 else piece)
            cells = (height // vae.factor, width // vae.factor)
            draws.append(random.standard_normal((vae.latent_channels, *cells), np.float32))
        return HostBatch((np.stack(images), np.stack(draws)), tuple(pictures.name_of(i) for i in chosen))

    def loss(module: Any, images: Any, draws: Any) -> tuple[Any, dict[str, Any]]:
        return vae_loss(
            module, images, draws, perceptual_weight=settings.perceptual_weight, kl_weight=settings.kl_weight
        )

    def finish(part: Any) -> ModelConfig:
        by_size: dict[Any, list[int]] = defaultdict(list)
        for index in members[:_STATISTICS_PICTURES]:
            by_size[pictures.size_of(index)].append(index)
        found = []
        for group in by_size.values():
            for first in range(0, len(group), batch):
                images = pictures.arrays(group[first : first + batch])
                with dev.no_grad():
                    latents = dev.to_numpy(part.encoder(dev.array(images, inputs.device))[0])
                found.append(latents.transpose(1, 0, 2, 3).reshape(latents.shape[1], -1))
        cells = np.concatenate(found, axis=1)
        mean, std = cells.mean(1), np.maximum(cells.std(1), 1e-4)
        measured = dataclasses.replace(vae, latents_mean=tuple(map(float, mean)), latents_std=tuple(map(float, std)))
        return dataclasses.replace(inputs.config, vae=measured)

    def measure(module: Any) -> dict[str, float]:
        """Return the peak signal-to-noise ratio of whole pictures, in decibels, averaged."""
        found = []
        for index in members[:_STATISTICS_PICTURES]:
            image = pictures.arrays([index])
            error = np.mean((np.clip(again(module, image), -1, 1) - image) ** 2)
            found.append(10 * np.log10(4 / max(float(error), 1e-10)))  # the range is 2, its square 4
        return {"psnr_db": float(np.mean(found))}

    def again(module: Any, images: Any) -> Any:
        with dev.no_grad():
            return dev.to_numpy(module.decoder(module.encoder(dev.array(images, inputs.device))[0]))

    def sample(module: Any, chosen: Sequence[int]) -> Any:
        shown = [inputs.image_of[i] for i in chosen]
        painted = [again(module, pictures.arrays([i]))[0] for i in shown]
        return sample_grid.pairs([pictures[i] for i in shown], painted, [inputs.samples[i].captions[0] for i in chosen])

    return TrainableStage(
        build_on_meta("vae", inputs.config), draw, loss, finish=finish, measure=measure, sample=sample
    )
