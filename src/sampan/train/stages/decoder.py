"""The decoder: velocity of a rectified flow from cached latents, prior ids and glyph embeddings, with references.

Conditions are dropped as guidance and robustness need: everything at once (the unconditional branch), the words alone, the
references alone; and a share of prior ids is replaced at random, because at use the generator makes mistakes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sampan.data.encode import glyph_embeds
from sampan.losses import flow
from sampan.models import positions
from sampan.models.build import build
from sampan.models.dit import join_references
from sampan.models.text import glyph_texts
from sampan.samplers import euler, noise
from sampan.train.stages import Context, Stage
from sampan.train.stages.ar import KindOrder


def make(context: Context) -> Stage:
    """Return the stage."""
    settings, config, seed = context.settings, context.config, context.seed
    dit, encoded = config.dit, context.encoded()
    order = KindOrder(context, "decoder")
    glyph = context.frozen("glyph")
    words: dict[tuple[str, ...], np.ndarray] = {}

    def embeds_of(texts: tuple[str, ...]) -> np.ndarray:
        if texts not in words:
            words[texts] = glyph_embeds(glyph, texts, config, context.device)
        return words[texts]

    height, width = encoded.latents.shape[-2:]
    grid = (height // dit.patch_size, width // dit.patch_size)
    num_image = grid[0] * grid[1]
    size = (context.pictures.height_px, context.pictures.width_px)
    mu = euler.shift(num_image, config.scheduler)
    codes = config.ar.vq.num_embeddings
    reference_tables = positions.rope_image(grid, dit.attention_head_dim, 0)

    def draw(step: int, micro: int) -> tuple[np.ndarray, ...]:
        chosen = order.take(step * settings.grad_accum_steps + micro, settings.micro_batch_size)
        count = len(chosen)
        random = noise.generator(seed, "decoder/draw", step, micro)
        pictures = [context.image_of[i] for i in chosen]
        clean = encoded.latents[pictures]
        sigma, t = flow.flow_times(random.standard_normal(count), settings.time_mean, settings.time_std, mu)
        dropped = random.random(count) < settings.drop_condition
        no_words = dropped | (random.random(count) < settings.drop_glyph)
        no_references = dropped | (random.random(count) < settings.drop_references)
        prior = encoded.target_ids[pictures]
        replaced = random.random(prior.shape) < settings.prior_noise
        prior = np.where(replaced, random.integers(0, codes, prior.shape), prior)
        prior = positions.upsample_ids(prior, config.upsample).reshape(count, -1)
        texts = []
        for row, index in enumerate(chosen):
            captions = context.samples[index].captions
            caption = captions[int(random.integers(len(captions)))]
            texts.append(embeds_of(() if no_words[row] else tuple(glyph_texts(caption))))
        num_text = max(len(text) for text in texts)
        embeds = np.zeros((count, num_text, dit.text_embed_dim), np.float32)
        references = np.array([context.references_of[i] for i in chosen], np.int64)
        num_references = references.shape[1]
        mask = np.ones((count, 1, 1, num_references * num_image + num_text + num_image), bool)
        for row, text in enumerate(texts):
            embeds[row, num_text - len(text) :] = text
            # padding of a training batch is closed: a picture made alone has none
            mask[row, ..., num_references * num_image : num_references * num_image + num_text - len(text)] = False
            if no_references[row]:
                mask[row, ..., : num_references * num_image] = False
        reference_prior = positions.upsample_ids(encoded.target_ids[references], config.upsample)
        return (
            clean,
            random.standard_normal(clean.shape, np.float32),
            sigma,
            embeds,
            prior,
            1 - dropped.astype(np.float32),
            positions.sinusoid(t, dit.time_embed_dim),
            positions.size_features((0, 0), size, dit.condition_dim, count),
            *positions.rope_image(grid, dit.attention_head_dim, num_text),
            mask,
            encoded.latents[references],
            reference_prior.reshape(count, num_references, num_image),
            positions.sinusoid([0.0] * count, dit.time_embed_dim),
            *reference_tables,
        )

    def loss(
        module: Any, clean: Any, draws: Any, sigma: Any, embeds: Any, prior: Any, keep: Any, times: Any, sizes: Any,
        cos: Any, sin: Any, mask: Any, reference_latents: Any, reference_prior: Any, zero_times: Any,
        reference_cos: Any, reference_sin: Any,
    ) -> tuple[Any, dict[str, Any]]:  # fmt: skip
        written = [
            module.reference_kv(
                reference_latents[:, k],
                reference_prior[:, k],
                keep * 0 + 1,
                zero_times,
                sizes,
                reference_cos,
                reference_sin,
            )
            for k in range(reference_latents.shape[1])
        ]
        velocity = module(
            flow.noisy(clean, draws, sigma), embeds, prior, keep, times, sizes, cos, sin,
            join_references(written) if written else None, mask,
        )  # fmt: skip
        return flow.flow_loss(velocity, clean, draws), {}

    return Stage(build("decoder", config), draw, loss)
