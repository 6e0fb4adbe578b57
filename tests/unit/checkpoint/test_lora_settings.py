"""Which scale a LoRA has by its header or its adapter_config.json, and which settings are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sampan.checkpoint.lora_settings import LoraScales, describe, read_scales
from sampan.errors import CheckpointError

LAYER = "transformer_blocks.0.attn1.to_q"
TENSORS = {f"{LAYER}.lora_A.weight": torch.ones(2, 4), f"{LAYER}.lora_B.weight": torch.ones(4, 2)}


def failure(file: Path, module: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_scales(file, [module])
    return caught.value.render().replace(str(file.parent), "FOLDER")


def test_alpha_over_rank_or_over_its_root_and_a_tensor_first():
    assert LoraScales().of(LAYER, 4) == 1.0
    assert LoraScales(6.0).of(LAYER, 4) == 1.5
    assert LoraScales(6.0, square_root=True).of(LAYER, 4) == 3.0
    assert LoraScales(6.0).of(LAYER, 4, alpha=2.0) == 0.5


def test_what_is_described_is_the_commonest_and_the_exceptions():
    settings = describe({"a": 2, "b": 4, "c": 4}, {"a": 2.0, "b": 2.0, "c": 1.5})
    assert settings["r"] == 4
    assert settings["rank_pattern"] == {"a": 2}
    assert (settings["lora_alpha"], type(settings["lora_alpha"])) == (2, int)
    assert settings["alpha_pattern"] == {"c": 1.5}
    assert settings["target_modules"] == ["a", "b", "c"]


SETTINGS = {
    "LOHA": ({"peft_type": "LOHA"}, "its kind is LOHA: CONFIG says so"),
    "DoRA": ({"lora_alpha": 2, "use_dora": True}, "its kind is use_dora: CONFIG sets it"),
    "PiSSA": (
        {"lora_alpha": 2, "init_lora_weights": "pissa_niter_4"},
        "its kind is pissa_niter_4: CONFIG says so, and such an addition goes with weights that it was taken from",
    ),
    "no alpha": ({}, "CONFIG has no numbers as `lora_alpha` and in `alpha_pattern`"),
    "a word": (
        {"lora_alpha": 2, "alpha_pattern": {"to_q": "8"}},
        "CONFIG has no numbers as `lora_alpha` and in `alpha_pattern`",
    ),
    "a pattern": (
        {"lora_alpha": 2, "alpha_pattern": {"(a+)+$": 8}},
        "CONFIG has `(a+)+$` in `alpha_pattern`, which is more than the end of a layer's name",
    ),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_refused_settings(kind: str, tmp_path: Path):
    settings, said = SETTINGS[kind]
    file = tmp_path / "adapter_model.safetensors"
    save_file(TENSORS, file)
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    found = failure(file, f"base_model.model.{LAYER}")
    where = f"`{Path('FOLDER', 'adapter_config.json')}`"
    assert found.splitlines()[1] == f"  because {said.replace('CONFIG', where)}"


@pytest.mark.parametrize(
    ("pattern", "scale"),
    [({"to_q": 8}, 4), ({"^transformer_blocks.0.attn1.to_q": 8}, 4), ({"^attn1.to_q": 8}, 1), ({"o_q": 8}, 1)],
)
def test_patterns_are_ends_of_names(pattern: dict[str, int], scale: float, tmp_path: Path):
    header = json.dumps({"lora_alpha": 2, "alpha_pattern": pattern})
    save_file(TENSORS, tmp_path / "x.safetensors", {"lora_adapter_metadata": header})
    assert read_scales(tmp_path / "x.safetensors", [LAYER]).of(LAYER, 2) == scale


def test_a_header_that_is_no_json(tmp_path: Path):
    save_file(TENSORS, tmp_path / "x.safetensors", {"lora_adapter_metadata": "{"})
    found = failure(tmp_path / "x.safetensors", LAYER)
    assert "its header is not JSON" in found
