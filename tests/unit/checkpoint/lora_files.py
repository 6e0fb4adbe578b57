"""Tensors of LoRA files, and how their errors are compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sampan.checkpoint.lora import LoraAdapter, LoraLayer
from sampan.errors import CheckpointError

LAYER = "transformer_blocks.0.attn1.to_q"
GENERATOR = "model.language_model.layers.1"


def pair(stem: str, out: int = 64, width: int = 64, rank: int = 2, names: tuple[str, str] = ("lora_A", "lora_B")):
    """Return random factors of a layer."""
    random = np.random.default_rng(len(stem))
    return {
        f"{stem}.{name}.weight": torch.from_numpy(random.standard_normal(shape, np.float32))
        for name, shape in zip(names, ((rank, width), (out, rank)), strict=True)
    }


def delta(addition: LoraLayer) -> np.ndarray:
    return addition.b @ addition.a * addition.scale


def only(lows: list[LoraAdapter]) -> LoraAdapter:
    (low,) = lows
    return low


def failure(call: Callable[[], Any], folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        call()
    return caught.value.render().replace(str(folder), "FOLDER")
