"""LoRA adapters (Hu et al. 2021): which layers of a model get one, and how it is put there.

An adapter puts two matrices, `lora_A` (rank, in) and `lora_B` (out, rank), beside a linear layer: y = Wx + b + B(A x)·scale,
with scale = alpha / rank. Files of adapters are the subject of sampan.checkpoint.lora.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
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
    """Return the full names of the layers that get an adapter, in the model's order.

    Args:
        part: One of PARTS.
        names: Pieces of layer names between dots: `to_q`, `attn1.to_q`, `norm1.linear`, or `prior_projector` for all
            linear layers in it. Those that name no layer of this part are left out. None left, or none at all, is
            attention and feed-forward.
    """
    layers = linear_layers(part, config)
    chosen = set[str]().union(*(_named(name, layers) for name in names or ()))
    chosen = chosen or set[str]().union(*(_named(name, layers) for name in DEFAULTS[part]))
    return [layer for layer in layers if layer in chosen]


def check_targets(parts: Sequence[str], config: ModelConfig, names: Iterable[str]) -> None:
    """Refuse names of which none of the adapted parts has a layer.

    Args:
        parts: Those of PARTS that get an adapter.

    Raises:
        JobError: It says which layers there are near to the name, or which part has it.
    """
    layers = {part: linear_layers(part, config) for part in PARTS}
    for name in names:
        if any(_named(name, layers[part]) for part in parts):
            continue
        elsewhere = [part for part in PARTS if _named(name, layers[part])]
        near = did_you_mean(name, set().union(*(_short(layers[part]) for part in parts)))
        if elsewhere:
            raise JobError(
                f"`{name}` names no layer of {' or '.join(f'`{part}`' for part in parts)}",
                f"it is of `{elsewhere[0]}`, which the job does not train",
                near,
            )
        raise JobError(
            f"`{name}` names no layer that can have a low-rank addition",
            "additions are beside linear layers of ar and decoder, named by the words between dots",
            near,
        )


def attach(
    module: Any, part: str, config: ModelConfig, rank: int, alpha: float | None = None, names: tuple[str, ...] = ()
) -> list[str]:
    """Give a part's layers their LoRA matrices, and return the names of those layers.

    The matrices are zero, on the device of the layers, in fp32. Their first values are drawn like all others, by
    sampan.models.init: `initial_weights` of the new names and shapes.

    Args:
        module: The part, on the meta device or not.
        alpha: The scale is alpha / rank; None for alpha = rank.
        names: As `targets` takes them.
    """
    layers = targets(part, config, names)
    nn.add_low_rank(module, dict.fromkeys(layers, (rank, 1.0 if alpha is None else alpha / rank)))
    return layers


def trainable(name: str) -> bool:
    """Say whether a parameter belongs to an adapter; in a LoRA training all others are frozen."""
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
