"""Which scale a LoRA has by every place that says one, which places may not contradict, and which settings are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sampan.checkpoint import lora_names, weights
from sampan.checkpoint.lora_settings import LoraScales, ScaleSource, describe, read_scales
from sampan.errors import CheckpointError

LAYER = "transformer_blocks.0.attn1.to_q"
RANK = 4


def tensors(stem: str = LAYER, alpha: float | None = None) -> dict[str, torch.Tensor]:
    found = {f"{stem}.lora_A.weight": torch.ones(RANK, 8), f"{stem}.lora_B.weight": torch.ones(8, RANK)}
    return found if alpha is None else found | {f"{stem}.alpha": torch.tensor(alpha)}


def scale_of(
    folder: Path,
    header: dict[str, Any] | None = None,
    *,
    alpha: float | None = None,
    config: dict[str, Any] | None = None,
    stem: str = LAYER,
    name: str = "x.safetensors",
) -> float | None:
    """Return the scale of a file with one layer."""
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in (header or {}).items()}
    save_file(tensors(stem, alpha), folder / name, texts)
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    modules = lora_names.split(folder / name, weights.read_header(folder / name))
    return read_scales(folder / name, modules).of(stem, RANK, alpha)


def failure(folder: Path, *arguments: Any, **options: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        scale_of(folder, *arguments, **options)
    return caught.value.render().replace(str(folder), "FOLDER").replace("FOLDER\\", "FOLDER/")


def test_alpha_over_rank_or_over_its_root_and_a_tensor_over_rank():
    assert LoraScales("x").of(LAYER, 4) is None
    assert LoraScales("x", (ScaleSource("y", 6.0),)).of(LAYER, 4) == 1.5
    assert LoraScales("x", (ScaleSource("y", 6.0, square_root=True),)).of(LAYER, 4) == 3.0
    assert LoraScales("x").of(LAYER, 4, alpha=2.0) == 0.5


def test_what_is_described_is_the_commonest_and_the_exceptions():
    settings = describe({"a": 2, "b": 4, "c": 4}, {"a": 2.0, "b": 2.0, "c": 1.5})
    assert settings["r"] == 4
    assert settings["rank_pattern"] == {"a": 2}
    assert (settings["lora_alpha"], type(settings["lora_alpha"])) == (2, int)
    assert settings["alpha_pattern"] == {"c": 1.5}
    assert settings["target_modules"] == ["a", "b", "c"]


HEADERS: list[tuple[dict[str, Any], float | None]] = [
    ({"alpha": "2"}, 0.5),
    ({"alpha": " 2.0 ", "rank": "4"}, 0.5),
    ({"lora_alpha": "1", "r": "4"}, 0.25),
    ({"network_alpha": "8"}, 2.0),
    ({"ss_network_alpha": "2", "ss_network_dim": "4"}, 0.5),
    ({"ss_network_alpha": "2.0", "ss_network_dim": "None"}, 0.5),
    ({"transformer.lora_alpha": "2", "transformer.r": "4"}, 0.5),
    ({"Lora_Alpha": "2"}, 0.5),
    ({"lora_alpha": "2", "use_rslora": "True"}, 1.0),
    ({"ss_network_alpha": "2", "ss_network_args": {"rs_lora": "True"}}, 1.0),
    ({f"{LAYER}.alpha": "2"}, 0.5),
    ({f"transformer.{LAYER}.alpha": "2", "transformer_blocks.9.attn1.to_q.alpha": "2"}, 0.5),
    ({"lora_config": {"alpha": 2, "rank": 4}}, 0.5),
    ({"config": {"network": {"alpha": 2, "type": "lora"}}}, 0.5),
    ({"adapter": {"lora_alpha": 2}}, 0.5),
    ({"lora_adapter_metadata": {"transformer.r": 4, "transformer.lora_alpha": 2}}, 0.5),
    ({"lora_adapter_metadata": {"r": 4, "lora_alpha": 2, "use_rslora": True}}, 1.0),
    ({"lora_adapter_metadata": {"transformer.lora_alpha": 2, "text_encoder.lora_alpha": 8, "text_encoder.r": 8}}, 0.5),
    # what says nothing
    ({}, None),
    ({"format": "pt", "rank": "4"}, None),
    ({"ss_network_alpha": "None"}, None),
    ({"ss_network_alpha": "0"}, None),  # kohya's word for the rank
    ({"text_encoder.lora_alpha": "8"}, None),
    ({"lora_adapter_metadata": {"text_encoder.lora_alpha": 8, "text_encoder.r": 8}}, None),
    ({"optimizer": {"alpha": 0.9}, "ss_tag_frequency": {"alpha": 3}}, None),
]


@pytest.mark.parametrize(("header", "scale"), HEADERS)
def test_a_header_says_the_scale(header: dict[str, Any], scale: float | None, tmp_path: Path):
    assert scale_of(tmp_path, header) == scale


def test_places_that_agree(tmp_path: Path):
    header = {"alpha": "2", "ss_network_alpha": "2", "lora_adapter_metadata": {"r": 4, "lora_alpha": 2}}
    assert scale_of(tmp_path, header, alpha=2.0, config={"lora_alpha": 2, "r": 4}) == 0.5
    (tmp_path / "adapter_config.json").unlink()
    assert scale_of(tmp_path, {"ss_network_alpha": "1.1"}, alpha=1.1016) == pytest.approx(0.2754)  # as bf16 rounds it
    # LyCORIS writes alphas that are over the rank, whatever its own scale is over
    assert scale_of(tmp_path, {"ss_network_alpha": "2", "ss_network_args": {"rs_lora": True}}, alpha=4.0) == 1.0
    # kohya's extract and resize scripts, and blocks with alphas of their own
    assert scale_of(tmp_path, {"ss_network_alpha": "Dynamic", "ss_network_dim": "Dynamic"}, alpha=2.0) == 0.5
    varying = {"ss_network_alpha": "1", "ss_network_dim": "16", "ss_network_args": {"block_alphas": "1,2"}}
    assert scale_of(tmp_path, varying, alpha=2.0) == 0.5


HINT = "\n\nhint: ask its maker which one holds: a copy without the other loads"
HEAD = "error: the LoRA `FOLDER/x.safetensors` contradicts itself\n  because "
CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "tensor and header": (
        {"header": {"alpha": "4"}, "alpha": 2.0},
        f"of `{LAYER}`, of rank 4, `{LAYER}.alpha` says scale 0.5 and `alpha` in the header of `FOLDER/x.safetensors` 1",
    ),
    "two keys": (
        {"header": {"alpha": "4", "lora_alpha": "2"}},
        f"of `{LAYER}`, of rank 4, ",
    ),
    "header and config": (
        {"header": {"ss_network_alpha": "4"}, "config": {"lora_alpha": 2}},
        (
            f"of `{LAYER}`, of rank 4, `ss_network_alpha` in the header of `FOLDER/x.safetensors` says scale 1 and "
            "`FOLDER/adapter_config.json` 0.5"
        ),
    ),
    "config and tensor": (
        {"config": {"lora_alpha": 8}, "alpha": 2.0},
        f"of `{LAYER}`, of rank 4, `{LAYER}.alpha` says scale 0.5 and `FOLDER/adapter_config.json` 2",
    ),
    "diffusers' header and tensor": (
        {"header": {"lora_adapter_metadata": {"lora_alpha": 8}}, "alpha": 2.0},
        f"of `{LAYER}`, of rank 4, `{LAYER}.alpha` says scale 0.5 and the header of `FOLDER/x.safetensors` 2",
    ),
    "rank in the header": (
        {"header": {"alpha": "2", "rank": "8"}},
        f"`rank` in the header of `FOLDER/x.safetensors` says rank 8, and the tensors of `{LAYER}` have rank 4",
    ),
    "kohya's rank": (
        {"header": {"ss_network_dim": "8"}, "alpha": 2.0},
        f"`ss_network_dim` in the header of `FOLDER/x.safetensors` says rank 8, and the tensors of `{LAYER}` have rank 4",
    ),
    "rank in a config": (
        {"config": {"lora_alpha": 2, "r": 4, "rank_pattern": {"to_q": 2}}},
        f"`FOLDER/adapter_config.json` says rank 2, and the tensors of `{LAYER}` have rank 4",
    ),
}


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_contradictions_are_refused(kind: str, tmp_path: Path):
    options, said = CONTRADICTIONS[kind]
    text = failure(tmp_path, **options)
    assert text.startswith(HEAD + said)
    assert text.endswith(HINT)


def test_a_config_beside_several_files_is_not_known_to_be_of_one(tmp_path: Path):
    save_file(tensors(), tmp_path / "other.safetensors")
    assert scale_of(tmp_path, config={"lora_alpha": 2}) is None
    (tmp_path / "other.safetensors").unlink()
    assert scale_of(tmp_path, config={"lora_alpha": 2}) == 0.5


def test_peft_names_need_a_config_unless_every_layer_has_its_alpha(tmp_path: Path):
    stem = f"base_model.model.{LAYER}"
    assert scale_of(tmp_path, alpha=2.0, stem=stem) == 0.5
    assert scale_of(tmp_path, {"lora_alpha": "2"}, stem=stem) == 0.5
    assert failure(tmp_path, {"rank": "4"}, stem=stem) == (
        "error: the LoRA `FOLDER/x.safetensors` cannot be used\n"
        "  because it is named as PEFT names it, and `adapter_config.json`, which says its alpha, is not beside it\n\n"
        "hint: copy the whole adapter folder"
    )


def test_a_word_for_an_alpha_is_refused_where_nothing_else_says_one(tmp_path: Path):
    assert failure(tmp_path, {"ss_network_alpha": "Dynamic"}) == (
        "error: the LoRA `FOLDER/x.safetensors` cannot be used\n"
        "  because `ss_network_alpha` in the header of `FOLDER/x.safetensors` is `Dynamic`, which is no alpha, and "
        f"`{LAYER}` has none of its own"
    )
    assert "is 0, with which it would do nothing" in failure(tmp_path, {"alpha": "0"})
    assert "is `nan`, which is no alpha" in failure(tmp_path, {"alpha": "nan"})


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
    "a rank that is none": ({"lora_alpha": 2, "r": "four"}, "CONFIG has no numbers as `r` and in `rank_pattern`"),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_refused_settings(kind: str, tmp_path: Path):
    settings, said = SETTINGS[kind]
    stem, name = f"base_model.model.{LAYER}", "adapter_model.safetensors"
    found = failure(tmp_path, config=settings, stem=stem, name=name)
    assert found.splitlines()[1] == f"  because {said.replace('CONFIG', '`FOLDER/adapter_config.json`')}"


@pytest.mark.parametrize(
    ("pattern", "scale"),
    [({"to_q": 8}, 2), ({"^transformer_blocks.0.attn1.to_q": 8}, 2), ({"^attn1.to_q": 8}, 0.5), ({"o_q": 8}, 0.5)],
)
def test_patterns_are_ends_of_names(pattern: dict[str, int], scale: float, tmp_path: Path):
    assert scale_of(tmp_path, {"lora_adapter_metadata": {"lora_alpha": 2, "alpha_pattern": pattern}}) == scale


def test_a_pattern_of_ranks_that_is_not_known_says_nothing_of_ranks(tmp_path: Path):
    assert scale_of(tmp_path, config={"lora_alpha": 2, "r": 9, "rank_pattern": {".*attn.*": 4}}) == 0.5


def test_a_header_that_is_no_json(tmp_path: Path):
    assert "the settings in its header: line 1, column 2 is not JSON" in failure(
        tmp_path, {"lora_adapter_metadata": "{"}
    )
