"""A folder of the published libraries is opened, each part loads from it, and what does not fit is said exactly."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sampan.checkpoint import folder as layout
from sampan.checkpoint.folder import ModelFolder, load_part, open_folder
from sampan.errors import CheckpointError
from sampan.models.build import PARTS
from sampan.models.config import Geometry, PaintingConfig

AR_FILE = "vision_language_encoder/model.safetensors"
ROOT = Path(__file__).resolve().parents[3]


def failure(path: Path, part: str | None = None) -> str:
    """Return the error of opening a folder, or of loading a part of it, with the folder's path as FOLDER."""
    with pytest.raises(CheckpointError) as caught:
        open_folder(path) if part is None else load_part(open_folder(path), part, device="cpu", dtype="fp32")
    return caught.value.render().replace(str(path), "FOLDER")


def edit(path: Path, **changes: object) -> None:
    """Change keys of a JSON file; None removes one."""
    values = {**json.loads(path.read_text("utf-8")), **changes}
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}), "utf-8")


def edit_tensors(path: Path, **changes: torch.Tensor | None) -> None:
    """Change tensors of a file, `.` written as `__`; None removes one."""
    tensors = {**load_file(path), **{name.replace("__", "."): value for name, value in changes.items()}}
    save_file({name: value for name, value in tensors.items() if value is not None}, path, {"format": "pt"})


def test_the_config_is_the_one_that_was_built(tiny_folder: Path, tiny_pipeline):
    config = open_folder(tiny_folder).config
    text = tiny_pipeline.vision_language_encoder.config.text_config
    assert config.ar.text.vocab_size == text.vocab_size
    assert config.ar.text.mrope_section == (2, 1, 1)
    assert config.ar.image_start_token_id == 64
    assert config.vae.latents_std == (1.5, 2.0, 0.5, 1.0)
    assert config.dit.num_attention_heads == 4
    assert config.glyph.d_ff == 48
    assert (config.processor.min_pixels, config.processor.max_pixels) == (64 * 64, 256 * 256)
    assert (config.sampling.temperature, config.sampling.top_p, config.sampling.top_k) == (0.9, 0.75, 50)
    assert config.geometry == Geometry()


@pytest.mark.parametrize(
    ("part", "component"),
    [
        ("ar", "vision_language_encoder"),
        ("tokenizer", "vision_language_encoder"),
        ("decoder", "transformer"),
        ("vae", "vae"),
        ("glyph", "text_encoder"),
    ],
)
def test_every_part_loads_the_very_weights_of_the_library(part: str, component: str, tiny_folder: Path, tiny_pipeline):
    loaded = load_part(open_folder(tiny_folder), part, device="cpu", dtype="fp32").state_dict()
    theirs = getattr(tiny_pipeline, component).state_dict()
    wanted = {n for n in theirs if n.startswith(PARTS[part].prefixes or "") and n != "encoder.embed_tokens.weight"}
    assert set(loaded) == wanted
    assert all(torch.equal(loaded[name], theirs[name]) for name in loaded)


def test_weights_become_the_dtype_asked_for_and_the_quantizer_stays_exact(tiny_folder: Path):
    opened = open_folder(tiny_folder)
    assert {p.dtype for p in load_part(opened, "decoder", device="cpu", dtype="bf16").parameters()} == {torch.bfloat16}
    assert {p.dtype for p in load_part(opened, "decoder", device="cpu", dtype="stored").parameters()} == {torch.float32}
    tokenizer = load_part(opened, "tokenizer", device="cpu", dtype="bf16")
    assert tokenizer.model.vqmodel.quantize.embedding.weight.dtype == torch.float32
    assert tokenizer.model.visual.patch_embed.proj.weight.dtype == torch.bfloat16


def test_a_folder_opens_without_a_framework(tiny_folder: Path):
    code = (
        "import sys; from pathlib import Path; from sampan.checkpoint.folder import open_folder\n"
        f"f = open_folder(Path({str(tiny_folder)!r})); f.check(); f.hash\n"
        "sys.exit('torch' in sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.returncode == 0, answer.stderr


def test_tensors_of_a_part_are_those_of_its_files(tiny_folder: Path):
    opened = open_folder(tiny_folder)
    tensors, stored = opened.tensors("tokenizer"), opened.stored("tokenizer")
    assert tensors.keys() == stored.keys()
    assert {name: tuple(t.shape) for name, t in tensors.items()} == {name: s.shape for name, s in stored.items()}
    assert not any(name.startswith(("model.language_model.", "lm_head.")) for name in tensors)


def test_the_second_name_of_a_tied_tensor_is_passed_over(folder: Path):
    file = folder / "text_encoder/model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, "encoder.embed_tokens.weight": tensors["shared.weight"].clone()}, file, {"format": "pt"})
    assert "encoder.embed_tokens.weight" not in open_folder(folder).files("glyph")
    load_part(open_folder(folder), "glyph", device="cpu", dtype="fp32")


def test_an_older_folder_keeps_the_image_processor_in_a_file_of_its_own(folder: Path):
    newer = folder / "processor/processor_config.json"
    nested = json.loads(newer.read_text("utf-8"))["image_processor"]
    older = {**nested, "size": {"shortest_edge": 32 * 32, "longest_edge": 128 * 128}}
    (folder / "processor/preprocessor_config.json").write_text(json.dumps(older), "utf-8")
    assert open_folder(folder).config.processor.min_pixels == 64 * 64  # the nested one counts first, as in the library
    edit(newer, image_processor=None)
    assert open_folder(folder).config.processor.min_pixels == 32 * 32
    newer.unlink()
    assert open_folder(folder).config.processor.min_pixels == 32 * 32


def test_the_geometry_is_read_from_its_own_file(folder: Path):
    (folder / "sampan.json").write_text('{"geometry": {"prior_px": 64, "default_px": 512}}', "utf-8")
    geometry = open_folder(folder).config.geometry
    assert (geometry.prior_px, geometry.preview_side, geometry.default_px) == (64, 16, 512)


def test_guidance_is_the_release_s_unless_the_folder_states_another(folder: Path):
    assert open_folder(folder).config.painting == PaintingConfig(guidance_scale=1.5)
    before = open_folder(folder).hash
    (folder / "sampan.json").write_text('{"painting": {"guidance_scale": 4.0}}', "utf-8")
    opened = open_folder(folder)
    assert (opened.config.painting.guidance_scale, opened.config.geometry) == (4.0, Geometry())
    assert opened.hash != before  # the same weights paint otherwise


def test_steps_are_the_release_s_unless_the_folder_states_others_and_do_not_rename_it(folder: Path):
    before = open_folder(folder).hash
    (folder / "sampan.json").write_text('{"painting": {"num_inference_steps": 20}}', "utf-8")
    opened = open_folder(folder)
    assert opened.config.painting == PaintingConfig(guidance_scale=1.5, num_inference_steps=20)
    assert opened.hash == before


@pytest.mark.parametrize("given", ["0", "2.5", '"20"', "true"])
def test_steps_that_are_none_are_refused_and_the_file_named(given: str, folder: Path):
    (folder / "sampan.json").write_text(f'{{"painting": {{"num_inference_steps": {given}}}}}', "utf-8")
    with pytest.raises(CheckpointError) as caught:
        open_folder(folder)
    assert "sampan.json" in caught.value.render()
    assert "num_inference_steps" in caught.value.render()


@pytest.mark.parametrize("given", ["-1", '"3"', "NaN"])
def test_a_guidance_that_is_none_is_refused_and_the_file_named(given: str, folder: Path):
    (folder / "sampan.json").write_text(f'{{"painting": {{"guidance_scale": {given}}}}}', "utf-8")
    with pytest.raises(CheckpointError) as caught:
        open_folder(folder)
    assert "sampan.json" in caught.value.render()
    assert "guidance_scale" in caught.value.render()


# ----------------------------------------------------------------------------------------------------------- weights


def test_missing_unexpected_and_wrong_tensors_are_named(folder: Path):
    tensors = load_file(folder / "transformer/diffusion_pytorch_model.safetensors")
    names = sorted(name for name in tensors if name.startswith("transformer_blocks.1."))
    changed = {name: value for name, value in tensors.items() if name not in names[:6]}
    changed |= {"x.weight": torch.zeros(2), "proj_out.bias": torch.zeros(3)}
    save_file(changed, folder / "transformer/diffusion_pytorch_model.safetensors", {"format": "pt"})
    assert failure(folder, "decoder") == (
        "error: the weights of `decoder` in `FOLDER/transformer` are not those of its config\n"
        "  because 6 missing: `transformer_blocks.1.attn1.to_q.weight`, `transformer_blocks.1.attn1.to_q.bias`, "
        "`transformer_blocks.1.attn1.to_k.weight`, `transformer_blocks.1.attn1.to_k.bias`, "
        "`transformer_blocks.1.attn1.to_out.0.weight` and 1 more\n"
        "  because 1 not part of it: `x.weight`\n"
        "  because 1 of another shape: `proj_out.bias` is (3,), the config says (16,)\n"
        "\nhint: `sampan checkpoint inspect` lists every difference"
    )


def test_a_tensor_of_no_part_is_refused_by_each_part_of_its_subfolder(folder: Path):
    edit_tensors(folder / AR_FILE, model__extra__weight=torch.zeros(2))
    for part in ("ar", "tokenizer"):
        assert failure(folder, part) == (
            f"error: the weights of `{part}` in `FOLDER/vision_language_encoder` are not those of its config\n"
            "  because 1 not part of it: `model.extra.weight`\n"
            "\nhint: `sampan checkpoint inspect` lists every difference"
        )


def test_quantized_weights_are_refused(folder: Path):
    edit_tensors(folder / AR_FILE, lm_head__weight=torch.zeros(80, 64, dtype=torch.int8))
    assert "  because 1 quantized: `lm_head.weight` is I8\n" in failure(folder, "ar")


def test_a_truncated_file_is_named_by_the_part_that_needs_it(folder: Path):
    file = folder / "vae/diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    opened = open_folder(folder)  # opening reads no weights
    load_part(opened, "glyph", device="cpu", dtype="fp32")
    with pytest.raises(CheckpointError, match="vae/diffusion_pytorch_model"):
        opened.check()
    assert failure(folder, "vae") == (
        "error: `FOLDER/vae/diffusion_pytorch_model.safetensors` cannot be read\n"
        f"  because it is no whole safetensors file ({file.stat().st_size} bytes): "
        f"incomplete: its header describes {file.stat().st_size + 4} bytes, and the file has {file.stat().st_size}\n"
        "\nhint: download or copy this file again"
    )


# ----------------------------------------------------------------------------------------------------------- configs


def test_a_broken_config_is_named_with_its_line(folder: Path):
    (folder / "vae/config.json").write_text('{\n  "act_fn": "silu",\n  broken\n}', "utf-8")
    assert failure(folder) == (
        "error: `FOLDER/vae/config.json` cannot be read\n"
        "  because line 3, column 3 is not JSON: Expecting property name enclosed in double quotes"
    )


def test_a_config_that_is_not_implemented_names_its_file(folder: Path):
    edit(folder / "vae/config.json", use_quant_conv=True)
    assert failure(folder) == (
        "error: the vae of this checkpoint cannot be run\n"
        "  because its config.json has use_quant_conv = True; sampan implements use_quant_conv = False only\n"
        "  because the file is `FOLDER/vae/config.json`\n"
        "\nhint: GLM-Image-class checkpoints keep the released value; is this another kind of model?"
    )


@pytest.mark.parametrize(
    ("file", "changes", "says"),
    [
        ("transformer", {"num_layers": "two"}, "num_layers must be a whole number, got 'two'"),
        ("transformer", {"num_layers": True}, "num_layers must be a whole number, got True"),
        ("transformer", {"num_layers": 10**9}, "num_layers must be at most 512, got 1000000000"),
        ("vae", {"latents_std": [1.0, 2.0, "x", 1.0]}, "latents_std must be a number, got 'x'"),
        ("vae", {"layers_per_block": [1]}, "layers_per_block must be a whole number, got (1,)"),
        ("vae", {"block_out_channels": 8}, "block_out_channels must be a list, got 8"),
        ("text_encoder", {"layer_norm_epsilon": "1e-6"}, "layer_norm_epsilon must be a number, got '1e-6'"),
        ("text_encoder", {"layer_norm_epsilon": math.nan}, "layer_norm_epsilon must be a number, got nan"),
        ("text_encoder", {"d_model": "x" * 200}, f"d_model must be a whole number, got '{'x' * 79}…"),
    ],
)
def test_a_value_of_the_wrong_kind_names_its_file(file: str, changes: dict, says: str, folder: Path):
    edit(folder / file / "config.json", **changes)
    assert failure(folder) == (
        f"error: the {file} of this checkpoint cannot be built\n  because {says}\n"
        f"  because the file is `FOLDER/{file}/config.json`"
    )


def test_a_nested_value_of_the_wrong_kind_names_its_file(folder: Path):
    file = folder / "vision_language_encoder/config.json"
    vision = {**json.loads(file.read_text("utf-8"))["vision_config"], "depth": "two"}
    edit(file, vision_config=vision)
    assert failure(folder) == (
        "error: the vision encoder of this checkpoint cannot be built\n"
        "  because depth must be a whole number, got 'two'\n"
        "  because the file is `FOLDER/vision_language_encoder/config.json`"
    )


def test_a_part_of_the_wrong_kind_names_its_file(folder: Path):
    (folder / "sampan.json").write_text('{"geometry": [1]}', encoding="utf-8")
    assert failure(folder) == (
        "error: the geometry of this checkpoint cannot be read\n"
        "  because it is [1], not a table\n  because the file is `FOLDER/sampan.json`"
    )


def test_whole_numbers_do_for_decimal_ones(folder: Path):
    edit(folder / "vae/config.json", latents_mean=[0, 0, 0, 0])
    assert open_folder(folder).config.vae.latents_mean == (0, 0, 0, 0)


def test_parts_that_do_not_fit_together_are_refused(folder: Path):
    edit(folder / "text_encoder/config.json", d_model=32)
    assert failure(folder) == (
        "error: the parts of this model do not fit together\n"
        "  because the decoder and the glyph encoder differ in width\n"
        "  because the folder is `FOLDER`"
    )


def test_the_prompt_tokenizer_is_held_against_the_config(folder: Path):
    edit(folder / "vision_language_encoder/config.json", image_start_token_id=63)
    with pytest.raises(CheckpointError) as caught:
        open_folder(folder).prompt_tokenizer()
    assert caught.value.render().replace(str(folder), "FOLDER") == (
        "error: the prompt tokenizer in `FOLDER/processor` is not this model's\n"
        "  because its `bos_token` is 64, the config's image_start_token_id is 63\n"
        "\nhint: take processor/ and vision_language_encoder/ from one checkpoint"
    )


# -------------------------------------------------------------------------------------------------------------- hash


def test_the_hash_is_the_same_for_a_copy_and_another_for_any_change(folder: Path, tiny_folder: Path):
    first = open_folder(tiny_folder)
    assert first.hash_covers == "contents"
    assert len(first.hash) == 16
    assert open_folder(folder).hash == first.hash
    seen = {first.hash}
    file = folder / "vae/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["decoder.conv_out.bias"][0] += 1
    save_file(tensors, file, {"format": "pt"})
    seen.add(open_folder(folder).hash)
    edit(folder / "scheduler/scheduler_config.json", base_shift=0.3)
    seen.add(open_folder(folder).hash)
    (folder / "sampan.json").write_text('{"geometry": {"prior_px": 64}}', "utf-8")
    seen.add(open_folder(folder).hash)
    assert len(seen) == 4


def test_words_about_where_a_model_comes_from_do_not_change_its_hash(folder: Path):
    (folder / "sampan.json").write_text('{"geometry": {}, "provenance": {"seed": 1}}', "utf-8")
    first = open_folder(folder).hash
    (folder / "sampan.json").write_text('{"geometry": {}, "provenance": {"seed": 2}}', "utf-8")
    assert open_folder(folder).hash == first


def test_a_great_folder_is_hashed_by_headers_and_by_the_hashes_it_records(folder: Path, monkeypatch):
    monkeypatch.setattr(layout, "HASHED_WHOLE_BYTES", 1000)
    first = open_folder(folder)
    assert first.hash_covers == "headers and sizes"
    file = folder / "vae/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["decoder.conv_out.bias"][0] += 1
    save_file(tensors, file, {"format": "pt"})
    assert open_folder(folder).hash == first.hash  # what headers cannot tell
    (folder / "sampan.json").write_text('{"geometry": {}, "sha256": {"vae": "1"}}', "utf-8")
    second = open_folder(folder).hash
    (folder / "sampan.json").write_text('{"geometry": {}, "sha256": {"vae": "2"}}', "utf-8")
    assert len({first.hash, second, open_folder(folder).hash}) == 3


def test_a_folder_does_not_change_under_its_reader(tiny_folder: Path):
    opened: ModelFolder = open_folder(tiny_folder)
    with pytest.raises(dataclasses.FrozenInstanceError):
        opened.path = tiny_folder.parent  # type: ignore[misc]
