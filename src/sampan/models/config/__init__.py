"""Sizes and geometry of a model: one frozen dataclass a part, read from and written to the released config files.

Field names are those of the released `config.json` files. Keys that do not change the mathematics are ignored on
reading; a value that would change it in a way this code does not implement is an error, never a silent difference.
Nothing here loads a framework.

Source of the released values: the config files of zai-org/GLM-Image (January 2026).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sampan.errors import CheckpointError
from sampan.models.config.ar import ARConfig, TextConfig, VisionConfig, VQConfig
from sampan.models.config.dit import DiTConfig, SchedulerConfig
from sampan.models.config.geometry import Geometry
from sampan.models.config.glyph import NUM_TOLD, NUM_WAVES, WORD_PX, GlyphConfig
from sampan.models.config.inference import ImageProcessorConfig, PaintingConfig, PromptConfig, SamplingConfig
from sampan.models.config.vae import VAEConfig

__all__ = [
    "NUM_TOLD",
    "NUM_WAVES",
    "WORD_PX",
    "ARConfig",
    "DiTConfig",
    "Geometry",
    "GlyphConfig",
    "ImageProcessorConfig",
    "ModelConfig",
    "PaintingConfig",
    "PromptConfig",
    "SamplingConfig",
    "SchedulerConfig",
    "TextConfig",
    "VAEConfig",
    "VQConfig",
    "VisionConfig",
]


@dataclass(frozen=True)
class ModelConfig:
    """Everything a folder in the released layout says about a model's shape."""

    ar: ARConfig = field(default_factory=ARConfig)
    dit: DiTConfig = field(default_factory=DiTConfig)
    vae: VAEConfig = field(default_factory=VAEConfig)
    glyph: GlyphConfig = field(default_factory=GlyphConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    processor: ImageProcessorConfig = field(default_factory=ImageProcessorConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    geometry: Geometry = field(default_factory=Geometry)
    painting: PaintingConfig = field(default_factory=PaintingConfig)
    prompt: PromptConfig = field(default_factory=PromptConfig)

    def __post_init__(self) -> None:
        cell = self.vae.factor * self.dit.patch_size
        facts: list[tuple[bool, str]] = [
            (self.dit.in_channels == self.vae.latent_channels, "the decoder and the vae differ in latent channels"),
            (self.dit.text_embed_dim == self.glyph.d_model, "the decoder and the glyph encoder differ in width"),
            (
                self.dit.prior_vq_quantizer_codebook_size >= self.ar.vq.num_embeddings,
                "the decoder knows fewer codes than the tokenizer writes",
            ),
            (self.geometry.prior_px % cell == 0, f"prior_px {self.geometry.prior_px} is not a multiple of {cell} px"),
            (
                self.processor.patch_size == self.ar.vision.patch_size,
                "processor and vision encoder differ in patch_size",
            ),
            (self.geometry.prior_px % self.processor.patch_size == 0, "prior_px is not a multiple of the vision patch"),
        ]
        for holds, fact in facts:
            if not holds:
                raise CheckpointError("the parts of this model do not fit together", fact)

    @property
    def upsample(self) -> int:
        """DiT tokens per prior token, each way (2 in the release)."""
        return self.geometry.prior_px // (self.vae.factor * self.dit.patch_size)

    @property
    def token_scale(self) -> int:
        """How many times smaller the tokenizer sees a picture than the user does (2 in the release)."""
        return self.geometry.prior_px // self.processor.patch_size
