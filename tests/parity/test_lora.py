"""LoRA against diffusers and PEFT, both ways: one adapter, loaded by both sides, moves both outputs alike."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.loaders.lora_base import LoraBaseMixin
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from parity.compare import CASES, FP32_TOLERANCE, error
from parity.ours import Ours, module_of
from parity.theirs import Theirs
from sampan.checkpoint import lora as lora_files
from sampan.frameworks import nn
from sampan.models import lora

pytestmark = [  # what the libraries say to each other, and of a second adapter
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning"),
]
TARGETS = ["attn1.to_q", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "norm1.linear", "prior_projector.net.2"]
CASES_OF = {
    "decoder": [
        "DiT: prior dropped for one of two, cropped",
        "DiT with references: two",
    ],
    "ar": ["AR, teacher-forced: left-padded batch", "AR, cached: text to image"],
}
BY_LABEL = {case.label: case for case in CASES}
AWAKE = 1e-2  # an adapter that moves an output by less than this would prove nothing


def drawn(
    part: str, ours: Ours, names: tuple[str, ...] = (), rank: Callable[[int], int] = lambda i: 3
) -> dict[str, Any]:
    """Return random additions to layers of a part, none of them zero; layer i has rank(i)."""
    layers = lora.linear_layers(part, ours.config)
    random = np.random.default_rng(len(layers))
    tensors = {}
    for i, layer in enumerate(lora.targets(part, ours.config, names)):
        out, width = layers[layer]
        for end, shape in zip(lora.FACTORS, ((rank(i), width), (out, rank(i))), strict=True):
            tensors[layer + end] = torch.from_numpy(0.2 * random.standard_normal(shape, np.float32))
    return tensors


def with_additions(ours: Ours, pipeline: Any, *files: tuple[Path, float]) -> Ours:
    """Return our side with LoRA files beside its weights."""
    side = copy.copy(ours)
    lows = [low for path, strength in files for low in lora_files.read(path, ours.config, strength)]
    for part in {low.part for low in lows}:
        module = module_of(pipeline, part, ours.config)
        lora_files.add(module, part, lows)
        setattr(side, part, module.eval())
    return side


def with_part(theirs: Theirs, part: str, module: Any) -> Theirs:
    """Return the library's side with another decoder or generator."""
    side = copy.copy(theirs)
    setattr(side, part, module.eval())
    return side


def alike(part: str, ours: Ours, theirs: Theirs, base: Theirs) -> None:
    """Check that both sides give the same, and not what the model gives without the adapter."""
    for label in CASES_OF[part]:
        case = BY_LABEL[label]
        assert error(case, theirs, base) > AWAKE, f"{label}: the adapter does nothing"
        assert error(case, ours, theirs) <= FP32_TOLERANCE, label


def awaken(module: torch.nn.Module) -> None:
    """Give every B of a library's adapter random values."""
    torch.manual_seed(5)
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.2)


# --- ours, in theirs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [None, 6.0, "each"])
def test_diffusers_loads_our_decoder_file(alpha: Any, ours: Ours, theirs: Theirs, pipeline: Any, tmp_path: Path):
    names = (*lora.DEFAULTS["decoder"], "norm1.linear", "prior_projector")
    tensors = drawn("decoder", ours, names, rank=lambda i: 2 + i % 3 if alpha == "each" else 3)
    layers = {name.rsplit(".lora_", 1)[0] for name in tensors}
    if alpha == "each":
        alpha = {layer: 1.0 + i % 4 for i, layer in enumerate(sorted(layers))}
    lora_files.write(tmp_path / "lora", {"decoder": tensors}, alpha=alpha)
    decoder = copy.deepcopy(theirs.decoder)
    decoder.load_lora_adapter(tmp_path / "lora" / "decoder", use_safetensors=True)
    loaded = get_peft_model_state_dict(decoder, adapter_name="default_0")
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    alike(
        "decoder",
        with_additions(ours, pipeline, (tmp_path / "lora", 1.0)),
        with_part(theirs, "decoder", decoder),
        theirs,
    )


@pytest.mark.parametrize("alpha", [None, 6.0, "each"])
def test_peft_and_transformers_load_our_generator_folder(
    alpha: Any, ours: Ours, theirs: Theirs, pipeline: Any, tmp_path: Path
):
    tensors = drawn("ar", ours, rank=lambda i: 2 + i % 3 if alpha == "each" else 3)
    layers = {name.rsplit(".lora_", 1)[0] for name in tensors}
    if alpha == "each":
        alpha = {layer: 1.0 + i % 4 for i, layer in enumerate(sorted(layers))}
    lora_files.write(tmp_path / "lora", {"ar": tensors}, alpha=alpha)
    folder, side = tmp_path / "lora" / "ar", with_additions(ours, pipeline, (tmp_path / "lora", 1.0))

    by_peft = PeftModel.from_pretrained(copy.deepcopy(theirs.ar), folder)
    loaded = by_peft.load_adapter(folder, "again")
    assert not loaded.unexpected_keys
    assert not [key for key in loaded.missing_keys if "lora_" in key and "again" in key]
    alike("ar", side, with_part(theirs, "ar", by_peft.get_base_model()), theirs)

    by_transformers = copy.deepcopy(theirs.ar)
    found = by_transformers.load_adapter(str(folder))
    assert not found.missing_keys
    assert not found.unexpected_keys
    assert not found.mismatched_keys
    alike("ar", side, with_part(theirs, "ar", by_transformers), theirs)


# --- theirs, in ours -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def their_decoder(theirs: Theirs) -> Any:
    """The library's decoder with an adapter of several ranks and alphas."""
    decoder = copy.deepcopy(theirs.decoder)
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=TARGETS, rank_pattern={"to_v": 2, "ff.net.2": 5}, alpha_pattern={"to_q": 3}
    )
    decoder.add_adapter(config, adapter_name="mine")
    awaken(decoder)
    return decoder.eval()


def test_we_load_what_save_lora_adapter_writes(
    their_decoder: Any, ours: Ours, theirs: Theirs, pipeline: Any, tmp_path: Path
):
    their_decoder.save_lora_adapter(tmp_path, adapter_name="mine")
    alike(
        "decoder", with_additions(ours, pipeline, (tmp_path, 1.0)), with_part(theirs, "decoder", their_decoder), theirs
    )


def test_we_load_what_a_pipeline_of_diffusers_writes(
    their_decoder: Any, ours: Ours, theirs: Theirs, pipeline: Any, tmp_path: Path
):
    LoraBaseMixin._save_lora_weights(
        tmp_path,
        lora_layers={"transformer": get_peft_model_state_dict(their_decoder, adapter_name="mine")},
        lora_metadata={"transformer": their_decoder.peft_config["mine"].to_dict()},
    )
    (file,) = tmp_path.iterdir()
    with safe_open(file, "pt") as opened:
        assert all(name.startswith("transformer.") for name in opened.keys())  # noqa: SIM118
    alike("decoder", with_additions(ours, pipeline, (file, 1.0)), with_part(theirs, "decoder", their_decoder), theirs)


@pytest.mark.parametrize("flat", [False, True])
def test_we_load_the_names_and_alphas_of_other_trainers(
    flat: bool, their_decoder: Any, ours: Ours, theirs: Theirs, pipeline: Any, tmp_path: Path
):
    config = their_decoder.peft_config["mine"]
    tensors = {}
    for name, value in get_peft_model_state_dict(their_decoder, adapter_name="mine").items():
        module, _, end = name.rpartition(".lora_")
        stem = "lora_unet_" + module.replace(".", "_") if flat else "diffusion_model." + module
        tensors[f"{stem}.lora_{'down' if end.startswith('A') else 'up'}.weight"] = value
        tensors[f"{stem}.alpha"] = torch.tensor(float(config.alpha_pattern.get("to_q", 0) if "to_q" in module else 8))
    save_file(tensors, tmp_path / "other.safetensors")
    side = with_additions(ours, pipeline, (tmp_path / "other.safetensors", 1.0))
    alike("decoder", side, with_part(theirs, "decoder", their_decoder), theirs)


@pytest.mark.parametrize("square_root", [False, True])
def test_we_load_what_peft_writes(square_root: bool, ours: Ours, theirs: Theirs, pipeline: Any, tmp_path: Path):
    config = LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["q_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj", "lm_head"],
        rank_pattern={"layers.0.self_attn.q_proj": 7},
        alpha_pattern={"down_proj": 2, "^model.language_model.layers.1.self_attn.q_proj": 9},
        use_rslora=square_root,
    )
    adapted = get_peft_model(copy.deepcopy(theirs.ar), config)
    awaken(adapted)
    adapted.save_pretrained(tmp_path, save_embedding_layers=False)
    alike(
        "ar", with_additions(ours, pipeline, (tmp_path, 1.0)), with_part(theirs, "ar", adapted.get_base_model()), theirs
    )


def test_we_load_what_transformers_writes(ours: Ours, theirs: Theirs, pipeline: Any, tmp_path: Path):
    adapted = copy.deepcopy(theirs.ar)
    adapted.add_adapter(LoraConfig(r=4, lora_alpha=6, target_modules=["k_proj", "gate_up_proj"]))
    awaken(adapted)
    adapted.save_pretrained(tmp_path)
    alike("ar", with_additions(ours, pipeline, (tmp_path, 1.0)), with_part(theirs, "ar", adapted), theirs)


# --- several, and their scales ---------------------------------------------------------------------------------------


def test_two_adapters_with_scales_are_what_diffusers_makes_of_them(
    ours: Ours, theirs: Theirs, pipeline: Any, tmp_path: Path
):
    lora_files.write(tmp_path / "a", {"decoder": drawn("decoder", ours)}, alpha=2.0)
    lora_files.write(tmp_path / "b", {"decoder": drawn("decoder", ours, ("to_q", "ff"), rank=lambda i: 5)})
    decoder = copy.deepcopy(theirs.decoder)
    for name in ("a", "b"):
        decoder.load_lora_adapter(tmp_path / name / "decoder", adapter_name=name, use_safetensors=True)
    decoder.set_adapters(["a", "b"], [0.7, -0.4])
    side = with_additions(ours, pipeline, (tmp_path / "a", 0.7), (tmp_path / "b", -0.4))
    alike("decoder", side, with_part(theirs, "decoder", decoder), theirs)


def test_in_bf16_the_base_is_rounded_and_an_fp32_addition_is_not(ours: Ours, theirs: Theirs, tmp_path: Path):
    # one layer, since PEFT's order of casts is what is compared, and roundings of a whole model would hide it
    torch.manual_seed(0)
    plain = torch.nn.Linear(32, 24).bfloat16()
    config = LoraConfig(r=3, lora_alpha=5, target_modules=["0"])
    wrapped = get_peft_model(torch.nn.Sequential(copy.deepcopy(plain)), config)
    awaken(wrapped)
    module = torch.nn.Sequential(plain)
    nn.add_low_rank(module, {"0": (3, 5 / 3)})
    state = get_peft_model_state_dict(wrapped)
    module.load_state_dict({k.removeprefix("base_model.model."): v for k, v in state.items()}, strict=False)
    x = torch.randn(7, 32)
    assert torch.equal(module(x.bfloat16()), wrapped(x.bfloat16()))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module(x), wrapped(x))
    assert module(x.bfloat16()).dtype == torch.bfloat16


def test_gradients_of_the_additions_are_theirs(ours: Ours, theirs: Theirs, pipeline: Any, tmp_path: Path):
    lora_files.write(tmp_path, {"decoder": drawn("decoder", ours)}, alpha=6.0)
    decoder = copy.deepcopy(theirs.decoder)
    decoder.load_lora_adapter(tmp_path / "decoder", use_safetensors=True)
    found = []
    for side in (with_additions(ours, pipeline, (tmp_path, 1.0)), with_part(theirs, "decoder", decoder)):
        loss = (BY_LABEL["DiT: one picture"].answer(side) ** 2).mean()
        chosen = {
            name.replace(".default_0", "").replace(".base_layer", ""): parameter
            for name, parameter in side.decoder.named_parameters()
            if "lora_" in name
        }
        found.append(dict(zip(chosen, torch.autograd.grad(loss, list(chosen.values())), strict=True)))
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][name], rtol=1e-4, atol=1e-4 * float(found[1][name].abs().max())), name


def test_what_we_write_beside_is_read_without_a_warning_by_an_older_reader(ours: Ours, tmp_path: Path):
    lora_files.write(tmp_path, {"ar": drawn("ar", ours), "decoder": drawn("decoder", ours)}, provenance={"seed": 3})
    config = json.loads((tmp_path / "ar" / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 3, 3)
    assert config["rank_pattern"] == config["alpha_pattern"] == {}
    names = load_file(tmp_path / "ar" / "adapter_model.safetensors")
    assert "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight" in names
    with safe_open(tmp_path / "decoder" / "pytorch_lora_weights.safetensors", "pt") as file:
        assert "transformer.transformer_blocks.0.attn1.to_q.lora_A.weight" in file.keys()  # noqa: SIM118
        assert json.loads(file.metadata()["sampan"])["seed"] == 3


# --- alphas that others write, in what their loaders make of them ---------------------------------------------------------


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("stem", ["lora_unet_", "lycoris_"])
def test_alphas_of_each_layer_are_what_diffusers_makes_of_network_alphas(
    stem: str, whole: bool, ours: Ours, theirs: Theirs, pipeline: Any, tmp_path: Path
):
    tensors, kohya, alphas = drawn("decoder", ours, rank=lambda i: 2 + i % 3), {}, {}
    for i, layer in enumerate(dict.fromkeys(name.rsplit(".lora_", 1)[0] for name in tensors)):
        flat = stem + layer.replace(".", "_")
        for end, factor in (("down", lora.FACTORS[0]), ("up", lora.FACTORS[1])):
            kohya[f"{flat}.lora_{end}.weight"] = tensors[layer + factor]
        alphas[f"transformer.{layer}.alpha"] = float(1 + i % 4)
        kohya[f"{flat}.alpha"] = torch.tensor(1 + i % 4 if whole else float(1 + i % 4))
    save_file(kohya, tmp_path / "x.safetensors")
    decoder = copy.deepcopy(theirs.decoder)
    decoder.load_lora_adapter({f"transformer.{name}": value for name, value in tensors.items()}, network_alphas=alphas)
    side = with_additions(ours, pipeline, (tmp_path / "x.safetensors", 1.0))
    alike("decoder", side, with_part(theirs, "decoder", decoder), theirs)


@pytest.mark.parametrize(
    "header", [{"alpha": "2", "rank": "4"}, {"transformer.lora_alpha": "2"}, {"ss_network_alpha": "2"}]
)
def test_one_alpha_in_a_header_is_what_diffusers_makes_of_the_same_settings(
    header: dict[str, str], ours: Ours, theirs: Theirs, pipeline: Any, tmp_path: Path
):
    tensors = drawn("decoder", ours, rank=lambda i: 4)
    save_file({f"pipe.dit.{name}": value for name, value in tensors.items()}, tmp_path / "x.safetensors", header)
    lora_files.write(tmp_path / "lora", {"decoder": tensors}, alpha=2.0)
    decoder = copy.deepcopy(theirs.decoder)
    decoder.load_lora_adapter(tmp_path / "lora" / "decoder", use_safetensors=True)
    side = with_additions(ours, pipeline, (tmp_path / "x.safetensors", 1.0))
    alike("decoder", side, with_part(theirs, "decoder", decoder), theirs)
