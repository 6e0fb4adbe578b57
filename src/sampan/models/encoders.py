"""Calls of the frozen parts: prior tokens and latents of images, images of latents, glyph embeddings of words.

Training encodes its data set with them, and the pipeline what a request brings. Neither the parts nor their weights are kept
here: each is an argument, on its device and in its dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampan.frameworks import device as dev
from sampan.frameworks import ops
from sampan.models import positions
from sampan.models.config import ModelConfig
from sampan.models.positions import Grid
from sampan.models.text import glyph_batch

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def encode_tokens(tokenizer: Any, patches: Floats, grid: Grid, config: ModelConfig, device: str, dtype: str) -> Ints:
    """Return the prior tokens (images, rows·columns) of patches (images, rows·columns, 3·patch²)."""
    gather_ids, gather_weights = positions.bilinear_gather(grid, config.ar.vision.grid_side)
    with dev.no_grad():
        ids = tokenizer(
            dev.array(patches, device, dtype), dev.array(gather_ids, device), dev.array(gather_weights, device)
        )
    return dev.to_numpy(ids).astype(np.int64)


def latent_statistics(config: ModelConfig, device: str, dtype: str) -> tuple[Any, Any]:
    """Return the latents' mean and standard deviation, each (1, channels, 1, 1), on a device."""
    mean, std = (
        np.asarray(v, np.float32).reshape(1, -1, 1, 1) for v in (config.vae.latents_mean, config.vae.latents_std)
    )
    return dev.array(mean, device, dtype), dev.array(std, device, dtype)


def encode_latents(vae: Any, images: Floats, config: ModelConfig, device: str, dtype: str) -> Floats:
    """Return normalised latents (n, channels, h, w), the mode, of images (n, 3, H, W) in [-1, 1]."""
    with dev.no_grad():
        return dev.to_numpy(vae.encode(dev.array(images, device, dtype), *latent_statistics(config, device, dtype)))


def decode_latents(vae: Any, latents: Any, config: ModelConfig, device: str, dtype: str) -> Floats:
    """Return images (n, 3, H, W) in about [-1, 1] of normalised latents (n, channels, h, w) on the device."""
    with dev.no_grad():
        return dev.to_numpy(vae.decode(ops.cast(latents, dev.dtype(dtype)), *latent_statistics(config, device, dtype)))


def embed_glyphs(glyph: Any, texts: Sequence[str], config: ModelConfig, device: str) -> Floats:
    """Return (bytes, width) of the words to be drawn, one after another; of no words, the empty string's.

    Raises:
        RequestError: A word is longer than the glyph encoder was built for.
    """
    ids, mask = glyph_batch(texts)
    buckets = positions.relative_buckets(
        ids.shape[1], config.glyph.relative_attention_num_buckets, config.glyph.relative_attention_max_distance
    )
    with dev.no_grad():
        embeds = glyph(*(dev.array(a, device) for a in (ids, mask, buckets)))
    return dev.to_numpy(embeds)[mask]
