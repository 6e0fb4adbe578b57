"""The diffusion decoder and its noise schedule."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from sampan.models.config.section import JSON, ConfigSection


@dataclass(frozen=True)
class DiTConfig(ConfigSection):
    """The diffusion decoder (`transformer/config.json`). The defaults are the release, not the library class's."""

    NAME = "transformer"

    patch_size: int = 2
    in_channels: int = 16
    out_channels: int = 16
    num_layers: int = 30
    attention_head_dim: int = 128
    num_attention_heads: int = 32
    text_embed_dim: int = 1472
    time_embed_dim: int = 512
    condition_dim: int = 256
    prior_vq_quantizer_codebook_size: int = 16384

    def __post_init__(self) -> None:
        self.require_positive()
        if self.attention_head_dim % 4:
            raise ValueError(
                f"attention_head_dim {self.attention_head_dim} must be a multiple of 4 for rows and columns"
            )

    @property
    def dim(self) -> int:
        """Width of the residual stream."""
        return self.num_attention_heads * self.attention_head_dim

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Self:
        # the library's class defaults (64 heads of 40) are not the release: a size is never assumed
        return cls.pick(cls.require_stated(config))

    def to_json(self) -> JSON:
        return {"_class_name": "GlmImageTransformer2DModel", "_diffusers_version": "0.42.1", **dataclasses.asdict(self)}


@dataclass(frozen=True)
class SchedulerConfig(ConfigSection):
    """The noise schedule (`scheduler/scheduler_config.json`)."""

    NAME = "scheduler"

    num_train_timesteps: int = 1000
    base_shift: float = 0.25
    max_shift: float = 0.75
    base_image_seq_len: int = 256
    max_image_seq_len: int = 4096

    def __post_init__(self) -> None:
        self.require_positive()

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Self:
        cls.require(
            config,
            use_dynamic_shifting=True,
            time_shift_type="linear",
            use_karras_sigmas=False,
            use_exponential_sigmas=False,
            use_beta_sigmas=False,
            invert_sigmas=False,
            stochastic_sampling=False,
            shift_terminal=None,
        )
        return cls.pick(config)

    def to_json(self) -> JSON:
        return {
            "_class_name": "FlowMatchEulerDiscreteScheduler",
            "_diffusers_version": "0.42.1",
            "use_dynamic_shifting": True,
            "time_shift_type": "linear",
            "shift": 1.0,
            **dataclasses.asdict(self),
        }
