"""The autoencoder, on crops: absolute error, edges at several scales, and a light pull of latents to the normal."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from sampan.data.batches import Order
from sampan.frameworks import device as dev
from sampan.frameworks import ops
from sampan.losses import autoencoder
from sampan.models.build import build
from sampan.models.config import ModelConfig
from sampan.samplers import noise
from sampan.train.stages import Context, Stage

_STATISTICS_PICTURES = 512  # enough for means and deviations to two digits


def make(context: Context) -> Stage:
    """Return the stage; at its end the latents' mean and deviation per channel are measured and set in the config."""
    settings, vae, seed = context.settings, context.config.vae, context.seed
    pictures = context.pictures
    order = Order(range(len(pictures)), seed, "vae/order")
    batch, accumulate = settings.micro_batch_size, settings.grad_accum_steps
    crop = min(settings.crop_px or pictures.height_px, pictures.height_px, pictures.width_px)
    crop -= crop % vae.factor

    def draw(step: int, micro: int) -> tuple[np.ndarray, ...]:
        chosen = order.take((step * accumulate + micro) * batch, batch)
        random = noise.generator(seed, "vae/crop", step, micro)
        images = []
        for image in pictures.arrays(chosen):
            top, left = (int(random.integers(0, side - crop + 1)) for side in image.shape[1:])
            piece = image[:, top : top + crop, left : left + crop]
            images.append(piece[:, :, ::-1] if random.random() < 0.5 else piece)
        cells = crop // vae.factor
        return np.stack(images), random.standard_normal((batch, vae.latent_channels, cells, cells), np.float32)

    def loss(module: Any, images: Any, draws: Any) -> tuple[Any, dict[str, Any]]:
        painted, mean, log_variance = module(images, draws)
        painted = ops.cast(painted, ops.float32)
        error = ops.mean(ops.abs(painted - images))
        edges = autoencoder.edge_loss(painted, images)
        kl = autoencoder.divergence(ops.cast(mean, ops.float32), ops.cast(log_variance, ops.float32))
        total = error + settings.perceptual_weight * edges + settings.kl_weight * kl
        square = ops.mean((painted - images) * (painted - images))
        return total, {"l1": error, "edges": edges, "kl": kl, "mse": square}

    def finish(part: Any) -> ModelConfig:
        found = []
        for first in range(0, min(len(pictures), _STATISTICS_PICTURES), batch):
            images = pictures.arrays(range(first, min(first + batch, len(pictures))))
            with dev.no_grad():
                found.append(dev.to_numpy(part.encoder(dev.array(images, context.device))[0]))
        latents = np.concatenate(found)
        mean, std = latents.mean((0, 2, 3)), np.maximum(latents.std((0, 2, 3)), 1e-4)
        measured = dataclasses.replace(vae, latents_mean=tuple(map(float, mean)), latents_std=tuple(map(float, std)))
        return dataclasses.replace(context.config, vae=measured)

    return Stage(build("vae", context.config), draw, loss, finish=finish)
