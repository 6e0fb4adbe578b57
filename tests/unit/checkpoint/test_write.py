"""A folder that sampan writes is one that the published libraries load, whole or not there at all."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sampan import __version__
from sampan.checkpoint import write
from sampan.checkpoint.expected import expected_shapes
from sampan.checkpoint.folder import load_part, open_folder
from sampan.checkpoint.write import write_folder
from sampan.errors import CheckpointError
from sampan.models.build import PARTS
from sampan.models.config import Geometry, ModelConfig, PaintingConfig
from sampan.models.init import initial_weights

COMPONENTS = ("vision_language_encoder", "transformer", "vae", "text_encoder")


@pytest.fixture(scope="session")
def config(tiny_folder: Path) -> ModelConfig:
    return open_folder(tiny_folder).config


@pytest.fixture(scope="session")
def tensors(config: ModelConfig) -> dict[str, dict[str, torch.Tensor]]:
    """Random weights of every part, none of them a constant."""
    drawn = {}
    for number, part in enumerate(PARTS):
        arrays = initial_weights(expected_shapes(part, config), seed=number)
        noise = np.random.default_rng(number)
        drawn[part] = {
            name: torch.from_numpy(value + 0.05 * noise.standard_normal(value.shape, np.float32))
            for name, value in arrays.items()
        }
    return drawn


def failure(directory: Path, *arguments: Any, **options: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        write_folder(directory, *arguments, **options)
    return caught.value.render().replace(str(directory.parent), "PARENT")


def same(part: str, path: Path, tensors: dict[str, dict[str, torch.Tensor]]) -> bool:
    loaded = load_part(open_folder(path), part, device="cpu", dtype="stored").state_dict()
    return loaded.keys() == tensors[part].keys() and all(torch.equal(v, tensors[part][k]) for k, v in loaded.items())


@pytest.mark.parametrize("max_shard_bytes", [write.MAX_SHARD_BYTES, 100_000])
def test_the_published_pipeline_loads_every_tensor(max_shard_bytes: int, config, tensors, tiny_folder, tmp_path):
    from diffusers import GlmImagePipeline

    path = write_folder(tmp_path / "made", config, tensors, tiny_folder / "processor", max_shard_bytes=max_shard_bytes)
    pipeline = GlmImagePipeline.from_pretrained(path)
    given = {name: value for part in tensors.values() for name, value in part.items()}
    total = 0
    for name in COMPONENTS:
        component = getattr(pipeline, name)
        _, found = type(component).from_pretrained(path / name, output_loading_info=True)
        assert not any(found[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), (name, found)
        for key, value in component.state_dict().items():
            assert value.dtype == torch.float32
            assert torch.equal(value, given["shared.weight" if key == "encoder.embed_tokens.weight" else key]), key
            total += key != "encoder.embed_tokens.weight"
    assert total == len(given)


def test_the_published_pipeline_reads_the_same_configs(config, tensors, tiny_folder, tmp_path):
    from diffusers import GlmImagePipeline

    made = GlmImagePipeline.from_pretrained(write_folder(tmp_path / "made", config, tensors, tiny_folder / "processor"))
    tiny_pipeline = GlmImagePipeline.from_pretrained(tiny_folder)
    # what has no say in the arithmetic: names of places, training-time dropout, a start token no encoder has
    silent = {"_name_or_path", "_use_default_values", "dropout_rate", "decoder_start_token_id"}
    for name in (*COMPONENTS, "scheduler"):
        ours, theirs = (getattr(p, name).config for p in (made, tiny_pipeline))
        ours, theirs = (dict(c.to_dict() if hasattr(c, "to_dict") else c) for c in (ours, theirs))
        differ = {key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)}
        assert differ <= silent, name
    assert made.processor.image_processor.to_dict() == tiny_pipeline.processor.image_processor.to_dict()
    assert made.processor.chat_template == tiny_pipeline.processor.chat_template
    texts = ["hello", "maçã 红", ""]
    assert made.tokenizer(texts)["input_ids"] == tiny_pipeline.tokenizer(texts)["input_ids"]
    assert len(made.tokenizer) == len(tiny_pipeline.tokenizer)
    prompt = "a red boat<sop>4 4<eop>"
    assert made.processor.tokenizer(prompt)["input_ids"] == tiny_pipeline.processor.tokenizer(prompt)["input_ids"]
    ours, theirs = (p.vision_language_encoder.generation_config for p in (made, tiny_pipeline))
    for key in ("do_sample", "temperature", "top_p", "eos_token_id", "pad_token_id"):
        assert getattr(ours, key) == getattr(theirs, key)


@pytest.mark.parametrize("max_shard_bytes", [write.MAX_SHARD_BYTES, 50_000])
def test_what_is_written_comes_back(max_shard_bytes: int, config, tensors, tiny_folder, tmp_path):
    wide = dataclasses.replace(
        config,
        geometry=Geometry(prior_px=64, preview_side=4, default_px=128),
        painting=PaintingConfig(guidance_scale=2.5),
    )
    path = write_folder(
        tmp_path / "new" / "made", wide, tensors, tiny_folder / "processor", max_shard_bytes=max_shard_bytes
    )
    opened = open_folder(path)
    opened.check()
    assert opened.config == wide
    assert all(same(part, path, tensors) for part in PARTS)
    assert [entry.name for entry in path.parent.iterdir()] == ["made"]


def test_shards_hold_no_more_than_asked_and_the_index_says_where_all_is(config, tensors, tiny_folder, tmp_path):
    path = write_folder(tmp_path / "made", config, tensors, tiny_folder / "processor", max_shard_bytes=50_000)
    index = json.loads((path / "transformer/diffusion_pytorch_model.safetensors.index.json").read_text("utf-8"))
    count = len(set(index["weight_map"].values()))
    assert count > 2
    assert set(index["weight_map"].values()) == {
        f"diffusion_pytorch_model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)
    }
    assert index["metadata"]["total_size"] == sum(v.numel() * 4 for v in tensors["decoder"].values())
    held = dict.fromkeys(index["weight_map"].values(), 0)
    for name, shard in index["weight_map"].items():
        held[shard] += tensors["decoder"][name].numel() * 4
    largest = max(v.numel() * 4 for v in tensors["decoder"].values())
    assert max(held.values()) <= max(50_000, largest)


def test_floating_weights_are_converted_when_asked(config, tensors, tiny_folder, tmp_path):
    path = write_folder(tmp_path / "made", config, tensors, tiny_folder / "processor", dtype="bf16")
    for part in PARTS:
        loaded = open_folder(path).tensors(part)
        assert all(torch.equal(value, tensors[part][name].bfloat16()) for name, value in loaded.items())
    for name in ("vision_language_encoder", "text_encoder"):
        assert json.loads((path / name / "config.json").read_text("utf-8"))["dtype"] == "bfloat16"


def test_where_it_comes_from_and_what_was_written_is_recorded(config, tensors, tiny_folder, tmp_path):
    names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    files = {name: (tiny_folder / "processor" / name).read_bytes() for name in names}
    path = write_folder(tmp_path / "made", config, tensors, files, provenance={"seed": 7})
    own = json.loads((path / "sampan.json").read_text("utf-8"))
    assert (own["sampan"], own["provenance"]) == (__version__, {"seed": 7})
    assert own["geometry"] == {"prior_px": 32, "preview_side": 16, "default_px": 1024}
    assert own["painting"] == {"guidance_scale": 1.5, "num_inference_steps": 50}
    assert sorted(own["sha256"]) == [
        "text_encoder/model.safetensors",
        "transformer/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "vision_language_encoder/model.safetensors",
    ]
    assert all((path / "processor" / name).read_bytes() == files[name] for name in names)


def test_one_model_written_twice_is_one_model(config, tensors, tiny_folder, tmp_path):
    folders = [
        write_folder(tmp_path / f"{i}", config, tensors, tiny_folder / "processor", provenance={"time": i})
        for i in range(2)
    ]
    assert open_folder(folders[0]).hash == open_folder(folders[1]).hash


# ----------------------------------------------------------------------------------------------------------- refusals


def test_a_folder_with_something_in_it_is_left_alone(config, tensors, tiny_folder, tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made/mine.txt").write_text("mine")
    assert failure(tmp_path / "made", config, tensors, tiny_folder / "processor") == (
        "error: `PARENT/made` is there already\n"
        "  because it is a folder with files in it, and a model is written to a new folder\n"
        "\nhint: give another name"
    )
    assert [entry.name for entry in tmp_path.rglob("*")] == ["made", "mine.txt"]


def test_a_file_is_left_alone(config, tensors, tiny_folder, tmp_path):
    (tmp_path / "made").write_text("mine")
    assert "because it is a file" in failure(tmp_path / "made", config, tensors, tiny_folder / "processor")
    assert (tmp_path / "made").read_text() == "mine"


def test_an_empty_folder_may_be_filled_even_the_current_one(config, tensors, tiny_folder, tmp_path, monkeypatch):
    (tmp_path / "made").mkdir()
    monkeypatch.chdir(tmp_path / "made")
    if os.name == "nt":
        pytest.skip("Windows keeps the current folder from being renamed over")
    write_folder(Path(), config, tensors, tiny_folder / "processor")
    open_folder(tmp_path / "made").check()


def test_a_missing_tokenizer_file_is_named(config, tensors, tmp_path):
    assert failure(tmp_path / "made", config, tensors, tmp_path / "none") == (
        "error: `PARENT/none/tokenizer.json` is missing\n  because a model is written with its prompt tokenizer"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_noticed_before_anything_is_written(config, tensors, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(write.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    total_bytes = sum(v.numel() * 4 for part in tensors.values() for v in part.values())
    assert failure(tmp_path / "made", config, tensors, tiny_folder / "processor") == (
        "error: `PARENT/made` cannot be written\n"
        f"  because the weights take {total_bytes / 2**20:.1f} MiB, and 1000 B are free there\n"
        "\nhint: make room, write to another disk, or use --dtype bf16"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stop", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interruption_leaves_nothing_behind(stop, config, tensors, tiny_folder, tmp_path, monkeypatch):
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise stop

    monkeypatch.setattr(write, "file_digest", interrupted)  # after the first weight file is there
    with pytest.raises(CheckpointError if isinstance(stop, OSError) else KeyboardInterrupt):
        write_folder(tmp_path / "made", config, tensors, tiny_folder / "processor")
    assert list(tmp_path.iterdir()) == []


def test_weights_of_another_config_are_a_bug_of_the_caller(config, tensors, tiny_folder, tmp_path):
    renamed = {**tensors, "vae": {f"x.{name}": value for name, value in tensors["vae"].items()}}
    with pytest.raises(ValueError, match="the weights of `vae` are not those of its config"):
        write_folder(tmp_path / "made", config, renamed, tiny_folder / "processor")
    with pytest.raises(ValueError, match="a model has"):
        write_folder(tmp_path / "made", config, {"vae": tensors["vae"]}, tiny_folder / "processor")
    assert list(tmp_path.iterdir()) == []
