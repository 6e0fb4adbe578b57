"""Every tensor of the release has its place: names, shapes and numbers of parameters, on shapes alone."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from sampan.frameworks import device as dev
from sampan.models import presets
from sampan.models.build import PARTS, build
from sampan.models.config import ModelConfig

Shapes = dict[str, tuple[int, ...]]
# spec of the release: what its weight files hold
COUNTS = {
    "ar": 8_847_155_200 + 67_633_152,
    "tokenizer": 1_159_607_808 + 39_849_472,
    "decoder": 6_926_882_880,
    "vae": 406_100_643,
    "glyph": 217_657_472,
}


def shapes(part: str, preset: str = "glm-image") -> Shapes:
    with dev.on_meta():
        module = build(part, presets.get(preset))
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def count(found: Shapes, prefix: str = "") -> int:
    from math import prod

    return sum(prod(shape) for name, shape in found.items() if name.startswith(prefix))


def linear(name: str, width_out: int, width_in: int, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (width_out, width_in)} | ({f"{name}.bias": (width_out,)} if bias else {})


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def conv(name: str, channels_out: int, channels_in: int, kernel: int = 3) -> Shapes:
    return {f"{name}.weight": (channels_out, channels_in, kernel, kernel), f"{name}.bias": (channels_out,)}


def generator_of_the_release() -> Shapes:
    found: Shapes = {
        "model.language_model.embed_tokens.weight": (168064, 4096),
        "model.language_model.norm.weight": (4096,),
        "lm_head.weight": (16512, 4096),
    }
    for i in range(40):
        at = f"model.language_model.layers.{i}"
        found |= linear(f"{at}.self_attn.q_proj", 4096, 4096)
        found |= linear(f"{at}.self_attn.k_proj", 256, 4096)
        found |= linear(f"{at}.self_attn.v_proj", 256, 4096)
        found |= linear(f"{at}.self_attn.o_proj", 4096, 4096, bias=False)
        found |= linear(f"{at}.mlp.gate_up_proj", 27392, 4096, bias=False)
        found |= linear(f"{at}.mlp.down_proj", 4096, 13696, bias=False)
        for name in ("input_layernorm", "post_attention_layernorm", "post_self_attn_layernorm", "post_mlp_layernorm"):
            found[f"{at}.{name}.weight"] = (4096,)
    return found


def tokenizer_of_the_release() -> Shapes:
    found: Shapes = {"model.visual.embeddings.position_embedding.weight": (16384, 1536)}
    found |= conv("model.visual.patch_embed.proj", 1536, 3, 16)
    for i in range(40):
        at = f"model.visual.blocks.{i}"
        found |= norm(f"{at}.norm1", 1536) | norm(f"{at}.norm2", 1536)
        found |= linear(f"{at}.attn.qkv", 4608, 1536) | linear(f"{at}.attn.proj", 1536, 1536)
        found |= linear(f"{at}.mlp.fc1", 6144, 1536) | linear(f"{at}.mlp.fc2", 1536, 6144)
    found["model.vqmodel.quantize.embedding.weight"] = (16384, 2048)
    return (
        found | conv("model.vqmodel.quant_conv", 2048, 1536, 1) | conv("model.vqmodel.post_quant_conv", 1536, 2048, 1)
    )


def decoder_of_the_release() -> Shapes:
    found = linear("image_projector.proj", 4096, 64)
    found |= linear("glyph_projector.net.0.proj", 4096, 1472) | linear("glyph_projector.net.2", 4096, 4096)
    found["prior_token_embedding.weight"] = (16384, 4096)
    found |= linear("prior_projector.net.0.proj", 4096, 4096) | linear("prior_projector.net.2", 4096, 4096)
    found |= linear("time_condition_embed.timestep_embedder.linear_1", 512, 512)
    found |= linear("time_condition_embed.timestep_embedder.linear_2", 512, 512)
    found |= linear("time_condition_embed.condition_embedder.linear_1", 512, 1024)
    found |= linear("time_condition_embed.condition_embedder.linear_2", 512, 512)
    for i in range(30):
        at = f"transformer_blocks.{i}"
        found |= linear(f"{at}.norm1.linear", 49152, 512)
        for name in ("to_q", "to_k", "to_v", "to_out.0"):
            found |= linear(f"{at}.attn1.{name}", 4096, 4096)
        found |= linear(f"{at}.ff.net.0.proj", 16384, 4096) | linear(f"{at}.ff.net.2", 4096, 16384)
    return found | linear("norm_out.linear", 8192, 512) | linear("proj_out", 64, 4096)


def glyph_of_the_release() -> Shapes:
    found: Shapes = {"shared.weight": (384, 1472), "encoder.final_layer_norm.weight": (1472,)}
    found["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = (32, 6)
    for i in range(12):
        at = f"encoder.block.{i}.layer"
        for name in "qkv":
            found[f"{at}.0.SelfAttention.{name}.weight"] = (384, 1472)
        found[f"{at}.0.SelfAttention.o.weight"] = (1472, 384)
        found[f"{at}.0.layer_norm.weight"] = found[f"{at}.1.layer_norm.weight"] = (1472,)
        found[f"{at}.1.DenseReluDense.wi_0.weight"] = found[f"{at}.1.DenseReluDense.wi_1.weight"] = (3584, 1472)
        found[f"{at}.1.DenseReluDense.wo.weight"] = (1472, 3584)
    return found


def resnet(at: str, channels_in: int, channels_out: int) -> Shapes:
    found = norm(f"{at}.norm1", channels_in) | conv(f"{at}.conv1", channels_out, channels_in)
    found |= norm(f"{at}.norm2", channels_out) | conv(f"{at}.conv2", channels_out, channels_out)
    return found | ({} if channels_in == channels_out else conv(f"{at}.conv_shortcut", channels_out, channels_in, 1))


def vae_of_the_release() -> Shapes:
    widths = (128, 512, 1024, 1024)
    found = conv("encoder.conv_in", 128, 3) | norm("encoder.conv_norm_out", 1024) | conv("encoder.conv_out", 32, 1024)
    found |= conv("decoder.conv_in", 1024, 16) | norm("decoder.conv_norm_out", 128) | conv("decoder.conv_out", 3, 128)
    for side in ("encoder", "decoder"):
        for j in range(2):
            found |= resnet(f"{side}.mid_block.resnets.{j}", 1024, 1024)
    for i in range(4):
        before, width = widths[max(0, i - 1)], widths[i]
        for j in range(3):
            found |= resnet(f"encoder.down_blocks.{i}.resnets.{j}", before if j == 0 else width, width)
        before, width = widths[::-1][max(0, i - 1)], widths[::-1][i]
        for j in range(4):
            found |= resnet(f"decoder.up_blocks.{i}.resnets.{j}", before if j == 0 else width, width)
        if i < 3:
            found |= conv(f"encoder.down_blocks.{i}.downsamplers.0.conv", widths[i], widths[i])
            found |= conv(f"decoder.up_blocks.{i}.upsamplers.0.conv", width, width)
    return found


@pytest.mark.parametrize(
    ("part", "released"),
    [
        ("ar", generator_of_the_release()),
        ("tokenizer", tokenizer_of_the_release()),
        ("decoder", decoder_of_the_release()),
        ("vae", vae_of_the_release()),
        ("glyph", glyph_of_the_release()),
    ],
    ids=list(PARTS),
)
def test_names_and_shapes_are_the_released_ones(part: str, released: Shapes):
    found = shapes(part)
    assert found == released
    assert count(found) == COUNTS[part]


def test_parameters_are_the_released_ones_and_nothing_else_is_saved():
    for part in PARTS:
        with dev.on_meta():
            module = build(part, presets.get("nano"))
        assert set(module.state_dict()) == {name for name, _ in module.named_parameters()}


def test_counts_of_the_pieces():
    generator, tokenizer, vae = shapes("ar"), shapes("tokenizer"), shapes("vae")
    assert count(generator, "model.language_model.") == 8_847_155_200
    assert count(generator, "lm_head.") == 67_633_152
    assert count(generator, "model.language_model.layers.7.") == 203_969_024
    assert count(tokenizer, "model.visual.") == 1_159_607_808
    assert count(tokenizer, "model.vqmodel.") == 39_849_472
    assert count(generator) + count(tokenizer) == 10_114_245_632
    assert count(shapes("decoder"), "transformer_blocks.3.") == 226_578_432
    # published as 172.4 and 233.7 million
    assert (count(vae, "encoder."), count(vae, "decoder.")) == (172_443_808, 233_656_835)


def test_nano_is_small():
    assert 10_000_000 <= sum(count(shapes(part, "nano")) for part in PARTS) <= 30_000_000


def test_a_part_that_is_none():
    with pytest.raises(ValueError, match="'unet' is not one of ar, tokenizer, decoder, vae, glyph"):
        build("unet", ModelConfig())


def test_prefixes_divide_a_folder_between_its_parts():
    by_folder: dict[str, list[Any]] = {}
    for part, place in PARTS.items():
        by_folder.setdefault(place.folder, []).append((part, place.prefixes))
    for parts in by_folder.values():
        for part, prefixes in parts:
            others = tuple(p for other, theirs in parts if other != part for p in theirs)
            for name in shapes(part, "nano"):
                assert name.startswith(prefixes or "")
                assert not (others and name.startswith(others))


MODULES = (
    "ar",
    "build",
    "config",
    "dit",
    "glyph",
    "init",
    "layers",
    "pixels",
    "positions",
    "presets",
    "text",
    "vae",
    "vision",
)


def test_models_load_no_reference_implementation():
    code = (
        f"import sys, importlib\nfor name in {MODULES!r}: importlib.import_module('sampan.models.' + name)\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'transformers', 'diffusers', 'jinja2'}))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == "[]"


def test_config_and_geometry_load_no_framework():
    code = (
        "import sys\nfrom sampan.models import config, pixels, positions, presets, text\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'torch', 'mindspore'}))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == "[]"
