"""Sizes and geometry of a model: one frozen dataclass a part, read from and written to the released config files.

Field names are those of the released `config.json` files. Keys that do not change the mathematics are ignored on
reading; a value that would change it in a way this code does not implement is an error, never a silent difference.
Nothing here loads a framework.

Source of the released values: the config files of zai-org/GLM-Image (January 2026).
"""

from __future__ import annotations

# over 400 lines because the parts of one model are read beside one another, each with the release's own file behind it
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from sampan.errors import CheckpointError

JSON = dict[str, Any]


def _require(config: Mapping[str, Any], part: str, **wanted: Any) -> None:
    """Refuse a config whose value changes the mathematics in a way that is not implemented."""
    for key, value in wanted.items():
        if config.get(key, value) != value:
            raise CheckpointError(
                f"the {part} of this checkpoint cannot be run",
                f"its config.json has {key} = {config[key]!r}; sampan implements {key} = {value!r} only",
                "GLM-Image-class checkpoints keep the released value; is this another kind of model?",
            )


def _pick(cls: type, config: Mapping[str, Any], part: str, **given: Any) -> Any:
    """Build `cls` from the keys of `config` that are its fields; `given` values win. Missing keys name themselves."""
    values: dict[str, Any] = {}
    for f in fields(cls):
        if f.name in given:
            values[f.name] = given[f.name]
        elif config.get(f.name) is not None:
            value = config[f.name]
            values[f.name] = tuple(value) if isinstance(value, list) else value
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise CheckpointError(
                f"the {part} of this checkpoint cannot be built",
                f"its config.json has no `{f.name}`",
                "write the folder again with the tool that made it, or add the key by hand",
            )
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the {part} of this checkpoint cannot be built", str(error)) from error


def _stated(cls: type, config: Mapping[str, Any], part: str, but: tuple[str, ...] = ()) -> Mapping[str, Any]:
    """Refuse a config that leaves a size to a default."""
    missing = [f.name for f in fields(cls) if f.name not in but and config.get(f.name) is None]
    if missing:
        raise CheckpointError(
            f"the {part} of this checkpoint cannot be built",
            f"its config.json has no {', '.join(f'`{name}`' for name in missing)}",
            "write the folder again with the tool that made it, or add the keys by hand",
        )
    return config


def _positive(config: Any) -> None:
    """Raise ValueError unless every integer field is at least 1."""
    for f in fields(config):
        value = getattr(config, f.name)
        if isinstance(value, int) and not isinstance(value, bool) and not f.name.endswith("_id") and value < 1:
            raise ValueError(f"{f.name} must be at least 1, got {value}")


@dataclass(frozen=True)
class TextConfig:
    """The autoregressive decoder (GLM-4 shape, spec: `vision_language_encoder/config.json`, key `text_config`)."""

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
        _positive(self)
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
        _require(config, "text model", hidden_act="silu", tie_word_embeddings=False)
        # older files spell it rope_scaling; the class has no default, so a file without either cannot be run
        rope = config.get("rope_parameters") or config.get("rope_scaling")
        if rope is None:
            raise CheckpointError(
                "the text model of this checkpoint cannot be built",
                "its text_config has no `rope_parameters`, and the library's class has no default for it",
                "copy rope_parameters from the released vision_language_encoder/config.json",
            )
        _require(rope, "text model", rope_type="default")
        head_dim = config.get("head_dim")
        if head_dim is not None and head_dim * config["num_attention_heads"] != config["hidden_size"]:
            _require(config, "text model", head_dim=config["hidden_size"] // config["num_attention_heads"])
        eos = config.get("eos_token_id", 16385)
        given = {
            "rope_theta": float(rope.get("rope_theta", config.get("rope_theta", 10000.0))),
            "partial_rotary_factor": rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0)),
            "mrope_section": tuple(rope.get("mrope_section", (8, 12, 12))),
            "eos_token_id": eos[0] if isinstance(eos, list) else eos,
        }
        return _pick(cls, config, "text model", **given)

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
class VisionConfig:
    """The vision encoder of the tokenizer (SigLIP2 shape; key `vision_config`)."""

    depth: int = 40
    hidden_size: int = 1536
    intermediate_size: int = 6144
    num_heads: int = 16
    in_channels: int = 3
    image_size: int = 2048
    patch_size: int = 16
    layer_norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        _positive(self)
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
        _require(config, "vision encoder", hidden_act="gelu", attention_bias=True, spatial_merge_size=1)
        return _pick(cls, config, "vision encoder")

    def to_json(self) -> JSON:
        fixed = {
            "model_type": "glm_image_vision",
            "hidden_act": "gelu",
            "attention_bias": True,
            "spatial_merge_size": 1,
        }
        return {**fixed, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class VQConfig:
    """The vector quantizer of the tokenizer (key `vq_config`)."""

    num_embeddings: int = 16384
    embed_dim: int = 2048
    latent_channels: int = 1536

    def __post_init__(self) -> None:
        _positive(self)

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Self:
        return _pick(cls, config, "vector quantizer")

    def to_json(self) -> JSON:
        return {"model_type": "glm_image_vqmodel", **dataclasses.asdict(self)}


@dataclass(frozen=True)
class ARConfig:
    """The vision-language encoder: text decoder, vision encoder, quantizer (`vision_language_encoder/config.json`)."""

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
        return _pick(cls, config, "vision_language_encoder", **given)

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


@dataclass(frozen=True)
class DiTConfig:
    """The diffusion decoder (`transformer/config.json`). The defaults are the release, not the library class's."""

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
        _positive(self)
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
        return _pick(cls, _stated(cls, config, "transformer"), "transformer")

    def to_json(self) -> JSON:
        return {"_class_name": "GlmImageTransformer2DModel", "_diffusers_version": "0.42.1", **dataclasses.asdict(self)}


_RELEASED_MEAN = (
    -0.2080078125, 1.875, -0.470703125, -1.265625, -1.421875, 0.77734375, -0.3671875, -0.9453125,
    0.318359375, 0.7734375, -0.1884765625, -0.022216796875, -0.220703125, -1.59375, -0.81640625, -0.255859375,
)  # fmt: skip
_RELEASED_STD = (
    3.0625, 2.203125, 2.265625, 4.84375, 2.5, 3.9375, 2.203125, 3.03125,
    2.1875, 2.046875, 2.71875, 2.390625, 2.390625, 2.453125, 2.25, 2.15625,
)  # fmt: skip


@dataclass(frozen=True)
class VAEConfig:
    """The autoencoder between pixels and latents (`vae/config.json`)."""

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
        _positive(self)
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
        _require(
            {"mid_block_add_attention": True, "use_quant_conv": True, "use_post_quant_conv": True, **config},
            "vae",
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
        return _pick(cls, _stated(cls, config, "vae", but=("sample_size",)), "vae")

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


WORD_PX = 32, 128  # height and width of the pictures of words that the glyph encoder is trained on
NUM_WAVES = 12  # cosines along a word, by which its letters and its picture's columns are summed
NUM_TOLD = 54  # channels of a byte's embedding that tell where the byte stands and which letter it is


@dataclass(frozen=True)
class GlyphConfig:
    """The glyph text encoder (ByT5 shape; `text_encoder/config.json`)."""

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
        _positive(self)

    @property
    def num_told(self) -> int:
        """Channels of an embedding that are asked what the byte is: no more than there are."""
        return min(NUM_TOLD, self.d_model)

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Self:
        # the library leaves out what equals its class default, so those defaults stand in for missing keys
        config = {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8, "vocab_size": 32128} | {
            **config
        }
        _require({"feed_forward_proj": "relu", **config}, "text_encoder", feed_forward_proj="gated-gelu")
        return _pick(cls, config, "text_encoder")

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


@dataclass(frozen=True)
class SchedulerConfig:
    """The noise schedule (`scheduler/scheduler_config.json`)."""

    num_train_timesteps: int = 1000
    base_shift: float = 0.25
    max_shift: float = 0.75
    base_image_seq_len: int = 256
    max_image_seq_len: int = 4096

    def __post_init__(self) -> None:
        _positive(self)

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Self:
        _require(
            config,
            "scheduler",
            use_dynamic_shifting=True,
            time_shift_type="linear",
            use_karras_sigmas=False,
            use_exponential_sigmas=False,
            use_beta_sigmas=False,
            invert_sigmas=False,
            stochastic_sampling=False,
            shift_terminal=None,
        )
        return _pick(cls, config, "scheduler")

    def to_json(self) -> JSON:
        return {
            "_class_name": "FlowMatchEulerDiscreteScheduler",
            "_diffusers_version": "0.42.1",
            "use_dynamic_shifting": True,
            "time_shift_type": "linear",
            "shift": 1.0,
            **dataclasses.asdict(self),
        }


@dataclass(frozen=True)
class ImageProcessorConfig:
    """How a reference picture becomes patches (`processor/preprocessor_config.json`)."""

    min_pixels: int = 512 * 512
    max_pixels: int = 2048 * 2048
    patch_size: int = 16

    def __post_init__(self) -> None:
        _positive(self)

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Self:
        config = config.get("image_processor", config)  # newer libraries nest it in processor_config.json
        _require(config, "image processor", temporal_patch_size=1, merge_size=1, resample=3, do_resize=True)
        clip = {"image_mean": "the library's default", "image_std": "the library's default"}
        _require({**clip, **config}, "image processor", image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5])
        size = config.get("size") or {}
        given = {
            "min_pixels": config.get("min_pixels") or size.get("shortest_edge") or 512 * 512,
            "max_pixels": config.get("max_pixels") or size.get("longest_edge") or 2048 * 2048,
        }
        return _pick(cls, config, "image processor", **given)

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
class SamplingConfig:
    """How the AR model samples (`vision_language_encoder/generation_config.json`).

    A missing `top_k` means 50, because that is what the library's `generate` does with such a file.
    """

    temperature: float = 0.9
    top_p: float = 0.75
    top_k: int = 50

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Self:
        return _pick(cls, config, "generation config")

    def to_json(self) -> JSON:
        return {"do_sample": True, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class Geometry:
    """How pixels, prior tokens, latents and DiT tokens relate. Sizes are (height, width).

    The released files do not state these numbers (the reference code has them built in), so a folder with other
    numbers carries them in `sampan.json` at its root; without that file the released ones hold.

    Args:
        prior_px: Pixels per prior token, each way (32 in the release).
        preview_side: Side of the preview grid of a square picture, in tokens (16 in the release).
        default_px: Side of the picture made when no size is asked for.
    """

    prior_px: int = 32
    preview_side: int = 16
    default_px: int = 1024

    def __post_init__(self) -> None:
        _positive(self)
        if self.default_px % self.prior_px:
            raise ValueError(f"default_px {self.default_px} is not a multiple of prior_px {self.prior_px}")

    def prior_grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the (rows, columns) of prior tokens of a picture whose sides are multiples of `prior_px`."""
        return height // self.prior_px, width // self.prior_px

    def preview_grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the (rows, columns) of the preview: the same aspect ratio at about `preview_side`² tokens."""
        rows, columns = self.prior_grid(height, width)
        ratio = rows / columns
        # truncation, and a floor of one row that the reference does not need below an aspect ratio of 256
        return max(1, int(math.sqrt(ratio) * self.preview_side)), max(1, int(math.sqrt(1 / ratio) * self.preview_side))

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Self:
        return _pick(cls, config, "geometry")

    def to_json(self) -> JSON:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class PaintingConfig:
    """How the decoder paints where nobody says otherwise.

    The released files do not state it, so a folder that wants other values carries them in `sampan.json`.

    Args:
        guidance_scale: Weight of the conditioning; 1 or less: none (1.5 in the release's pipeline).
    """

    guidance_scale: float = 1.5

    def __post_init__(self) -> None:
        # of another kind: whoever reads the file says so
        if isinstance(self.guidance_scale, int | float) and not 0 <= self.guidance_scale < math.inf:
            raise ValueError(f"guidance_scale {self.guidance_scale} is not a number of 0 or more")

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Self:
        return _pick(cls, config, "painting")

    def to_json(self) -> JSON:
        return dataclasses.asdict(self)


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
