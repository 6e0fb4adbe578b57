"""The strength of LoRA files as they are found: alphas, names, what is left out and what is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sampan.checkpoint import lora
from sampan.checkpoint.folder import open_folder
from sampan.models.config import ModelConfig
from unit.checkpoint.lora_files import LAYER, failure, only, pair


@pytest.mark.parametrize("alpha", [torch.tensor([6.0]), torch.tensor(6), torch.tensor(6, dtype=torch.uint8)])
def test_an_alpha_tensor_sets_the_scale(alpha: torch.Tensor, config: ModelConfig, tmp_path: Path):
    save_file(pair(LAYER, rank=4) | {f"{LAYER}.alpha": alpha}, tmp_path / "x.safetensors")
    low = only(lora.read(tmp_path, config))
    assert low.layers[LAYER].scale == 1.5
    assert low.notes == ()


def test_alphas_of_every_layer_do_without_pefts_config(config: ModelConfig, tmp_path: Path):
    layers = ("transformer_blocks.0.attn1.to_q", "transformer_blocks.1.attn1.to_q")
    tensors = {}
    for layer, alpha in zip(layers, (2.0, 8.0), strict=True):
        stem = f"base_model.model.{layer}"
        tensors |= pair(stem, rank=4) | {f"{stem}.alpha": torch.tensor(alpha)}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    low = only(lora.read(tmp_path, config))
    assert [low.layers[layer].scale for layer in layers] == [0.5, 2.0]
    del tensors[f"base_model.model.{layers[1]}.alpha"]
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    said = failure(lambda: lora.read(tmp_path, config), tmp_path)
    assert f"is not beside it; `base_model.model.{layers[1]}` has no alpha of its own\n" in said


def test_the_strength_is_what_the_header_says(config: ModelConfig, tiny_folder: Path, tmp_path: Path):
    tensors = pair(f"diffusion_model.{LAYER}", rank=4)
    save_file(tensors, tmp_path / "x.safetensors", {"alpha": "2", "rank": "4"})
    base = open_folder(tiny_folder).tensors("decoder")[f"{LAYER}.weight"]
    merged = lora.merge({f"{LAYER}.weight": base}, "decoder", lora.read(tmp_path, config, 0.5))[f"{LAYER}.weight"]
    a, b = tensors.values()
    assert torch.allclose(merged, base + 0.5 * (2 / 4) * (b @ a), atol=1e-6)


def test_what_nothing_says_and_what_is_left_out_is_noted(config: ModelConfig, tmp_path: Path):
    path = tmp_path / "x.safetensors"
    text_encoder = "text_encoder.encoder.block.0.layer.0.SelfAttention.q"
    flat = "lora_te1_text_model_encoder_layers_0_mlp_fc1"
    more = pair(text_encoder) | pair(flat) | {f"{flat}.alpha": torch.tensor(1), f"{flat}.dora_scale": torch.ones(1)}
    save_file(pair(LAYER) | pair("transformer_blocks.1.attn1.to_q") | more, path)
    lows = lora.read(path, config)
    assert sorted(only(lows).layers) == [LAYER, "transformer_blocks.1.attn1.to_q"]
    assert lora.notes([*lows, *lows]) == [
        f"LoRA `{path}`: nothing says the alpha; the scale taken is 1 (alpha = rank), and --lora {path}:SCALE multiplies it",
        (
            f"LoRA `{path}`: 6 tensors of a text encoder are left out, first `{flat}.alpha`: "
            "sampan adapts generator and decoder only"
        ),
    ]
    save_file(pair(LAYER) | pair("transformer_blocks.1.attn1.to_q") | {f"{LAYER}.alpha": torch.tensor(2)}, path)
    (note,) = lora.notes(lora.read(path, config))
    assert (
        "nothing says the alpha of 1 of 2 layers, first `transformer_blocks.1.attn1.to_q`; the scale taken is 1" in note
    )


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ({".lora_up.weight"}, "`X.lora_down.weight` is missing"),
        ({".lora_down.weight"}, "`X.lora_up.weight` is missing"),
        ({".alpha"}, "`X.lora_down.weight` and `X.lora_up.weight` are missing"),
        ({".lora_up.weight", ".alpha"}, "`X.lora_down.weight` is missing"),
    ],
)
def test_missing_tensors_are_named(left: set[str], said: str, config: ModelConfig, tmp_path: Path):
    whole, stem = "lora_unet_transformer_blocks_0_attn1_to_q", "lora_unet_transformer_blocks_1_attn1_to_q"
    tensors = pair(whole, names=("lora_down", "lora_up"))
    broken = pair(stem, names=("lora_down", "lora_up")) | {f"{stem}.alpha": torch.tensor(1.0)}
    save_file(tensors | {stem + end: broken[stem + end] for end in left}, tmp_path / "x.safetensors")
    found = failure(lambda: lora.read(tmp_path, config), tmp_path)
    assert found.splitlines()[0] == "error: the LoRA `FOLDER/x.safetensors` is not whole".replace("/", os.sep)
    assert found.splitlines()[1].endswith(f" is there, and {said.replace('X', stem)}")
