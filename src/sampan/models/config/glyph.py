"""The glyph text encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from sampan.models.config.section import JSON, ConfigSection

WORD_PX = 32, 128  # height and width of the pictures of words that the glyph encoder is trained on
NUM_WAVES = 12  # cosines along a word, by which its letters and its picture's columns are summed
NUM_TOLD = 54  # channels of a byte's embedding that tell where the byte stands and which letter it is


@dataclass(frozen=True)
class GlyphConfig(ConfigSection):
    """The glyph text encoder (ByT5 shape; `text_encoder/config.json`)."""

    NAME = "text_encoder"

    vocab_size: int = 384
    d_model: int = 1472
    d_kv: int = 64
    d_ff: int = 3584
    num_layers: int = 12
    num_heads: int = 6
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6

    def __post_init__(self) -> None:
        self.require_positive()

    @property
    def num_told(self) -> int:
        """Channels of an embedding that are asked what the byte is: no more than there are."""
        return min(NUM_TOLD, self.d_model)

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Self:
        # the library leaves out what equals its class default, so those defaults stand in for missing keys
        defaults = {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8, "vocab_size": 32128}
        config = {**defaults, **config}
        cls.require({"feed_forward_proj": "relu", **config}, feed_forward_proj="gated-gelu")
        return cls.pick(config)

    def to_json(self) -> JSON:
        return {
            "architectures": ["T5EncoderModel"],
            "model_type": "t5",
            "feed_forward_proj": "gated-gelu",
            "dense_act_fn": "gelu_new",
            "is_gated_act": True,
            "is_encoder_decoder": False,
            "is_decoder": False,
            "use_cache": False,
            "tie_word_embeddings": True,
            "dropout_rate": 0.0,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "decoder_start_token_id": 0,
            "num_decoder_layers": self.num_layers,
            **dataclasses.asdict(self),
        }
