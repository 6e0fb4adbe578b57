"""Low-rank additions to a model: which layers get one, and how it is put there (Hu et al. 2021, LoRA).

An addition is two matrices, `lora_A` (rank, in) and `lora_B` (out, rank), beside a linear layer: y = Wx + b + B(A x)·scale,
with scale = alpha / rank. Files of additions are the subject of sampan.checkpoint.lora.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from sampan.errors import JobError, did_you_mean
from sampan.frameworks import nn
from sampan.models.build import build_on_meta
from sampan.models.config import ModelConfig

PARTS = ("ar", "decoder")  # the parts that can be adapted
FACTORS = (".lora_A.weight", ".lora_B.weight")
DEFAULTS = {  # attention and feed-forward of every layer
    "ar": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"),
    "decoder": ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "ff.net.0.proj", "ff.net.2"),
}


def linear_layers(part: str, config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Return the linear layers of a part by name, each with its (width out, width in)."""
    return nn.linear_layers(build_on_meta(part, config))


def targets(part: str, config: ModelConfig, names: tuple[str, ...] | None) -> list[str]:
    """Return the full names of the layers that get an addition, in the model's order.

    Args:
        part: One of PARTS.
        names: Pieces of layer names between dots: `to_q`, `attn1.to_q`, `norm1.linear`, or `prior_projector` for all
            linear layers in it. A name may be meant for the other part. None or empty for attention and feed-forward.

    Raises:
        JobError: A name is in that of no linear layer of any part, or none is of this part.
    """
    layers = linear_layers(part, config)
    chosen: set[str] = set()
    strange: list[str] = []
    for name in names or DEFAULTS[part]:
        found = _named(name, layers)
        chosen |= found
        if not found:
            strange.append(name)
    for name in strange:
        if not any(_named(name, linear_layers(other, config)) for other in PARTS if other != part):
            known = set().union(*(_short(linear_layers(one, config)) for one in PARTS))
            raise JobError(
                f"`{name}` names no layer that can have a low-rank addition",
                "additions are beside linear layers of ar and decoder, named by the words between dots",
                did_you_mean(name, known),
            )
    if not chosen:
        raise JobError(
            f"no layer of `{part}` is to have a low-rank addition",
            f"{', '.join(f'`{name}`' for name in strange)} {'is' if len(strange) == 1 else 'are'} of another part",
            did_you_mean(strange[0], _short(layers)),
        )
    return [layer for layer in layers if layer in chosen]


def attach(
    module: Any, part: str, config: ModelConfig, rank: int, alpha: float | None = None, names: tuple[str, ...] = ()
) -> list[str]:
    """Give a part's layers their additions, and return the names of those layers.

    The additions are zero, on the device of the layers, in fp32. Their first values are drawn like all others, by
    sampan.models.init: `initial_weights` of the new names and shapes.

    Args:
        module: The part, on the meta device or not.
        alpha: The scale is alpha / rank; None for alpha = rank.
        names: As `targets` takes them.

    Raises:
        JobError: As `targets`.
    """
    layers = targets(part, config, names)
    nn.add_low_rank(module, dict.fromkeys(layers, (rank, 1.0 if alpha is None else alpha / rank)))
    return layers


def trainable(name: str) -> bool:
    """Say whether a parameter belongs to an addition; in a LoRA training all others are frozen."""
    return name.endswith(FACTORS)


def _named(name: str, layers: Iterable[str]) -> set[str]:
    return {layer for layer in layers if f".{name}." in f".{layer}."}


def _short(layers: Iterable[str]) -> set[str]:
    """Return the words that name layers: what stands below a block's number, and the last ones alone."""
    words: set[str] = set()
    for layer in layers:
        pieces = re.split(r"(?:layers|transformer_blocks)\.\d+\.", layer)[-1].split(".")
        words |= {".".join(pieces), ".".join(pieces[-2:]) if pieces[-1].isdecimal() else pieces[-1]}
    return words
