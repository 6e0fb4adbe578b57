"""What a worker runs: the losses of both parts and of single blocks of them, and weights of which none is all zero.

Losses are plain functions of a module and arrays, because a framework may compile them from their source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampan.frameworks import device as dev
from sampan.frameworks import ops
from sampan.losses import flow, tokens
from sampan.models import presets
from sampan.models.ar import Layer
from sampan.models.dit import DiTBlock
from sampan.models.init import initial_weights
from sampan.models.layers import Array
from sampan.samplers import noise

_DEVIATION = 0.02  # deviation of what would begin at 0


def ar_loss(
    module: Any,
    ids: Array,
    cos: Array,
    sin: Array,
    read_at: Array,
    labels: Array,
    weights: Array,
    segments: tuple[int, ...],
) -> Array:
    """Return the generator's loss of samples packed into one row."""
    logits, _ = module(ids, cos, sin, segments=segments, logits_at=read_at)
    return tokens.token_loss(logits, labels, weights)


def decoder_loss(
    module: Any,
    clean: Array,
    draws: Array,
    sigma: Array,
    embeds: Array,
    prior: Array,
    keep: Array,
    times: Array,
    sizes: Array,
    cos: Array,
    sin: Array,
) -> Array:
    """Return the decoder's loss."""
    velocity = module(flow.add_noise(clean, draws, sigma), embeds, prior, keep, times, sizes, cos, sin)
    return flow.flow_loss(velocity, clean, draws)


def ar_block_loss(module: Layer, x: Array, cos: Array, sin: Array) -> Array:
    """Return the mean square of what one layer of the generator makes of `x`, in the dtype its weights are in."""
    x = ops.cast(x, module.input_layernorm.weight.dtype)
    y, _ = module(x, cos, sin, None, None, None, None)
    return _square(y)


def decoder_block_loss(module: DiTBlock, x: Array, text: Array, condition: Array, cos: Array, sin: Array) -> Array:
    """Return the mean square of what one block of the decoder makes of `x` and `text`, in the dtype its weights are in."""
    dtype = module.norm1.linear.weight.dtype
    x, words, _ = module(ops.cast(x, dtype), ops.cast(text, dtype), ops.cast(condition, dtype), cos, sin, None, None)
    return _square(x) + _square(words)


LOSSES = {"ar": ar_loss, "decoder": decoder_loss}
BLOCK_LOSSES = {"ar": ar_block_loss, "decoder": decoder_block_loss}


def block(part: str) -> Any:
    """Return one block of the released size, without memory for its weights."""
    config = presets.get("glm-image")
    with dev.on_meta():
        return Layer(config.ar.text) if part == "ar" else DiTBlock(config.dit)


class NonZeroInit(Mapping[str, NDArray[np.float32]]):
    """Initial weights in which what begins at 0 is small and random instead, made when they are asked for.

    At 0 the decoder's blocks are the identity and get no gradient: a comparison would compare nothing.

    Args:
        shapes: Parameter name to shape.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], seed: int):
        self.shapes, self.seed = shapes, seed

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        shape = self.shapes[name]
        values = initial_weights({name: shape}, self.seed)[name]
        if values.any():
            return values
        return np.float32(_DEVIATION) * noise.generator(self.seed, f"bench/awake/{name}").standard_normal(
            shape, np.float32
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def _square(x: Array) -> Array:
    x = ops.cast(x, ops.float32)
    return ops.mean(x * x)
