"""What each stage of training minimises: its module's pass over a batch, and the loss of what comes out.

These functions are the one definition of a training pass: training computes with them, and what a stage costs is counted by
running them on shapes. They keep nothing, so that a framework may compile them.
"""

from __future__ import annotations

from typing import Any

from sampan.frameworks import ops
from sampan.losses import autoencoder, flow, tokens
from sampan.losses.contrast import contrast_loss
from sampan.losses.quantizer import quantize_straight
from sampan.models.dit import join_references
from sampan.models.layers import Array
from sampan.models.shapes import check_shapes

Values = dict[str, Any]
"""Numbers for the log and arrays, by name."""
ARRAYS_PER_REFERENCE = 7  # of a decoder's batch
_TEMPERATURE = 0.07
_PATCHES = ("image", "token", "value")


def vae_loss(
    module: Any, images: Array, draws: Array, *, perceptual_weight: float, kl_weight: float
) -> tuple[Array, Values]:
    """Return what the autoencoder minimises: absolute error, edges at several scales, and the latents' divergence.

    Args:
        images: (batch, 3, height, width).
        draws: Standard normal numbers of the latents' shape.
    """
    painted, mean, log_variance = module(images, draws)
    painted = ops.cast(painted, ops.float32)
    error = ops.mean(ops.abs(painted - images))
    edges = autoencoder.edge_loss(painted, images)
    kl = autoencoder.kl_divergence(ops.cast(mean, ops.float32), ops.cast(log_variance, ops.float32))
    total = error + perceptual_weight * edges + kl_weight * kl
    square = ops.mean((painted - images) * (painted - images))
    return total, {"l1": error, "edges": edges, "kl": kl, "mse": square}


def tokenizer_loss(
    module: Any, patches: Array, gather_ids: Array, gather_weights: Array, ids: Array, mask: Array, has_caption: Array,
    rows: Array, is_quantized: Array, *, commitment_weight: float, codebook_weight: float, contrast_weight: float,
) -> tuple[Array, Values]:  # fmt: skip
    """Return what the picture tokenizer minimises: error of repainted patches, the quantizer's loss, and the contrast
    with captions.

    Args:
        module: A `TokenizerWithHeads`.
        patches, gather_ids, gather_weights: As of `VisionEncoder.forward`.
        ids, mask: Captions (pictures, tokens); the mask is 1 on tokens.
        has_caption: (pictures,), 1 or 0.
        rows: (pictures,), 0..pictures-1.
        is_quantized: (1,), 0 while the codes are left out.
    """
    model = module.part.model
    features = model.visual(patches, gather_ids, gather_weights)
    z, codes = model.vqmodel.project(features), model.vqmodel.codebook()
    chosen = model.vqmodel(features)
    quantized, vq_loss = quantize_straight(z, codes, chosen, commitment_weight, codebook_weight)
    quantized, vq_loss = z + (quantized - z) * is_quantized, vq_loss * ops.sum(is_quantized)
    painted = ops.cast(module.paint(quantized, gather_ids, gather_weights), ops.float32)
    check_shapes(("painted", painted, _PATCHES), ("patches", patches, _PATCHES))
    error = ops.mean(ops.abs(painted - patches))
    contrast = contrast_loss(
        module.to_caption(ops.mean(quantized, 1)), module.captions(ids, mask), rows, has_caption, _TEMPERATURE
    )
    total = error + vq_loss + contrast_weight * contrast
    constant = ops.stop_gradient(z)
    return total, {"l1": error, "vq": vq_loss, "contrast": contrast, "features": constant, "ids": chosen}


def glyph_loss(
    module: Any, ids: Array, mask: Array, buckets: Array, letter_waves: Array, told: Array, share: Array,
    pictures: Array, waves: Array, rows: Array, weights: Array, *, temperature: float, place_weight: float,
) -> tuple[Array, Values]:  # fmt: skip
    """Return what the glyph encoder minimises: the contrast of words with their pictures, and the error of what each
    byte tells.

    Args:
        module: A `GlyphWithHeads`.
        ids, mask, buckets, letter_waves: As of `GlyphWithHeads.spell`.
        told, share: What each byte is to tell (words, bytes, channels) and its share of the mean (words, bytes).
        pictures, waves: As of `GlyphWithHeads.read`.
        rows, weights: (words,): 0..words-1, and 1 for words that count.
    """
    spelt, channels = module.spell(ids, mask, buckets, letter_waves)
    seen = module.read(pictures, waves)
    spelt, seen = ops.cast(spelt, ops.float32), ops.cast(seen, ops.float32)
    contrast = contrast_loss(spelt, seen, rows, weights, temperature)
    answers = ("word", "byte", "channel")
    check_shapes(("channels", channels, answers), ("told", told, answers), ("share", share, ("word", "byte")))
    wrong = ops.cast(channels, ops.float32) - told
    place = ops.sum(ops.mean(wrong * wrong, -1) * share)
    return contrast + place_weight * place, {"contrast": contrast, "told": place}


def ar_loss(
    module: Any, ids: Array, cos: Array, sin: Array, read_at: Array, labels: Array, weights: Array,
    segments: tuple[int, ...] | None, *, recompute: bool,
) -> tuple[Array, Values]:  # fmt: skip
    """Return what the generator minimises: the cross-entropy of the next token.

    Args:
        ids, cos, sin, segments: As of `ARGenerator.forward`.
        read_at: (n,), the tokens from which the labels are predicted.
        labels, weights: (1, n).
        recompute: Keep only layer inputs for the backward pass.
    """
    logits, _ = module(ids, cos, sin, recompute=recompute, segments=segments, logits_at=read_at)
    return tokens.token_loss(logits, labels, weights), {}


def decoder_loss(
    module: Any, clean: Array, draws: Array, sigma: Array, embeds: Array, prior: Array, keep: Array, times: Array,
    sizes: Array, cos: Array, sin: Array, mask: Array | None, *references: Any, recompute: bool, num_idle: int = 0,
) -> tuple[Array, Values]:  # fmt: skip
    """Return what the decoder minimises: the error of the velocity.

    Args:
        clean, draws: Latents and noise (batch, channels, h, w).
        sigma: (batch,), the noise level.
        embeds, prior, keep, times, sizes, cos, sin, mask: As of `DiT.forward`.
        references: Arguments of `DiT.reference_kv`, ARRAYS_PER_REFERENCE for each reference.
        recompute: Keep only block inputs for the backward pass.
        num_idle: How many of the references, the last ones, are computed and count for nothing: ranks that share the blocks'
            weights go through them equally often.
    """
    each = range(0, len(references), ARRAYS_PER_REFERENCE)
    written = [
        module.reference_kv(*references[first : first + ARRAYS_PER_REFERENCE], recompute=recompute) for first in each
    ]
    idle = written[len(written) - num_idle :]
    written = written[: len(written) - num_idle]
    velocity = module(
        flow.add_noise(clean, draws, sigma), embeds, prior, keep, times, sizes, cos, sin,
        join_references(written) if written else None, mask, recompute=recompute,
    )  # fmt: skip
    total = flow.flow_loss(velocity, clean, draws)
    for reference in idle:
        for keys, values in reference:
            total = total + 0.0 * ops.cast(ops.mean(keys) + ops.mean(values), ops.float32)
    return total, {}
