"""LoRA files: what is read of them, in whatever names, and what is refused, with the words of each refusal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sampan.checkpoint import lora
from sampan.checkpoint.folder import load_part, open_folder
from sampan.models.config import ModelConfig
from unit.checkpoint.lora_files import GENERATOR, LAYER, delta, failure, only, pair

HINT = "\n\nhint: sampan adds plain LoRA only; merge it with the tool that made it, and load the merged model"


# --- written and read ------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_part_by_part(config: ModelConfig, tmp_path: Path):
    tensors = {"decoder": pair(LAYER), "ar": pair(f"{GENERATOR}.self_attn.k_proj", 32, 64, 3)}
    base = {"x.weight": torch.ones(1)}
    folder = tmp_path / "lora"
    lora.write(folder, {"decoder": tensors["decoder"] | base}, alpha=6.0, provenance={"seed": 7})
    lora.write(folder, {"ar": tensors["ar"]}, alpha=6.0)  # the other part stays
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "ar/adapter_config.json",
        "ar/adapter_model.safetensors",
        "decoder/pytorch_lora_weights.safetensors",
    ]
    decoder, ar = lora.read(folder, config)
    assert (decoder.part, ar.part) == ("decoder", "ar")
    for low, layer, scale in ((decoder, LAYER, 3.0), (ar, f"{GENERATOR}.self_attn.k_proj", 2.0)):
        a, b = tensors[low.part].values()
        (addition,) = low.layers.values()
        assert list(low.layers) == [layer]
        assert np.array_equal(addition.a, a.numpy())
        assert np.array_equal(addition.b, b.numpy())
        assert addition.scale == scale
    with safe_open(decoder.file, "pt") as file:
        assert json.loads(file.metadata()["sampan"])["seed"] == 7
        settings = json.loads(file.metadata()["lora_adapter_metadata"])
    assert settings["transformer.r"] == 2
    assert settings["transformer.lora_alpha"] == 6
    assert settings["transformer.target_modules"] == [LAYER]
    assert lora.provenance_records([decoder, ar]) == [
        {"file": low.file.name, "sha256": low.sha256, "scale": 1.0} for low in (decoder, ar)
    ]


def test_half_an_addition_is_not_written(tmp_path: Path):
    a, b = pair(LAYER).items()
    for tensors, said in (
        (dict([a]), f"`{LAYER}` has no `lora_A` and `lora_B` of the same rank"),
        (dict([a, (b[0], torch.ones(64, 5))]), f"`{LAYER}` has no `lora_A` and `lora_B` of the same rank"),
        ({"x": torch.ones(1)}, "there are no additions to `decoder` among 1 tensors"),
    ):
        with pytest.raises(ValueError) as caught:
            lora.write(tmp_path, {"decoder": tensors})
        assert str(caught.value) == said
    assert list(tmp_path.iterdir()) == []


def test_a_run_stands_for_its_additions(config: ModelConfig, tmp_path: Path):
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    lora.write(tmp_path / "lora", {"decoder": pair(LAYER)})
    assert only(lora.read(tmp_path, config)).file.parent == tmp_path / "lora" / "decoder"
    assert only(lora.read(tmp_path / "lora" / "decoder", config)).part == "decoder"


# --- names of others -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stem", "names", "layer"),
    [
        (LAYER, ("lora_A", "lora_B"), LAYER),
        (LAYER, ("lora_A.mine", "lora_B.mine"), LAYER),
        (f"transformer.{LAYER}", ("lora.down", "lora.up"), LAYER),
        (f"diffusion_model.{LAYER}", ("lora_down", "lora_up"), LAYER),
        (
            "lora_unet_transformer_blocks_1_attn1_to_out_0",
            ("lora_down", "lora_up"),
            "transformer_blocks.1.attn1.to_out.0",
        ),
        (f"pipe.dit.{LAYER}", ("lora_A.default", "lora_B.default"), LAYER),
        (f"base_model.model.pipe.dit.{LAYER}", ("lora_A", "lora_B"), LAYER),
        (f"model.diffusion_model.{LAYER}", ("lora_down", "lora_up"), LAYER),
        ("lycoris_transformer_blocks_1_ff_net_0_proj", ("lora_down", "lora_up"), "transformer_blocks.1.ff.net.0.proj"),
        ("lora_transformer_transformer_blocks_0_attn1_to_q", ("lora_down", "lora_up"), LAYER),
        ("lora_transformer_blocks_0_attn1_to_q", ("lora_down", "lora_up"), LAYER),
        ("layers.1.self_attn.q_proj", ("lora_A", "lora_B"), f"{GENERATOR}.self_attn.q_proj"),
        ("language_model.layers.1.self_attn.q_proj", ("lora_A", "lora_B"), f"{GENERATOR}.self_attn.q_proj"),
        (
            f"vision_language_encoder.{GENERATOR}.self_attn.q_proj",
            ("lora_A", "lora_B"),
            f"{GENERATOR}.self_attn.q_proj",
        ),
    ],
)
def test_names_of_others(stem: str, names: tuple[str, str], layer: str, config: ModelConfig, tmp_path: Path):
    out = 256 if "ff_net_0" in stem else 64
    header = {"alpha": "2"} if stem.startswith("base_model.") else {}  # these names promise one
    save_file(pair(stem, out, names=names), tmp_path / "x.safetensors", header)
    low = only(lora.read(tmp_path, config, strength=0.5))  # the only file of its folder
    assert list(low.layers) == [layer]
    assert low.layers[layer].scale == 1.0
    assert low.strength == 0.5


def test_a_file_may_have_both_parts(config: ModelConfig, tmp_path: Path):
    save_file(pair(f"transformer.{LAYER}") | pair(f"{GENERATOR}.self_attn.q_proj"), tmp_path / "x.safetensors")
    lows = lora.read(tmp_path / "x.safetensors", config)
    assert sorted(low.part for low in lows) == ["ar", "decoder"]
    assert len(lora.provenance_records(lows)) == 1


@pytest.mark.parametrize("given", [("gate_proj", "up_proj"), ("gate_proj",), ("up_proj",)])
def test_parts_of_the_fused_projection_are_joined_exactly(given: tuple[str, ...], config: ModelConfig, tmp_path: Path):
    layer, half = f"{GENERATOR}.mlp.gate_up_proj", config.ar.text.intermediate_size
    tensors, wanted = {}, np.zeros((2 * half, 64), np.float32)
    for number, (name, rank) in enumerate((("gate_proj", 3), ("up_proj", 2))):
        if name in given:
            a, b = pair(f"base_model.model.{GENERATOR}.mlp.{name}", half, 64, rank).values()
            tensors |= pair(f"base_model.model.{GENERATOR}.mlp.{name}", half, 64, rank)
            wanted[number * half : (number + 1) * half] = (b @ a).numpy() * (
                9 / rank if name == "gate_proj" else 4 / rank
            )
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "lora_alpha": 4, "alpha_pattern": {"gate_proj": 9}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    low = only(lora.read(tmp_path, config))
    assert list(low.layers) == [layer]
    assert low.layers[layer].a.shape == (sum({"gate_proj": 3, "up_proj": 2}[name] for name in given), 64)
    assert np.allclose(delta(low.layers[layer]), wanted, rtol=1e-5, atol=1e-5)


# --- use -------------------------------------------------------------------------------------------------------------


def test_several_to_one_layer_are_one_of_their_ranks_sum(config: ModelConfig, tiny_folder: Path, tmp_path: Path):
    save_file(pair(LAYER), tmp_path / "a.safetensors")
    save_file(pair(LAYER, rank=3) | pair("transformer_blocks.1.ff.net.2", 64, 256), tmp_path / "b.safetensors")
    lows = lora.read(tmp_path / "a.safetensors", config, 0.5) + lora.read(tmp_path / "b.safetensors", config, -2.0)
    plain = load_part(open_folder(tiny_folder), "decoder", device="cpu", dtype="fp32")
    module = load_part(open_folder(tiny_folder), "decoder", device="cpu", dtype="fp32", loras=lows)
    to_q = module.transformer_blocks[0].attn1.to_q
    assert to_q.lora_A.weight.shape == (5, 64)
    wanted = 0.5 * delta(lows[0].layers[LAYER]) - 2.0 * delta(lows[1].layers[LAYER])
    assert np.allclose((to_q.lora_B.weight @ to_q.lora_A.weight).detach().numpy() * to_q.scale, wanted, atol=1e-5)
    assert module.transformer_blocks[1].ff.net[2].scale == -2.0
    assert all(torch.equal(module.state_dict()[name], value) for name, value in plain.state_dict().items())
    half = load_part(open_folder(tiny_folder), "decoder", device="cpu", dtype="bf16", loras=lows)
    assert {value.dtype for value in half.state_dict().values()} == {torch.bfloat16}


def test_merged_weights_do_what_weights_with_additions_do(config: ModelConfig, tiny_folder: Path, tmp_path: Path):
    save_file(pair(LAYER), tmp_path / "a.safetensors")
    lows = lora.read(tmp_path / "a.safetensors", config, 0.5)
    base = open_folder(tiny_folder).tensors("decoder")
    merged = lora.merge(base, "decoder", lows)
    wanted = base[f"{LAYER}.weight"].numpy() + 0.5 * delta(lows[0].layers[LAYER])
    assert np.allclose(merged[f"{LAYER}.weight"].numpy(), wanted, atol=1e-6)
    assert all(merged[name] is value for name, value in base.items() if name != f"{LAYER}.weight")
    again = lora.merge(merged, "decoder", lows, subtract=True)
    assert torch.allclose(again[f"{LAYER}.weight"], base[f"{LAYER}.weight"], rtol=0, atol=1e-6)
    assert lora.merge(base, "ar", lows) == base
    half = {name: value.bfloat16() for name, value in base.items()}
    assert lora.merge(half, "decoder", lows)[f"{LAYER}.weight"].dtype == torch.bfloat16
    assert lora.merge(half, "decoder", lows, dtype="fp32")[f"{LAYER}.weight"].dtype == torch.float32


# --- refused ---------------------------------------------------------------------------------------------------------

DORA = {**pair(LAYER), f"{LAYER}.lora_magnitude_vector": torch.ones(64)}
NOT_CLEAR = "error: the LoRA `FOLDER/x.safetensors` is not clear\n  because "
DOES_NOT_FIT = "error: the LoRA `FOLDER/x.safetensors` does not fit this model\n  because "
KIND = "error: the adapter `FOLDER/x.safetensors` cannot be used\n  because its kind is "
REFUSED: dict[str, tuple[dict[str, torch.Tensor], str]] = {
    "DoRA": (DORA, f"{KIND}DoRA: it holds `{LAYER}.lora_magnitude_vector`{HINT}"),
    "LoHa": ({f"{LAYER}.hada_w1_a": torch.ones(1)}, f"{KIND}LoHa: it holds `{LAYER}.hada_w1_a`{HINT}"),
    "LoKr": ({f"{LAYER}.lokr_w1": torch.ones(1)}, f"{KIND}LoKr: it holds `{LAYER}.lokr_w1`{HINT}"),
    "biases": (
        {**pair(LAYER), f"{LAYER}.lora_B.bias": torch.ones(64)},
        f"{KIND}LoRA with biases: it holds `{LAYER}.lora_B.bias`{HINT}",
    ),
    "a model": (
        {"x.weight": torch.ones(1)},
        (
            "error: `FOLDER/x.safetensors` holds no LoRA\n  because none of its 1 tensors is named `….lora_A.weight` or "
            "`….lora_down.weight`; the first is `x.weight`"
        ),
    ),
    "whole weights too": (
        {**pair(LAYER), "proj_out.weight": torch.ones(1)},
        (
            "error: the LoRA `FOLDER/x.safetensors` cannot be used\n"
            "  because beside low-rank additions it holds 1 other tensors, first `proj_out.weight`\n\n"
            "hint: sampan adds low-rank additions only; merge it with the tool that made it"
        ),
    ),
    "half": (
        {f"{LAYER}.lora_A.weight": torch.ones(2, 64)},
        (
            "error: the LoRA `FOLDER/x.safetensors` is not whole\n"
            f"  because `{LAYER}.lora_A.weight` is there, and `{LAYER}.lora_B.weight` is missing\n\n"
            "hint: download or copy the file again"
        ),
    ),
    "another width": (
        pair(LAYER, width=48),
        (
            f"{DOES_NOT_FIT}`{LAYER}.lora_A.weight` is (2, 48), and `{LAYER}` takes (rank, 64)\n\n"
            "hint: is the LoRA for another model?"
        ),
    ),
    "another height": (
        pair(LAYER, out=48),
        (
            f"{DOES_NOT_FIT}`{LAYER}.lora_B.weight` is (48, 2), and `{LAYER}` takes (64, rank)\n\n"
            "hint: is the LoRA for another model?"
        ),
    ),
    "ranks that differ": (
        {**pair(LAYER), f"{LAYER}.lora_B.weight": torch.ones(64, 3)},
        (
            f"{DOES_NOT_FIT}`{LAYER}.lora_A.weight` has rank 2, `{LAYER}.lora_B.weight` rank 3\n\n"
            "hint: is the LoRA for another model?"
        ),
    ),
    "a layer that is not there": (
        pair(LAYER) | pair("transformer_blocks.7.attn1.to_q"),
        (
            f"{DOES_NOT_FIT}1 of the 2 layers it adds to are not in the model's generator or decoder, first "
            "`transformer_blocks.7.attn1.to_q`\n\n"
            "hint: the nearest layer is `transformer_blocks.1.attn1.to_q`; is the LoRA for another model?"
        ),
    ),
    "the same layer twice": (
        pair(LAYER) | pair(f"transformer.{LAYER}"),
        f"{NOT_CLEAR}`transformer.{LAYER}` and `{LAYER}` are the same layer",
    ),
    "a fused layer and a part of it": (
        pair(f"{GENERATOR}.mlp.gate_up_proj", 192) | pair(f"{GENERATOR}.mlp.up_proj", 96),
        f"{NOT_CLEAR}it has `gate_up_proj` and a part of it, for `{GENERATOR}.mlp.gate_up_proj`",
    ),
    "not finite": (
        {**pair(LAYER), f"{LAYER}.lora_B.weight": torch.full((64, 2), torch.nan)},
        (
            "error: the LoRA `FOLDER/x.safetensors` is broken\n"
            f"  because `{LAYER}.lora_B.weight` holds numbers that are not finite"
        ),
    ),
    "a text encoder alone": (
        pair("lora_te_layers_1_self_attn_q_proj"),
        (
            "error: `FOLDER/x.safetensors` holds no LoRA of generator or decoder\n"
            "  because all of its 2 tensors are of a text encoder, first "
            "`lora_te_layers_1_self_attn_q_proj.lora_A.weight`\n\n"
            "hint: sampan adapts generator and decoder only"
        ),
    ),
    "flat names that say no part": (
        pair("lora_layers_1_self_attn_q_proj"),
        (
            f"{DOES_NOT_FIT}1 of the 1 layers it adds to are not in the model's generator or decoder, first "
            "`lora_layers_1_self_attn_q_proj`\n\n"
            f"hint: the nearest layer is `{GENERATOR}.self_attn.q_proj`; is the LoRA for another model?"
        ),
    ),
    "an alpha of two numbers": (
        {**pair(LAYER), f"{LAYER}.alpha": torch.ones(2)},
        (
            "error: the LoRA `FOLDER/x.safetensors` cannot be used\n"
            f"  because `{LAYER}.alpha` is (2,), and an alpha is one number"
        ),
    ),
    "an alpha of none": (
        {**pair(LAYER), f"{LAYER}.alpha": torch.ones(0)},
        (
            "error: the LoRA `FOLDER/x.safetensors` cannot be used\n"
            f"  because `{LAYER}.alpha` is (0,), and an alpha is one number"
        ),
    ),
    "an alpha that is not finite": (
        {**pair(LAYER), f"{LAYER}.alpha": torch.tensor(torch.nan)},
        (
            "error: the LoRA `FOLDER/x.safetensors` cannot be used\n"
            f"  because `{LAYER}.alpha` is nan, which is no alpha\n\n"
            "hint: ask its maker which alpha it was trained with"
        ),
    ),
    "an alpha of 0": (
        {**pair(LAYER), f"{LAYER}.alpha": torch.tensor(0.0)},
        (
            "error: the LoRA `FOLDER/x.safetensors` cannot be used\n"
            f"  because `{LAYER}.alpha` is 0, which is no alpha\n\n"
            "hint: ask its maker which alpha it was trained with"
        ),
    ),
    "an alpha that is a truth": (
        {**pair(LAYER), f"{LAYER}.alpha": torch.tensor(True)},
        (
            "error: the LoRA `FOLDER/x.safetensors` cannot be used\n"
            f"  because `{LAYER}.alpha` is stored as BOOL, which is no number"
        ),
    ),
    "whole numbers as factors": (
        {name: value.to(torch.int32) for name, value in pair(LAYER).items()},
        (
            "error: the LoRA `FOLDER/x.safetensors` cannot be used\n"
            f"  because `{LAYER}.lora_A.weight` is stored as I32, which needs scales to be read"
        ),
    ),
    "8 bits": (
        {name: value.to(torch.float8_e4m3fn) for name, value in pair(LAYER).items()},
        (
            "error: the LoRA `FOLDER/x.safetensors` cannot be used\n"
            f"  because `{LAYER}.lora_A.weight` is stored as F8_E4M3, which needs scales to be read"
        ),
    ),
    "PEFT's names without its settings": (
        pair(f"base_model.model.{LAYER}"),
        (
            "error: the LoRA `FOLDER/x.safetensors` cannot be used\n"
            "  because it is named as PEFT names it, and `adapter_config.json`, which says its alpha, is not beside it\n\n"
            "hint: copy the whole adapter folder"
        ),
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(kind: str, config: ModelConfig, tmp_path: Path):
    tensors, said = REFUSED[kind]
    save_file(tensors, tmp_path / "x.safetensors")
    found = failure(lambda: lora.read(tmp_path / "x.safetensors", config), tmp_path)
    assert found.replace("FOLDER\\", "FOLDER/") == said


def test_places_that_hold_none_or_too_many(config: ModelConfig, tiny_folder: Path, tmp_path: Path):
    def said(path: Path) -> str:
        return failure(lambda: lora.read(path, config), tmp_path).replace("FOLDER\\", "FOLDER/")

    hint = "\n\nhint: give a safetensors file or a folder: of `sampan train`, of diffusers, or of PEFT"
    assert said(tmp_path / "none") == f"error: there is no LoRA `FOLDER/none`{hint}"
    assert said(tmp_path) == f"error: `FOLDER` holds no LoRA\n  because it has no safetensors file{hint}"
    (tmp_path / "x.bin").write_bytes(b"\x80")
    pickle = (
        "`x.bin` is a pickle: loading one could run code\n\nhint: convert it to safetensors with the tool that made it"
    )
    assert said(tmp_path) == f"error: the weights in `FOLDER` are refused\n  because {pickle}"
    assert said(tmp_path / "x.bin") == f"error: the weights in `FOLDER/x.bin` are refused\n  because {pickle}"
    for name in ("a", "b"):
        save_file(pair(LAYER), tmp_path / f"{name}.safetensors")
    assert said(tmp_path) == (
        "error: `FOLDER` is not clear\n  because it holds 2 safetensors files, first `a.safetensors`\n\n"
        "hint: name the file that is meant"
    )
    model = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    assert said(model).startswith("error: `FOLDER/model` holds no LoRA\n")
    (tmp_path / "c.safetensors").write_bytes(b"\0")
    assert said(tmp_path / "c.safetensors").startswith("error: `FOLDER/c.safetensors` cannot be read\n")


def test_a_scale_that_is_no_number_is_noticed(config: ModelConfig, tmp_path: Path):
    save_file(pair(LAYER), tmp_path / "a.safetensors")
    found = failure(lambda: lora.read(tmp_path / "a.safetensors:half", config), tmp_path)
    assert "is there, and `half` is not a number" in found


def test_no_adapter_file_is_left_half_written(tmp_path: Path):
    (tmp_path / "decoder").write_text("in the way", encoding="utf-8")
    found = failure(lambda: lora.write(tmp_path, {"decoder": pair(LAYER)}), tmp_path)
    assert found.startswith(f"error: `{Path('FOLDER', 'decoder')}` cannot be written\n")
    lora.write(tmp_path, {"ar": pair(f"{GENERATOR}.self_attn.q_proj")})
    assert len(load_file(tmp_path / "ar" / "adapter_model.safetensors")) == 2
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]
