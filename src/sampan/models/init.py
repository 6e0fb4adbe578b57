"""Initial weights, drawn on the host from counters, so that every framework starts a run from the same numbers.

Matrices are normal with deviation 1/sqrt(fan in), tables of tokens with 1 (at 0.02, the value for fine-tuned giants, a
short run hardly tells one token from another); biases are 0 and norm weights 1. The decoder's modulation and
output begin at 0 (Peebles and Xie 2023, adaLN-Zero), so that its blocks begin as the identity; so do the residual blocks
of the autoencoder, whose second convolution begins small. Heads of the glyph encoder begin by looking to one side, near or
far (slopes as of Press et al. 2022, ALiBi): beginning at 0, where a byte stands was never learned. Of a low-rank addition
(Hu et al. 2021) A is uniform within 1/sqrt(fan in), as PEFT draws it, and B is 0, so that it begins as no addition.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

_TABLES = {  # deviation of learned tables, by the end of their name
    "embed_tokens.weight": 1.0,
    "prior_token_embedding.weight": 1.0,
    "shared.weight": 1.0,
    "position_embedding.weight": 0.2,
}
# norms after a sandwich layer's halves: small, so that a token's own embedding is heard through all layers
_SMALL = ("post_self_attn_layernorm.weight", "post_mlp_layernorm.weight")
_SLOPES, _FAR, _AWAY = (0.35, 1.5), 16, 6.0  # of the glyph encoder's heads: per place, places at most, the other side
_ZERO = (
    "norm1.linear.weight",
    "norm_out.linear.weight",
    "proj_out.weight",
    "lora_B.weight",
)


class InitialWeights(Mapping[str, NDArray[np.float32]]):
    """Fp32 weights by name, each drawn when it is asked for, so that no more than one is there at a time."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], seed: int):
        self._shapes, self._seed = shapes, seed

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        return _draw(name, self._shapes[name], self._seed)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def initial_weights(shapes: Mapping[str, tuple[int, ...]], seed: int) -> InitialWeights:
    """Return fp32 weights by name; a tensor's numbers depend on the seed, its name and its shape only.

    Args:
        shapes: Released parameter name to shape, weights as [out, in, …].
    """
    return InitialWeights(shapes, seed)


def _draw(name: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    if name.endswith("encoder.conv_out.bias"):  # the autoencoder's latent begins almost without noise
        half = shape[0] // 2
        return np.concatenate([np.zeros(half), np.full(half, -6.0)]).astype(np.float32)
    if name.endswith("relative_attention_bias.weight"):
        return _slopes(*shape)
    if name.endswith(_ZERO) or (name.endswith("bias") and len(shape) == 1):
        return np.zeros(shape, np.float32)
    if len(shape) == 1:
        return np.full(shape, 0.2 if name.endswith(_SMALL) else 1.0, np.float32)
    key = int.from_bytes(hashlib.sha256(f"{seed}/weights/{name}".encode()).digest()[:16], "little")
    random = np.random.Generator(np.random.Philox(key=key))
    if name.endswith("lora_A.weight"):
        return (2 * random.random(shape, np.float32) - 1) / np.float32(math.sqrt(shape[1]))
    draw = random.standard_normal(shape, np.float32)
    if name.endswith("quantize.embedding.weight"):
        return draw / np.linalg.norm(draw, axis=-1, keepdims=True)
    table = next((value for end, value in _TABLES.items() if name.endswith(end)), None)
    deviation = table if table is not None else 1 / math.sqrt(math.prod(shape[1:]))
    if ".resnets." in name and name.endswith("conv2.weight"):
        deviation *= 0.1
    return draw * np.float32(deviation)


def _slopes(num_buckets: int, num_heads: int) -> NDArray[np.float32]:
    """Return biases (buckets, heads): even heads look forward and odd ones back, the later half of them less far."""
    half = num_buckets // 2
    distance = np.minimum(np.arange(half), _FAR)
    found = np.zeros((num_buckets, num_heads), np.float32)
    for head in range(num_heads):
        slope = _SLOPES[2 * head // num_heads]
        seen, hidden = (slice(half, None), slice(0, half)) if head % 2 == 0 else (slice(0, half), slice(half, None))
        found[seen, head] = -slope * distance
        found[hidden, head] = -slope * distance - _AWAY
    found[0] = 0  # a byte itself
    return found
