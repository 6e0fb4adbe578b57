"""What is no model folder is told apart: runs, other libraries' folders, pickles, files, caches, nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from sampan.checkpoint.folder import open_folder
from sampan.errors import CheckpointError

LAYOUT = "\n\nhint: pass a folder in the layout of the GLM-Image release, or the folder of a finished `sampan train`"


def failure(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_folder(path)
    return caught.value.render().replace(str(path), "FOLDER")


def written(root: Path, **files: object) -> Path:
    """Make a folder with files; `/` written as `__`, values as text or JSON."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return root


def test_nothing_there(tmp_path: Path):
    assert failure(tmp_path / "none") == "error: there is no model folder `FOLDER`" + LAYOUT


def test_a_name_the_system_refuses(tmp_path: Path):
    assert failure(tmp_path / ("x" * 4000)).startswith("error: `FOLDER` cannot be read\n  because ")


def test_an_empty_folder(tmp_path: Path):
    assert failure(tmp_path) == "error: `FOLDER` is not a model folder\n  because it is empty" + LAYOUT


def test_a_file(tmp_path: Path):
    file = tmp_path / "model.safetensors"
    file.touch()
    assert failure(file) == "error: `FOLDER` is a file, not a model folder" + LAYOUT


def test_a_lora_is_named_as_one_alone_in_a_folder_and_below_one(tmp_path: Path):
    file = tmp_path / "lora" / "decoder" / "pytorch_lora_weights.safetensors"
    file.parent.mkdir(parents=True)
    halves = {f"transformer.x.lora_{half}.weight": np.zeros((2, 2), np.float32) for half in "AB"}
    save_file(halves, file)
    way = "\n\nhint: pass the folder of the model that it adapts, and `--lora FOLDER`"
    said = "error: `FOLDER` is not a model folder\n  because it"
    assert failure(file) == f"{said} is a LoRA, not a whole model{way}"
    assert failure(file.parent) == f"{said} holds a LoRA, not a whole model{way}"
    assert failure(file.parents[1]) == f"{said} holds a LoRA, not a whole model{way}"


def test_a_pickle_file_is_refused(tmp_path: Path):
    file = tmp_path / "model.ckpt"
    file.write_bytes(b"\x80\x04.")
    with pytest.raises(CheckpointError) as caught:
        open_folder(file)
    assert caught.value.render().replace(str(tmp_path), "FOLDER") == (
        "error: the weights in `FOLDER` are refused\n"
        "  because `model.ckpt` is a pickle: loading one could run code\n"
        "\nhint: convert it to safetensors with the tool that made it"
    )


def test_a_folder_of_pickles_is_refused(tmp_path: Path):
    for name in ("pytorch_model-1.bin", "other.pt", "README.md"):
        (tmp_path / name).touch()
    assert failure(tmp_path) == (
        "error: the weights in `FOLDER` are refused\n"
        "  because `other.pt`, `pytorch_model-1.bin` are pickles: loading one could run code\n"
        "\nhint: convert it to safetensors with the tool that made it"
    )


def test_another_pipeline(tmp_path: Path):
    written(tmp_path, **{"model_index.json": {"_class_name": "FluxPipeline"}})
    assert failure(tmp_path) == (
        "error: `FOLDER` is another kind of model\n"
        "  because its model_index.json is for a pipeline of class FluxPipeline; sampan runs GlmImagePipeline" + LAYOUT
    )


def test_one_model_of_another_library(tmp_path: Path):
    written(tmp_path, **{"config.json": {"architectures": ["GlmImageForConditionalGeneration"]}, "x.bin": ""})
    assert failure(tmp_path) == (
        "error: `FOLDER` is one model, not the whole of it\n"
        "  because its config.json is for GlmImageForConditionalGeneration; GLM-Image has four models side by side, "
        "listed in a model_index.json" + LAYOUT
    )


def test_a_part_of_a_whole_folder(folder: Path):
    assert failure(folder / "transformer") == (
        "error: `FOLDER` is one model, not the whole of it\n"
        "  because its config.json is for GlmImageTransformer2DModel; GLM-Image has four models side by side, "
        f"listed in a model_index.json\n\nhint: pass the folder above it, `{folder}`"
    )


def test_an_adapter(tmp_path: Path):
    written(tmp_path, **{"adapter_config.json": {}})
    assert failure(tmp_path) == (
        "error: `FOLDER` is not a model folder\n  because it holds an adapter (adapter_config.json), not a whole model"
        "\n\nhint: pass the folder of the model that it adapts, and `--lora FOLDER`"
    )


def test_a_download_cache(tmp_path: Path):
    written(tmp_path, snapshots__1a__model_index={}, blobs__x="")
    assert failure(tmp_path) == (
        "error: `FOLDER` is not a model folder\n"
        "  because it is a download cache, which keeps the folder itself below `snapshots`\n"
        f"\nhint: pass `{Path('FOLDER', 'snapshots', '1a')}`"
    )


def test_anything_else(tmp_path: Path):
    for name in "abcdefg":
        (tmp_path / name).touch()
    assert failure(tmp_path) == (
        "error: `FOLDER` is not a model folder\n"
        "  because it has no model_index.json; it holds `a`, `b`, `c`, `d`, `e` and 2 more" + LAYOUT
    )


def test_a_folder_that_lacks_a_part(folder: Path):
    shutil.rmtree(folder / "vae")
    assert failure(folder) == (
        "error: the model folder `FOLDER` is not whole\n"
        "  because `vae/config.json` is missing\n"
        "\nhint: download or copy the folder again; `sampan checkpoint inspect` lists what is there"
    )
    for name in ("transformer", "text_encoder", "scheduler", "processor"):
        shutil.rmtree(folder / name)
    (folder / "vision_language_encoder/config.json").unlink()
    assert "because `vision_language_encoder/config.json`, `transformer/config.json`, `vae/config.json`, " in failure(
        folder
    )


def test_a_whole_folder_without_its_index_is_one(folder: Path):
    (folder / "model_index.json").unlink()
    open_folder(folder).check()


# --------------------------------------------------------------------------------------------------------------- runs


def test_a_finished_run_stands_for_its_model(folder: Path, tmp_path: Path):
    run = written(tmp_path / "run", **{"log.jsonl": '{"stage": "vae", "step": 1, "loss": 2.0}\n'})
    shutil.copytree(folder, run / "model")
    assert open_folder(run).path == run / "model"
    assert open_folder(run).hash == open_folder(folder).hash


def test_a_run_that_is_not_finished(tmp_path: Path):
    lines = [{"stage": "vae", "step": 200, "loss": 0.5}, {"stage": "ar", "step": 3, "loss": 7.0}]
    written(tmp_path, **{"log.jsonl": "".join(json.dumps(line) + "\n" for line in lines) + '{"stage": "a'})
    assert failure(tmp_path) == (
        "error: the training in `FOLDER` is not finished\n"
        "  because it has no `model` folder; its log ends in stage `ar`, step 3\n"
        f"\nhint: sampan train {Path('FOLDER', 'job.toml')} --resume"
    )


def test_a_run_that_has_not_begun(tmp_path: Path):
    written(tmp_path, **{"run.json": {}})
    assert failure(tmp_path) == (
        "error: the training in `FOLDER` is not finished\n"
        "  because it has no `model` folder, and no step in its log\n"
        f"\nhint: sampan train {Path('FOLDER', 'job.toml')} --resume"
    )
