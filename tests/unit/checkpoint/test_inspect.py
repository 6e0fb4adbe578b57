"""A folder is looked into part by part, and a broken one is reported rather than given up."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from sampan import __version__, frameworks
from sampan.checkpoint import run
from sampan.checkpoint.folder import open_folder
from sampan.checkpoint.inspect import inspect, show
from sampan.checkpoint.provenance import StageSession
from sampan.errors import CheckpointError
from sampan.models.build import PARTS

VAE = "vae/diffusion_pytorch_model.safetensors"


def shown(report: dict[str, Any]) -> str:
    out = io.StringIO()
    show(report, Console(file=out, width=200))
    return out.getvalue()


def test_a_whole_folder(tiny_folder: Path, tiny_pipeline):
    report = inspect(tiny_folder)
    json.dumps(report)
    assert report["complete"]
    assert report["problems"] == []
    assert report["hash"] == open_folder(tiny_folder).hash
    assert report["hash_covers"] == "contents"
    assert report["run"] is report["written_by"] is None
    count = sum(p.numel() for p in tiny_pipeline.transformer.parameters())
    assert report["parts"]["decoder"] == {
        "folder": "transformer",
        "num_parameters": count,
        "bytes": 4 * count,
        "dtypes": {"F32": 4 * count},
        "missing": [],
        "unexpected": [],
        "wrong_shape": [],
        "problem": None,
    }
    names = ("vision_language_encoder", "transformer", "vae", "text_encoder")
    total = sum(p.numel() for name in names for p in getattr(tiny_pipeline, name).parameters())
    assert (report["num_parameters"], report["bytes"]) == (total, 4 * total)
    data = (tiny_folder / VAE).read_bytes()
    assert report["files"][2] == {
        "path": VAE,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "as_written": None,
    }
    text = shown(report)
    assert text.startswith(f"{tiny_folder}: a model, whole\n")
    assert f"hash: {report['hash']} (over configs, tokenizer, and the weights' contents)" in text
    assert "geometry: 32 px per prior token, a preview of about 16 x 16 tokens, 1024 px unless asked otherwise" in text
    assert "guidance: 1.5, 50 steps, unless asked otherwise" in text


def test_without_a_framework_what_is_there_is_reported(tiny_folder: Path, tmp_path: Path, monkeypatch):
    with_one = inspect(tiny_folder)
    monkeypatch.setattr(frameworks, "default", lambda: None)
    report = inspect(tiny_folder)
    for name, part in report["parts"].items():
        problem = (
            "no framework is installed, so it is not compared with what should be there (pip install 'sampan[torch]' "
        )
        assert part["problem"].startswith(problem)
        assert part == {**with_one["parts"][name], "problem": part["problem"]}
    assert (report["complete"], report["files"]) == (False, with_one["files"])
    assert shown(report).count("│ not compared ") == len(PARTS)
    # a process without any loads none
    alone = "import sys; sys.modules |= dict.fromkeys(['torch', 'mindspore']); import sampan.checkpoint.inspect"
    subprocess.run([sys.executable, "-c", alone], check=True, timeout=120)


def test_differences_are_listed_by_name(folder: Path):
    tensors = load_file(folder / VAE)
    del tensors["decoder.conv_in.bias"]
    tensors |= {"extra": torch.zeros(2), "decoder.conv_out.bias": torch.zeros(5)}
    save_file(tensors, folder / VAE)
    report = inspect(folder)
    part = report["parts"]["vae"]
    assert (part["missing"], part["unexpected"]) == (["decoder.conv_in.bias"], ["extra"])
    assert part["wrong_shape"] == [{"name": "decoder.conv_out.bias", "found": [5], "expected": [3]}]
    assert not report["complete"]
    assert report["hash"] is None
    text = shown(report)
    assert "1 missing, 1 unexpected, 1 of another shape" in text
    assert "vae: of another shape: decoder.conv_out.bias [5] instead of [3]\n" in text


def test_a_partial_folder_is_reported_and_the_rest_looked_into(folder: Path):
    shutil.rmtree(folder / "text_encoder")
    (folder / "vae/config.json").write_text("{", "utf-8")
    (folder / "transformer/diffusion_pytorch_model.safetensors").write_bytes(b"x" * 20)
    report = inspect(folder)
    parts = report["parts"]
    assert not report["complete"]
    assert parts["glyph"]["problem"] == f"`{folder / 'text_encoder'}` is missing"
    assert parts["vae"]["problem"] == "its config cannot be read, so what should be there is not known"
    assert parts["vae"]["num_parameters"] > 0
    assert "cannot be read: it is no whole safetensors file (20 bytes)" in parts["decoder"]["problem"]
    assert parts["ar"]["problem"] is None
    assert report["problems"][0].startswith(
        f"`{folder / 'vae/config.json'}` cannot be read: line 1, column 2 is not JSON"
    )
    assert report["problems"][1] == f"`{folder / 'text_encoder/config.json'}` is missing"
    text = shown(report)
    assert text.startswith(f"{folder}: a model that cannot be run as it is\n")
    assert f"glyph: `{folder / 'text_encoder'}` is missing\n" in text


def test_a_prompt_tokenizer_that_does_not_fit_is_a_problem(folder: Path):
    (folder / "processor/tokenizer.json").unlink()
    report = inspect(folder)
    assert not report["complete"]
    assert report["problems"] == [f"`{folder / 'processor/tokenizer.json'}` is missing"]


def test_files_are_held_against_what_was_written(folder: Path):
    digest = hashlib.sha256((folder / VAE).read_bytes()).hexdigest()
    recorded = {VAE: digest, "text_encoder/model.safetensors": "0" * 64, "vae/gone.safetensors": "0" * 64}
    (folder / "sampan.json").write_text(json.dumps({"sampan": "1.2.3", "sha256": recorded}), "utf-8")
    report = inspect(folder)
    assert {file["path"]: file["as_written"] for file in report["files"]} == {
        "text_encoder/model.safetensors": False,
        "transformer/diffusion_pytorch_model.safetensors": None,
        "vae/diffusion_pytorch_model.safetensors": True,
        "vae/gone.safetensors": False,
        "vision_language_encoder/model.safetensors": None,
    }
    text = shown(report)
    assert f"{VAE}  as written\n" in text
    assert "text_encoder/model.safetensors  changed since it was written\n" in text
    assert "written by: sampan 1.2.3\n" in text


def test_a_run_is_reported_stage_by_stage(folder: Path, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    lines = [
        {"stage": "vae", "step": 1, "loss": 2.0},
        {"stage": "vae", "step": 2, "loss": 1.0},
        {"stage": "ar", "step": 1, "loss": 7.0},
    ]
    (out / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    run.save(out, "vae", 2, {"weights": {"a": torch.zeros(1)}}, {"done": True})
    report = inspect(out)
    assert report["run"] == {
        "finished": False,
        "stages": {
            "vae": {
                "first_loss": 2.0,
                "last_step": 2,
                "last_loss": 1.0,
                "last_saved": "step-00000002",
                "finished": True,
                "sessions": [],
            },
            "ar": {
                "first_loss": 7.0,
                "last_step": 1,
                "last_loss": 7.0,
                "last_saved": None,
                "finished": False,
                "sessions": [],
            },
        },
    }
    assert (report["complete"], report["parts"], report["files"]) == (False, {}, [])
    assert shown(report).startswith(f"{out}: a training that is not finished\n")
    shutil.copytree(folder, out / "model")
    report = inspect(out)
    assert report["run"]["finished"]
    assert report["complete"]
    assert set(report["parts"]) == set(PARTS)
    assert shown(report).startswith(f"{out}: the model of a finished training, whole\n")


def test_where_a_run_has_been(tmp_path: Path):
    session, state = StageSession.after(None, framework="torch", device="cpu", dtype="fp32", threads=1), {"done": False}
    saved = run.save(tmp_path, "ar", 100, {"weights": {"a": torch.zeros(1)}}, state, session)
    # what an older sampan wrote had no dtype, threads and versions
    old = {"from_step": 100, "to_step": 200, "framework": "mindspore", "device": "npu:1", "sampan": "0.0.9"}
    state = run.read_state(saved) | {"history": [*run.read_state(saved)["history"], old], "step": 200}
    (saved / "state.json").write_text(json.dumps(state), "utf-8")
    session = StageSession.after(state, framework="torch", device="cuda:0", dtype="bf16", threads=8, num_ranks=4)
    run.save(tmp_path, "ar", 300, {"weights": {"a": torch.zeros(1)}}, {"done": True}, session)
    first, second, third = inspect(tmp_path)["run"]["stages"]["ar"]["sessions"]
    assert (first["from_step"], first["to_step"], first["device"], first["threads"]) == (0, 100, "cpu", 1)
    assert first["versions"]["torch"] == torch.__version__
    assert first["started"] <= first["ended"]
    assert second == {
        "from_step": 100,
        "to_step": 200,
        "framework": "mindspore",
        "device": "npu:1",
        "dtype": None,
        "threads": None,
        "ranks": None,
        "versions": {"sampan": "0.0.9"},
        "machine": None,
        "started": None,
        "ended": None,
    }
    assert (third["from_step"], third["to_step"], third["dtype"]) == (200, 300, "bf16")
    said = shown(inspect(tmp_path)).splitlines()
    lines = said[said.index("where it has been:") + 1 :][:3]
    assert lines[0].startswith(
        f"  ar    1-100  torch {torch.__version__} on cpu in fp32 · sampan {__version__}, python 3."
    )
    assert lines[1] == "      101-200  mindspore on npu:1 · sampan 0.0.9"
    assert lines[2].startswith(f"      201-300  torch {torch.__version__} on cuda:0 in bf16, 4 ranks · sampan ")


@pytest.mark.parametrize("make", ["nothing", "empty", "other"])
def test_only_what_holds_nothing_of_a_model_is_an_error(make: str, tmp_path: Path):
    place = tmp_path / "x"
    if make != "nothing":
        place.mkdir()
    if make == "other":
        (place / "notes.txt").touch()
    with pytest.raises(CheckpointError) as caught:
        inspect(place)
    says = {
        "nothing": f"error: there is no model folder `{place}`",
        "empty": f"error: `{place}` is not a model folder\n  because it is empty",
        "other": f"error: `{place}` is not a model folder\n  because it has no model_index.json; it holds `notes.txt`",
    }
    assert caught.value.render().startswith(says[make])
