"""The autoencoder between pixels and latents."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from sampan.errors import CheckpointError
from sampan.models.config.section import JSON, ConfigSection

_RELEASED_MEAN = (
    -0.2080078125, 1.875, -0.470703125, -1.265625, -1.421875, 0.77734375, -0.3671875, -0.9453125,
    0.318359375, 0.7734375, -0.1884765625, -0.022216796875, -0.220703125, -1.59375, -0.81640625, -0.255859375,
)  # fmt: skip
_RELEASED_STD = (
    3.0625, 2.203125, 2.265625, 4.84375, 2.5, 3.9375, 2.203125, 3.03125,
    2.1875, 2.046875, 2.71875, 2.390625, 2.390625, 2.453125, 2.25, 2.15625,
)  # fmt: skip


@dataclass(frozen=True)
class VAEConfig(ConfigSection):
    """The autoencoder between pixels and latents (`vae/config.json`)."""

    NAME = "vae"

    in_channels: int = 3
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (128, 512, 1024, 1024)
    layers_per_block: int = 3
    latent_channels: int = 16
    norm_num_groups: int = 32
    sample_size: int = 1024
    latents_mean: tuple[float, ...] = _RELEASED_MEAN
    latents_std: tuple[float, ...] = _RELEASED_STD

    def __post_init__(self) -> None:
        self.require_positive()
        if len(self.latents_mean) != self.latent_channels or len(self.latents_std) != self.latent_channels:
            raise ValueError(f"latents_mean and latents_std must have {self.latent_channels} numbers each")
        for channels in self.block_out_channels:
            if channels % self.norm_num_groups:
                raise ValueError(f"{channels} channels do not divide into {self.norm_num_groups} groups")

    @property
    def factor(self) -> int:
        """Pixels per latent cell, each way."""
        return 2 ** (len(self.block_out_channels) - 1)

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Self:
        blocks = len(config.get("block_out_channels", (0,) * 4))
        cls.require(
            {"mid_block_add_attention": True, "use_quant_conv": True, "use_post_quant_conv": True, **config},
            act_fn="silu",
            mid_block_add_attention=False,
            use_quant_conv=False,
            use_post_quant_conv=False,
            down_block_types=["DownEncoderBlock2D"] * blocks,
            up_block_types=["UpDecoderBlock2D"] * blocks,
        )
        if config.get("latents_mean") is None or config.get("latents_std") is None:
            raise CheckpointError(
                "the vae of this checkpoint cannot be used",
                "its config.json has no latents_mean and latents_std, and GLM-Image normalises latents per channel with them",
                "add both lists (one number per latent channel) to vae/config.json",
            )
        return cls.pick(cls.require_stated(config, but=("sample_size",)))

    def to_json(self) -> JSON:
        blocks = len(self.block_out_channels)
        return {
            "_class_name": "AutoencoderKL",
            "_diffusers_version": "0.42.1",
            "act_fn": "silu",
            "down_block_types": ["DownEncoderBlock2D"] * blocks,
            "up_block_types": ["UpDecoderBlock2D"] * blocks,
            "mid_block_add_attention": False,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
            "force_upcast": True,
            **{k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()},
        }
