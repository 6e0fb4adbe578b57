"""Parts of a model by name: how each is built, and under which names its weights stand in a released folder."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from sampan.models.config import ModelConfig


@dataclass(frozen=True)
class ModelPart:
    """One part of a model.

    Args:
        folder: Its subfolder in the released layout.
        weights: Stem of its weight files there.
        prefixes: Beginnings of its tensor names; empty means all names of the folder's files.
    """

    folder: str
    weights: str
    prefixes: tuple[str, ...] = ()


PARTS = {
    "ar": ModelPart("vision_language_encoder", "model", ("model.language_model.", "lm_head.")),
    "tokenizer": ModelPart("vision_language_encoder", "model", ("model.visual.", "model.vqmodel.")),
    "decoder": ModelPart("transformer", "diffusion_pytorch_model"),
    "vae": ModelPart("vae", "diffusion_pytorch_model"),
    "glyph": ModelPart("text_encoder", "model"),
}


def build_on_meta(part: str, config: ModelConfig) -> Any:
    """Return the module of a part without memory for its weights, which are given to it later."""
    from sampan.frameworks import device as dev  # here, because who only wants PARTS needs no framework

    with dev.on_meta():
        return build(part, config)


def build(part: str, config: ModelConfig) -> Any:
    """Return the module of a part with freshly initialised weights, on the framework's current default device."""

    def of(module: str, name: str, *arguments: Any) -> Any:
        return getattr(importlib.import_module(f"sampan.models.{module}"), name)(*arguments)

    match part:
        case "ar":
            return of("ar", "ARGenerator", config.ar.text)
        case "tokenizer":
            return of("vision", "ImageTokenizer", config.ar.vision, config.ar.vq)
        case "decoder":
            return of("dit", "DiT", config.dit)
        case "vae":
            return of("vae", "VAE", config.vae)
        case "glyph":
            return of("glyph", "GlyphEncoder", config.glyph)
    raise ValueError(f"{part!r} is not one of {', '.join(PARTS)}")
