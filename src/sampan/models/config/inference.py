"""How prompts are read, reference images prepared, tokens sampled and images guided where nobody says otherwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from sampan.documents import shown
from sampan.models.config.section import JSON, MAX_WHOLE, ConfigSection

QUOTATION_MARKS = ("as written", "straight")


@dataclass(frozen=True)
class ImageProcessorConfig(ConfigSection):
    """How a reference picture becomes patches (`processor/preprocessor_config.json`)."""

    NAME = "image processor"

    min_pixels: int = 512 * 512
    max_pixels: int = 2048 * 2048
    patch_size: int = 16

    LIMITS: ClassVar = {"patch_size": (1, 4096)}

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Self:
        cls.require_kinds(config, image_processor="table", size="table")
        config = config.get("image_processor", config)  # newer libraries nest it in processor_config.json
        cls.require_kinds(config, size="table")
        cls.require(config, temporal_patch_size=1, merge_size=1, resample=3, do_resize=True)
        clip = {"image_mean": "the library's default", "image_std": "the library's default"}
        cls.require({**clip, **config}, image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5])
        size = config.get("size") or {}
        given = {
            "min_pixels": config.get("min_pixels") or size.get("shortest_edge") or 512 * 512,
            "max_pixels": config.get("max_pixels") or size.get("longest_edge") or 2048 * 2048,
        }
        return cls.pick(config, **given)

    def to_json(self) -> JSON:
        return {
            "image_processor_type": "GlmImageImageProcessor",
            "processor_class": "GlmImageProcessor",
            "do_resize": True,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "do_convert_rgb": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "resample": 3,
            "temporal_patch_size": 1,
            "merge_size": 1,
            "patch_size": self.patch_size,
            "size": {"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels},
        }


@dataclass(frozen=True)
class SamplingConfig(ConfigSection):
    """How the AR model samples (`vision_language_encoder/generation_config.json`).

    A missing `top_k` means 50, because that is what the library's `generate` does with such a file.
    """

    NAME = "generation config"

    temperature: float = 0.9
    top_p: float = 0.75
    top_k: int = 50

    LIMITS: ClassVar = {"temperature": (0, 1e6), "top_p": (0, 1), "top_k": (0, MAX_WHOLE)}

    def to_json(self) -> JSON:
        return {"do_sample": True, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class PaintingConfig(ConfigSection):
    """How the decoder paints where nobody says otherwise.

    The released files do not state it, so a folder that wants other values carries them in `sampan.json`.

    Args:
        guidance_scale: Weight of the conditioning; 1 or less: none (1.5 in the release's pipeline).
        num_inference_steps: Euler steps of the decoder (50 in the release's pipeline).
    """

    NAME = "painting"

    guidance_scale: float = 1.5
    num_inference_steps: int = 50

    LIMITS: ClassVar = {"guidance_scale": (0, 1e6)}


@dataclass(frozen=True)
class PromptConfig(ConfigSection):
    """How a prompt is read before it becomes tokens.

    The release's pipeline reads it as it is written, so a folder that wants otherwise says so in `sampan.json`.

    Args:
        quotation_marks: "as written", or "straight": quotations in any marks are read as if they stood in straight double
            ones, the only ones that the model's captions had.
    """

    NAME = "prompt"

    quotation_marks: str = "as written"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quotation_marks not in QUOTATION_MARKS:
            known = " or ".join(f'"{word}"' for word in QUOTATION_MARKS)
            raise ValueError(f"quotation_marks must be {known}, got {shown(self.quotation_marks)}")
