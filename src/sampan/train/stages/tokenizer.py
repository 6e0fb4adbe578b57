"""The picture tokenizer: quantised features that paint their patch again and agree with the caption.

Codes that nothing chose for a while are moved onto features of the current batch, or a codebook dies to a handful of
entries.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sampan.data.batches import Order
from sampan.data.encode import grid_patches
from sampan.frameworks import device as dev
from sampan.frameworks import ops
from sampan.losses.contrast import contrast_loss
from sampan.losses.quantizer import quantize_straight
from sampan.models import positions
from sampan.samplers import noise
from sampan.train.heads import TokenizerWithHeads
from sampan.train.stages import Context, Stage

_REVIVE_EVERY = 20  # steps between looks for dead codes
_TEMPERATURE = 0.07


def make(context: Context) -> Stage:
    """Return the stage. Half of the micro-batches see the preview's grid, so that both sizes share the codes."""
    settings, config, seed = context.settings, context.config, context.seed
    pictures, captions = context.pictures, _captions_of(context)
    order = Order(range(len(pictures)), seed, "tokenizer/order")
    batch, accumulate = settings.micro_batch_size, settings.grad_accum_steps
    side = (pictures.height_px, pictures.width_px)
    grids = (config.geometry.prior_grid(*side), config.geometry.preview_grid(*side))
    gathers = [positions.bilinear_gather(grid, config.ar.vision.grid_side) for grid in grids]
    module = TokenizerWithHeads(config, config.ar.text.vocab_size)
    num_codes = config.ar.vq.num_embeddings
    extra = {"uses": np.zeros(num_codes, np.int64)}  # since the last look
    recent: dict[str, Any] = {}

    def draw(step: int, micro: int) -> tuple[np.ndarray, ...]:
        chosen = order.take((step * accumulate + micro) * batch, batch)
        random = noise.generator(seed, "tokenizer/draw", step, micro)
        which = 0 if random.random() < 0.75 else 1
        patches = np.stack([grid_patches(pictures[i], grids[which], config.processor.patch_size) for i in chosen])
        words = [captions[i][int(random.integers(len(captions[i])))] if captions[i] else [] for i in chosen]
        width = max(1, *(len(w) for w in words))
        ids, mask = np.zeros((batch, width), np.int64), np.zeros((batch, width), np.float32)
        for row, word in enumerate(words):
            ids[row, : len(word)], mask[row, : len(word)] = word, 1
        has_caption = np.asarray(mask.any(1), np.float32)
        mask[:, 0] = np.maximum(mask[:, 0], 1 - has_caption)  # an empty row must not divide by nothing; it weighs 0
        return patches, *gathers[which], ids, mask, has_caption, np.arange(batch)

    def loss(
        module: Any,
        patches: Any,
        gather_ids: Any,
        gather_weights: Any,
        ids: Any,
        mask: Any,
        has_caption: Any,
        rows: Any,
    ) -> tuple[Any, dict[str, Any]]:
        model = module.part.model
        features = model.visual(patches, gather_ids, gather_weights)
        z, codes = model.vqmodel.project(features), model.vqmodel.codebook()
        chosen = model.vqmodel(features)
        recent["features"], recent["ids"] = ops.stop_gradient(z), chosen
        quantised, vq_loss = quantize_straight(z, codes, chosen, settings.commitment_weight, settings.codebook_weight)
        painted = ops.cast(module.paint(quantised, gather_ids, gather_weights), ops.float32)
        error = ops.mean(ops.abs(painted - patches))
        contrast = contrast_loss(
            module.to_caption(ops.mean(quantised, 1)), module.captions(ids, mask), rows, has_caption, _TEMPERATURE
        )
        total = error + vq_loss + settings.contrast_weight * contrast
        return total, {"l1": error, "vq": vq_loss, "contrast": contrast}

    def after(step: int) -> dict[str, float]:
        chosen = dev.to_numpy(recent["ids"]).reshape(-1)
        extra["uses"] += np.bincount(chosen, minlength=num_codes)
        if (step + 1) % _REVIVE_EVERY:
            return {}
        dead = np.flatnonzero(extra["uses"] == 0)
        features = dev.to_numpy(recent["features"]).reshape(len(chosen), -1)
        # two thirds of a run may move codes; then they must hold still for the weights to settle on them
        if len(dead) and step < settings.num_steps * 2 // 3:
            picked = noise.generator(seed, "tokenizer/revive", step).integers(0, len(features), len(dead))
            dev.assign_rows(module.part.model.vqmodel.quantize.embedding.weight, dead, features[picked])
        used = 1 - len(dead) / num_codes
        extra["uses"][:] = 0
        return {"codes_used": used}

    return Stage(module, draw, loss, prefix="part.", after=after, extra=extra)


def _captions_of(context: Context) -> list[list[list[int]]]:
    """Return, for each picture, the token ids of its captions; references alone have none."""
    found: list[list[list[int]]] = [[] for _ in context.pictures.paths]
    for sample, picture in zip(context.samples, context.image_of, strict=True):
        if not sample.references:  # an instruction does not say what is in the picture
            found[picture] += [context.prompt_tokenizer.text_ids(caption) for caption in sample.captions]
    return found
