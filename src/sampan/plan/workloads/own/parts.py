"""Passes of this project's models, counted: the loss of a stage, and each part in use.

Layers of a part are alike: a part is built with a few of them, of which one stands for all between the first and the last,
unless what is trained of them is said layer by layer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from sampan.models.config import ModelConfig
from sampan.plan.records import WorkloadBlock
from sampan.plan.workloads.own import batches
from sampan.plan.workloads.own.batches import Arrays, Size
from sampan.plan.workloads.own.count import MOST_LAYERS, count_blocks

_UNUSED = "post_quant_conv"  # in the release and used by nothing; it is never trained
Blocks = tuple[WorkloadBlock, ...]


@lru_cache
def stage_blocks(
    stage: str, config: ModelConfig, arrays: Arrays, rank: int | None, targets: tuple[str, ...], batch: int
) -> Blocks:
    """Return what one sample costs in a stage, forward and backward.

    Args:
        arrays: Of a pass, from `batches.of_stage`.
        rank: Of low-rank additions, which alone are trained; None trains everything.
        targets: Layers that have one; empty for attention and feed-forward.
        batch: Samples of the arrays.

    Raises:
        JobError: `targets` names no layer of the part.
    """
    from sampan.frameworks import device  # here, because it loads model code, and with it a framework
    from sampan.losses import stages as losses
    from sampan.models import heads, lora
    from sampan.models.build import build

    calls: dict[str, Callable[..., Any]] = {
        "vae": partial(losses.vae_loss, perceptual_weight=1.0, kl_weight=1.0),
        "tokenizer": partial(losses.tokenizer_loss, commitment_weight=1.0, codebook_weight=1.0, contrast_weight=1.0),
        "glyph": partial(losses.glyph_loss, temperature=1.0, place_weight=1.0),
        "ar": partial(losses.ar_loss, recompute=False),
        "decoder": partial(losses.decoder_loss, recompute=False),
    }
    is_whole = any(re.search(r"\.\d", target) for target in targets)
    few, num_layers = (config, MOST_LAYERS) if is_whole else reduced(stage, config)
    with device.on_meta():
        if stage == "tokenizer":
            module = heads.TokenizerWithHeads(few, few.ar.text.vocab_size)
        elif stage == "glyph":
            module = heads.GlyphWithHeads(few)
        else:
            module = build(stage, few)
    trainable: Callable[[str], bool] = lambda name: _UNUSED not in name  # noqa: E731
    if rank is not None:
        lora.attach(module, stage, few, rank, None, targets)
        trainable = lora.trainable
    return tuple(
        count_blocks(
            module, partial(calls[stage], module), arrays, grad="full" if rank is None else "through",
            trainable=trainable, num_layers=num_layers, batch=batch,
        )
    )  # fmt: skip


def reduced(part: str, config: ModelConfig) -> tuple[ModelConfig, int]:
    """Return a config with few layers of a part, and how many layers they stand for."""
    ar, few = config.ar, MOST_LAYERS
    if part == "ar" and ar.text.num_hidden_layers > few:
        return replace(config, ar=replace(ar, text=replace(ar.text, num_hidden_layers=few))), ar.text.num_hidden_layers
    if part == "tokenizer" and ar.vision.depth > few:
        return replace(config, ar=replace(ar, vision=replace(ar.vision, depth=few))), ar.vision.depth
    if part == "decoder" and config.dit.num_layers > few:
        return replace(config, dit=replace(config.dit, num_layers=few)), config.dit.num_layers
    if part == "glyph" and config.glyph.num_layers > few:
        return replace(config, glyph=replace(config.glyph, num_layers=few)), config.glyph.num_layers
    return config, few


@lru_cache
def tokenizer_blocks(config: ModelConfig, tokens: int) -> Blocks:
    """Return the picture tokenizer over a picture of so many tokens."""
    return _used("tokenizer", config, batches.tokenizer_arrays(config, tokens))


@lru_cache
def vae_blocks(half: str, config: ModelConfig, size: Size) -> Blocks:
    """Return a half of the autoencoder: "encoder", which makes a latent of pixels, or "decoder"."""
    shape = (3, *size) if half == "encoder" else batches.latent_shape(config, size)
    return _used("vae", config, (batches.Blank((1, *shape)),), half=half)


@lru_cache
def glyph_blocks(config: ModelConfig, num_bytes: int) -> Blocks:
    """Return the glyph encoder over a string of so many bytes."""
    return _used("glyph", config, batches.glyph_arrays(num_bytes))


@lru_cache
def ar_blocks(config: ModelConfig, tokens: int, slots: int) -> Blocks:
    """Return the generator over tokens that are read at once, each of which passes over all slots of a cache."""
    few, _ = reduced("ar", config)
    text = few.ar.text
    keys = batches.Blank((1, text.num_key_value_heads, slots, text.head_dim))
    mask = batches.Blank((1, 1, tokens, slots), "bool")
    cache = tuple((keys, keys) for _ in range(text.num_hidden_layers))
    arrays = *batches.ar_arrays(config, tokens), mask, cache, batches.Blank((), "int64"), 1
    return _used("ar", config, arrays)


@lru_cache
def decoder_blocks(config: ModelConfig, size: Size, glyph_tokens: int, reference_tokens: int = 0) -> Blocks:
    """Return one pass of the decoder over a picture whose references' keys and values are there."""
    few, _ = reduced("decoder", config)
    dit = few.dit
    keys = batches.Blank((1, dit.num_attention_heads, reference_tokens, dit.attention_head_dim))
    references = tuple((keys, keys) for _ in range(dit.num_layers)) if reference_tokens else None
    return _used("decoder", config, (*batches.decoder_arrays(config, size, glyph_tokens), references))


@lru_cache
def reference_blocks(config: ModelConfig, size: Size) -> Blocks:
    """Return the decoder's pass over one reference picture, which writes keys and values."""
    return _used("decoder", config, batches.reference_arrays(config, size), method="reference_kv")


def _used(
    part: str, config: ModelConfig, arrays: Sequence[object], *, half: str | None = None, method: str = "forward"
) -> Blocks:
    """Return a part in use, forward only.

    Args:
        half: The module in it that is used; None for all of it.
        method: What of the module takes the arrays.
    """
    from sampan.models.build import build_on_meta  # here, because it loads model code, and with it a framework

    few, num_layers = reduced(part, config)
    module = build_on_meta(part, few)
    module = module if half is None else getattr(module, half)
    call = module if method == "forward" else getattr(module, method)
    return tuple(count_blocks(module, call, arrays, grad="none", num_layers=num_layers))
