"""How much of a training step the frozen encoders take, counted: FLOPs by PyTorch's own counter, on shapes alone.

A step of what is trained is counted as three forward passes. What a device makes of these FLOPs is another matter:
convolutions at full resolution are the slow kind.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from sampan.models import positions
from sampan.models.build import build_on_meta
from sampan.models.config import ModelConfig


def encoder_share(config: ModelConfig, px: int, stage: str) -> float:
    """Return the FLOPs of the encoders over those of the trained part, for one square picture in "decoder" or "ar"."""
    target, preview = config.geometry.prior_grid(px, px), config.geometry.preview_grid(px, px)
    if stage == "ar":
        return (_tokenizer(config, target) + _tokenizer(config, preview)) / (3 * _generator(config, (preview, target)))
    vae = _flops(
        build_on_meta("vae", config).encode,
        np.zeros((1, 3, px, px), np.float32),
        *np.zeros((2, 1, config.vae.latent_channels, 1, 1)),
    )
    return (vae + _tokenizer(config, target)) / (3 * _decoder(config, px))


def _tokenizer(config: ModelConfig, grid: positions.Grid) -> int:
    ids, weights = positions.bilinear_gather(grid, config.ar.vision.grid_side)
    patches = np.zeros((1, grid[0] * grid[1], 3 * config.processor.patch_size**2), np.float32)
    return _flops(build_on_meta("tokenizer", config), patches, ids, weights)


def _generator(config: ModelConfig, grids: tuple[positions.Grid, ...]) -> int:
    places = positions.generated_positions(0, grids)
    cos, sin = positions.rope_text(places[:, None], config.ar.text)
    return _flops(build_on_meta("ar", config), np.zeros((1, places.shape[1]), np.int64), cos, sin)


def _decoder(config: ModelConfig, px: int) -> int:
    dit, side = config.dit, px // config.vae.factor
    grid = (side // dit.patch_size, side // dit.patch_size)
    return _flops(
        build_on_meta("decoder", config),
        np.zeros((1, dit.in_channels, side, side), np.float32),
        np.zeros((1, 1, dit.text_embed_dim), np.float32),
        np.zeros((1, grid[0] * grid[1]), np.int64),
        np.ones(1, np.float32),
        positions.sinusoid([0.0], dit.time_embed_dim),
        positions.size_features((0, 0), (px, px), dit.condition_dim, 1),
        *positions.rope_image(grid, dit.attention_head_dim, 1),
    )


def _flops(call: Any, *arrays: np.ndarray) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call(*(torch.from_numpy(a).to("meta") for a in arrays))
    return counter.get_total_flops()
