"""The vision-language encoder: the AR generator, the vision encoder and the quantizer of the image tokenizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from sampan.errors import CheckpointError
from sampan.models.config.section import JSON, ConfigSection


@dataclass(frozen=True)
class TextConfig(ConfigSection):
    """The autoregressive decoder (GLM-4 shape, spec: `vision_language_encoder/config.json`, key `text_config`)."""

    NAME = "text model"

    vocab_size: int = 168064
    vision_vocab_size: int = 16512
    hidden_size: int = 4096
    intermediate_size: int = 13696
    num_hidden_layers: int = 40
    num_attention_heads: int = 32
    num_key_value_heads: int = 2
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 1e-5
    attention_bias: bool = True
    rope_theta: float = 10000.0
    partial_rotary_factor: float = 0.5
    mrope_section: tuple[int, ...] = (8, 12, 12)
    pad_token_id: int = 167841
    eos_token_id: int = 16385

    def __post_init__(self) -> None:
        self.require_positive()
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of {self.num_attention_heads} heads")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"{self.num_attention_heads} heads cannot share {self.num_key_value_heads} key-value heads"
            )
        if sum(self.mrope_section) * 2 != self.rotary_dim:
            raise ValueError(
                f"mrope_section {self.mrope_section} must sum to half of the {self.rotary_dim} rotary channels"
            )

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def rotary_dim(self) -> int:
        """Channels of a head that are rotated; the rest pass through."""
        return int(self.head_dim * self.partial_rotary_factor)

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Self:
        cls.require(config, hidden_act="silu", tie_word_embeddings=False)
        # older files spell it rope_scaling; the class has no default, so a file without either cannot be run
        rope = config.get("rope_parameters") or config.get("rope_scaling")
        if rope is None:
            raise CheckpointError(
                "the text model of this checkpoint cannot be built",
                "its text_config has no `rope_parameters`, and the library's class has no default for it",
                "copy rope_parameters from the released vision_language_encoder/config.json",
            )
        cls.require(rope, rope_type="default")
        head_dim = config.get("head_dim")
        if head_dim is not None and head_dim * config["num_attention_heads"] != config["hidden_size"]:
            cls.require(config, head_dim=config["hidden_size"] // config["num_attention_heads"])
        eos = config.get("eos_token_id", 16385)
        given = {
            "rope_theta": float(rope.get("rope_theta", config.get("rope_theta", 10000.0))),
            "partial_rotary_factor": rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0)),
            "mrope_section": tuple(rope.get("mrope_section", (8, 12, 12))),
            "eos_token_id": eos[0] if isinstance(eos, list) else eos,
        }
        return cls.pick(config, **given)

    def to_json(self) -> JSON:
        out = dataclasses.asdict(self)
        rope = {
            "rope_type": "default",
            "rope_theta": out.pop("rope_theta"),
            "partial_rotary_factor": out.pop("partial_rotary_factor"),
            "mrope_section": list(out.pop("mrope_section")),
        }
        return {"model_type": "glm_image_text", "hidden_act": "silu", "rope_parameters": rope, **out}


@dataclass(frozen=True)
class VisionConfig(ConfigSection):
    """The vision encoder of the tokenizer (SigLIP2 shape; key `vision_config`)."""

    NAME = "vision encoder"

    depth: int = 40
    hidden_size: int = 1536
    intermediate_size: int = 6144
    num_heads: int = 16
    in_channels: int = 3
    image_size: int = 2048
    patch_size: int = 16
    layer_norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        self.require_positive()
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of {self.num_heads} heads")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")

    @property
    def grid_side(self) -> int:
        """Side of the learned position table, in patches."""
        return self.image_size // self.patch_size

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Self:
        cls.require(config, hidden_act="gelu", attention_bias=True, spatial_merge_size=1)
        return cls.pick(config)

    def to_json(self) -> JSON:
        fixed = {
            "model_type": "glm_image_vision",
            "hidden_act": "gelu",
            "attention_bias": True,
            "spatial_merge_size": 1,
        }
        return {**fixed, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class VQConfig(ConfigSection):
    """The vector quantizer of the tokenizer (key `vq_config`)."""

    NAME = "vector quantizer"

    num_embeddings: int = 16384
    embed_dim: int = 2048
    latent_channels: int = 1536

    def __post_init__(self) -> None:
        self.require_positive()

    def to_json(self) -> JSON:
        return {"model_type": "glm_image_vqmodel", **dataclasses.asdict(self)}


@dataclass(frozen=True)
class ARConfig(ConfigSection):
    """The vision-language encoder: text decoder, vision encoder, quantizer (`vision_language_encoder/config.json`)."""

    NAME = "vision_language_encoder"

    text: TextConfig = field(default_factory=TextConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)
    vq: VQConfig = field(default_factory=VQConfig)
    image_token_id: int = 167855
    image_start_token_id: int = 16384
    image_end_token_id: int = 16385

    def __post_init__(self) -> None:
        if self.vq.latent_channels != self.vision.hidden_size:
            raise ValueError(
                f"the quantizer reads {self.vq.latent_channels} channels, the vision encoder writes {self.vision.hidden_size}"
            )
        if self.vq.num_embeddings > self.text.vision_vocab_size:
            raise ValueError(
                f"{self.vq.num_embeddings} codes do not fit a visual vocabulary of {self.text.vision_vocab_size}"
            )

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Self:
        for key in ("text_config", "vision_config", "vq_config"):
            if not isinstance(config.get(key), Mapping):
                raise CheckpointError(
                    "the vision_language_encoder of this checkpoint cannot be built", f"its config.json has no `{key}`"
                )
        given = {
            "text": TextConfig.from_json(config["text_config"]),
            "vision": VisionConfig.from_json(config["vision_config"]),
            "vq": VQConfig.from_json(config["vq_config"]),
        }
        return cls.pick(config, **given)

    def to_json(self) -> JSON:
        return {
            "architectures": ["GlmImageForConditionalGeneration"],
            "model_type": "glm_image",
            "tie_word_embeddings": False,
            "image_token_id": self.image_token_id,
            "image_start_token_id": self.image_start_token_id,
            "image_end_token_id": self.image_end_token_id,
            "text_config": self.text.to_json(),
            "vision_config": self.vision.to_json(),
            "vq_config": self.vq.to_json(),
        }
