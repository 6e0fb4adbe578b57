"""Named model sizes: the released one, and one that trains on a laptop."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from sampan.documents import shown
from sampan.errors import JobError, did_you_mean
from sampan.models.config import (
    ARConfig,
    DiTConfig,
    Geometry,
    GlyphConfig,
    ImageProcessorConfig,
    ModelConfig,
    PaintingConfig,
    PromptConfig,
    SamplingConfig,
    SchedulerConfig,
    TextConfig,
    VAEConfig,
    VisionConfig,
    VQConfig,
)


def _nano() -> ModelConfig:
    """128×128 pictures, 8×8 prior tokens of 16 px, a 4×4 preview, a 4× autoencoder and 64 decoder tokens of 4×4 latents.

    Decision record 0006 says how the geometry was chosen.
    """
    # 512 learned pieces and 64 special rows
    codes, visual, text = 1024, 1088, 576
    dim = 256
    return ModelConfig(
        ar=ARConfig(
            text=TextConfig(
                vocab_size=visual + text,
                vision_vocab_size=visual,
                hidden_size=dim,
                intermediate_size=704,
                num_hidden_layers=4,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=2048,
                # columns turn by the slowest frequencies: at the released 10000 neighbouring columns would be 0.003 rad apart
                rope_theta=10.0,
                mrope_section=(4, 6, 6),
                pad_token_id=visual,  # set from the learned tokenizer when a model is written
                eos_token_id=codes + 1,
            ),
            vision=VisionConfig(
                depth=4, hidden_size=192, intermediate_size=768, num_heads=3, image_size=128, patch_size=16
            ),
            vq=VQConfig(num_embeddings=codes, embed_dim=32, latent_channels=192),
            image_token_id=visual,
            image_start_token_id=codes,
            image_end_token_id=codes + 1,
        ),
        dit=DiTConfig(
            patch_size=4,
            in_channels=4,
            out_channels=4,
            num_layers=6,
            attention_head_dim=64,
            num_attention_heads=4,
            text_embed_dim=128,
            time_embed_dim=128,
            condition_dim=32,
            prior_vq_quantizer_codebook_size=codes,
        ),
        vae=VAEConfig(
            block_out_channels=(8, 16, 64),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=128,
            latents_mean=(0.0,) * 4,  # measured and set when the autoencoder is trained
            latents_std=(1.0,) * 4,
        ),
        glyph=GlyphConfig(d_model=128, d_kv=32, d_ff=320, num_layers=3, num_heads=4),
        processor=ImageProcessorConfig(min_pixels=128 * 128, max_pixels=512 * 512, patch_size=16),
        # noise levels are shifted the other way than a released 1024 px would have it: at 4x latents words are decided early
        scheduler=SchedulerConfig(base_shift=2.625),
        # on 60 test signs 0.53 of the words are read, at the released 0.9 0.48
        sampling=SamplingConfig(temperature=0.3),
        geometry=Geometry(prior_px=16, preview_side=4, default_px=128),
        # on 80 test signs 0.84 of the words are read, with the released 1.5 0.79
        painting=PaintingConfig(guidance_scale=3.0, num_inference_steps=20),
        prompt=PromptConfig("straight"),  # the captions it is made for quote in no other marks
    )


PRESETS = {"glm-image": ModelConfig, "nano": _nano}
_PARTS = {"text": ("ar", "text"), "vision": ("ar", "vision"), "vq": ("ar", "vq")}
_TOP = ("ar", "dit", "vae", "glyph", "scheduler", "processor", "sampling", "geometry", "painting", "prompt")


def get(name: str, override: Mapping[str, Mapping[str, Any]] | None = None) -> ModelConfig:
    """Return a preset's config, with single values replaced.

    Args:
        override: Section (`text`, `vision`, `vq`, `ar`, `dit`, `vae`, `glyph`, `processor`, `sampling`, `geometry`,
            `painting`, `prompt`, `scheduler`) to field to value, as in `[model.override.dit] num_layers = 4`. What must agree
            between parts (codebook sizes, widths, ids that follow from them) is checked, not guessed.

    Raises:
        JobError: An unknown preset, section or field, or values that do not fit together.
    """
    if name not in PRESETS:
        raise JobError(f"`model.preset = {name!r}` is not a preset", (), did_you_mean(name, PRESETS))
    config = PRESETS[name]()
    grouped: dict[str, dict[str, Any]] = {}
    for section, values in (override or {}).items():
        if section not in (*_TOP, *_PARTS):
            raise JobError(
                f"`model.override.{section}` is not a part of a model", (), did_you_mean(section, (*_TOP, *_PARTS))
            )
        if not isinstance(values, Mapping):
            raise JobError(f"`model.override.{section}` must be a table, got {shown(values)}")
        grouped[section] = dict(values)
    try:
        inner = {k: _replace(getattr(config.ar, k), k, grouped.pop(k)) for k in _PARTS if k in grouped}
        ar = _replace(dataclasses.replace(config.ar, **inner), "ar", grouped.pop("ar", {}))
        parts = {k: _replace(getattr(config, k), k, v) for k, v in grouped.items()}
        return dataclasses.replace(config, ar=ar, **parts)
    except ValueError as error:
        raise JobError(f"the model `{name}` with these overrides cannot be built", str(error)) from error


def _replace(config: Any, section: str, values: Mapping[str, Any]) -> Any:
    known = {f.name for f in dataclasses.fields(config)}
    for key, value in values.items():
        if key not in known:
            raise JobError(f"`model.override.{section}.{key}` is not a field", (), did_you_mean(key, known))
        if dataclasses.is_dataclass(getattr(config, key)):
            raise JobError(
                f"`model.override.{section}.{key}` cannot be set", "it is a part of a model by itself",
                f"put its fields below [model.override.{key}]",
            )  # fmt: skip
        if value is None:
            raise JobError(f"`model.override.{section}.{key}` has no value")
    return dataclasses.replace(config, **{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
