"""Configs go to the released files and back unchanged, through the libraries' own classes too; what is not
implemented is refused by name.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from sampan.errors import CheckpointError
from sampan.models import presets
from sampan.models.config import (
    ARConfig,
    DiTConfig,
    Geometry,
    GlyphConfig,
    ImageProcessorConfig,
    ModelConfig,
    PaintingConfig,
    SamplingConfig,
    SchedulerConfig,
    TextConfig,
    VAEConfig,
    VisionConfig,
    VQConfig,
)

SECTIONS = {"ar": ARConfig, "dit": DiTConfig, "vae": VAEConfig, "glyph": GlyphConfig, "scheduler": SchedulerConfig,
            "processor": ImageProcessorConfig, "sampling": SamplingConfig, "geometry": Geometry,
            "painting": PaintingConfig}  # fmt: skip


def through_a_file(config: Any) -> Any:
    return json.loads(json.dumps(config.to_json()))


def library_ar(stated: dict[str, Any]) -> str:
    from transformers import GlmImageConfig

    return GlmImageConfig(**stated).to_json_string()


def library_glyph(stated: dict[str, Any]) -> str:
    from transformers import T5Config

    return T5Config(**stated).to_json_string(use_diff=False)


def library_dit(stated: dict[str, Any]) -> str:
    import torch
    from diffusers import GlmImageTransformer2DModel

    with torch.device("meta"):
        return (
            GlmImageTransformer2DModel.from_config(stated | {"num_layers": 1})
            .to_json_string()
            .replace('"num_layers": 1', f'"num_layers": {stated["num_layers"]}')
        )


def library_vae(stated: dict[str, Any]) -> str:
    import torch
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        return AutoencoderKL.from_config(stated).to_json_string()


def library_scheduler(stated: dict[str, Any]) -> str:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler.from_config(stated).to_json_string()


def library_processor(stated: dict[str, Any]) -> str:
    from transformers.models.glm_image.image_processing_pil_glm_image import GlmImageImageProcessorPil

    return GlmImageImageProcessorPil.from_dict(stated).to_json_string()


def library_sampling(stated: dict[str, Any]) -> str:
    from transformers import GenerationConfig

    return GenerationConfig(**stated).to_json_string()


LIBRARY = {"ar": library_ar, "glyph": library_glyph, "dit": library_dit, "vae": library_vae,
           "scheduler": library_scheduler, "processor": library_processor, "sampling": library_sampling}  # fmt: skip


@pytest.mark.parametrize("preset", ["glm-image", "nano"])
@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_survives_its_file(section: str, preset: str):
    config = getattr(presets.get(preset), section)
    assert SECTIONS[section].from_json(through_a_file(config)) == config


@pytest.mark.parametrize("preset", ["glm-image", "nano"])
@pytest.mark.parametrize("section", LIBRARY)
def test_a_section_survives_the_library(section: str, preset: str):
    config = getattr(presets.get(preset), section)
    written = json.loads(LIBRARY[section](through_a_file(config)))
    assert SECTIONS[section].from_json(written) == config


def test_the_libraries_defaults_are_the_release():
    from transformers import GlmImageTextConfig, GlmImageVisionConfig, GlmImageVQVAEConfig

    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5, "mrope_section": [8, 12, 12]}
    text = GlmImageTextConfig(rope_parameters=rope).to_dict()
    assert TextConfig.from_json(json.loads(json.dumps(text, default=str))) == TextConfig()
    assert VisionConfig.from_json(GlmImageVisionConfig().to_dict()) == VisionConfig()
    assert VQConfig.from_json(GlmImageVQVAEConfig().to_dict()) == VQConfig()


RELEASED = ModelConfig()
# a section, what it is called in the refusal, a key of its file, a value that is not implemented, and the one that is
REFUSED = [
    (TextConfig, "text model", "hidden_act", "gelu", "silu"),
    (TextConfig, "text model", "tie_word_embeddings", True, False),
    (TextConfig, "text model", "head_dim", 64, 128),
    (VisionConfig, "vision encoder", "hidden_act", "gelu_pytorch_tanh", "gelu"),
    (VisionConfig, "vision encoder", "attention_bias", False, True),
    (VisionConfig, "vision encoder", "spatial_merge_size", 2, 1),
    (VAEConfig, "vae", "act_fn", "gelu", "silu"),
    (VAEConfig, "vae", "mid_block_add_attention", True, False),
    (VAEConfig, "vae", "use_quant_conv", True, False),
    (VAEConfig, "vae", "use_post_quant_conv", True, False),
    (GlyphConfig, "text_encoder", "feed_forward_proj", "relu", "gated-gelu"),
    (SchedulerConfig, "scheduler", "use_dynamic_shifting", False, True),
    (SchedulerConfig, "scheduler", "time_shift_type", "exponential", "linear"),
    (SchedulerConfig, "scheduler", "use_karras_sigmas", True, False),
    (SchedulerConfig, "scheduler", "shift_terminal", 0.1, None),
    (ImageProcessorConfig, "image processor", "resample", 2, 3),
    (ImageProcessorConfig, "image processor", "merge_size", 2, 1),
    (ImageProcessorConfig, "image processor", "temporal_patch_size", 2, 1),
    (ImageProcessorConfig, "image processor", "image_mean", [0.48, 0.46, 0.41], [0.5, 0.5, 0.5]),
]


@pytest.mark.parametrize(("section", "part", "key", "has", "implements"), REFUSED)
def test_what_is_not_implemented_is_refused(section: Any, part: str, key: str, has: Any, implements: Any):
    with pytest.raises(CheckpointError) as caught:
        section.from_json(through_a_file(section()) | {key: has})
    assert str(caught.value) == (
        f"error: the {part} of this checkpoint cannot be run\n"
        f"  because its config.json has {key} = {has!r}; sampan implements {key} = {implements!r} only\n\n"
        "hint: GLM-Image-class checkpoints keep the released value; is this another kind of model?"
    )


def test_another_kind_of_rotation_is_refused():
    with pytest.raises(CheckpointError, match="rope_type = 'yarn'; sampan implements rope_type = 'default' only"):
        TextConfig.from_json(through_a_file(TextConfig()) | {"rope_parameters": {"rope_type": "yarn"}})


@pytest.mark.parametrize("key", ["mid_block_add_attention", "use_quant_conv", "use_post_quant_conv"])
def test_a_vae_that_leaves_a_switch_to_the_library_s_default_is_refused(key: str):
    stated = {k: v for k, v in through_a_file(VAEConfig()).items() if k != key}
    with pytest.raises(CheckpointError, match=f"{key} = True"):  # the library's default
        VAEConfig.from_json(stated)


def test_a_text_model_without_rope_parameters():
    stated = {k: v for k, v in through_a_file(TextConfig()).items() if k != "rope_parameters"}
    with pytest.raises(CheckpointError) as caught:
        TextConfig.from_json(stated)
    assert str(caught.value) == (
        "error: the text model of this checkpoint cannot be built\n"
        "  because its text_config has no `rope_parameters`, and the library's class has no default for it\n\n"
        "hint: copy rope_parameters from the released vision_language_encoder/config.json"
    )


def test_a_vae_without_statistics():
    stated = through_a_file(VAEConfig()) | {"latents_mean": None}
    with pytest.raises(CheckpointError) as caught:
        VAEConfig.from_json(stated)
    assert str(caught.value) == (
        "error: the vae of this checkpoint cannot be used\n"
        "  because its config.json has no latents_mean and latents_std, and GLM-Image normalises latents per channel"
        " with them\n\n"
        "hint: add both lists (one number per latent channel) to vae/config.json"
    )


def test_older_spellings_are_read():
    stated = through_a_file(TextConfig())
    rope = stated.pop("rope_parameters")
    assert TextConfig.from_json(stated | {"rope_scaling": rope, "eos_token_id": [16385]}) == TextConfig()
    released = {
        "patch_size": 16,
        "min_pixels": 262144,
        "max_pixels": 4194304,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    assert ImageProcessorConfig.from_json(released) == ImageProcessorConfig()
    assert (
        ImageProcessorConfig.from_json({"image_processor": through_a_file(ImageProcessorConfig())})
        == ImageProcessorConfig()
    )


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"hidden_size": 100}, "hidden_size 100 is not a multiple of 32 heads"),
        ({"num_key_value_heads": 3}, "32 heads cannot share 3 key-value heads"),
        ({"mrope_section": (8, 8, 8)}, "mrope_section (8, 8, 8) must sum to half of the 64 rotary channels"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be at least 1, got 0"),
    ],
)
def test_numbers_that_contradict_each_other(change: dict[str, Any], fact: str):
    with pytest.raises(ValueError) as caught:
        dataclasses.replace(TextConfig(), **change)
    assert str(caught.value) == fact


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (
            {"dit": dataclasses.replace(RELEASED.dit, in_channels=4)},
            "the decoder and the vae differ in latent channels",
        ),
        (
            {"dit": dataclasses.replace(RELEASED.dit, text_embed_dim=8)},
            "the decoder and the glyph encoder differ in width",
        ),
        (
            {"dit": dataclasses.replace(RELEASED.dit, prior_vq_quantizer_codebook_size=9)},
            "the decoder knows fewer codes than the tokenizer writes",
        ),
        ({"geometry": Geometry(prior_px=24, default_px=96)}, "prior_px 24 is not a multiple of 16 px"),
        (
            {"processor": ImageProcessorConfig(patch_size=14)},
            "processor and vision encoder differ in patch_size",
        ),
    ],
)
def test_parts_that_do_not_fit_together(change: dict[str, Any], fact: str):
    with pytest.raises(CheckpointError) as caught:
        dataclasses.replace(RELEASED, **change)
    assert str(caught.value) == f"error: the parts of this model do not fit together\n  because {fact}"


def test_geometry_of_the_release():
    geometry = Geometry()
    grids = {
        (1024, 1024): (16, 16),
        (1152, 768): (19, 13),
        (1024, 1152): (15, 16),
        (512, 2048): (8, 32),
        (128, 128): (16, 16),
    }
    assert {size: geometry.preview_grid(*size) for size in grids} == grids
    assert geometry.prior_grid(1152, 768) == (36, 24)
    assert (RELEASED.upsample, RELEASED.token_scale) == (2, 2)
    nano = presets.get("nano")
    assert (nano.upsample, nano.token_scale) == (1, 1)
    assert nano.geometry.preview_grid(128, 128) == (4, 4)


def test_a_missing_top_k_is_the_library_s_fifty():
    assert SamplingConfig.from_json({"do_sample": True}) == SamplingConfig(temperature=0.9, top_p=0.75, top_k=50)
