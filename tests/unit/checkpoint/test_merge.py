"""A model with LoRAs in its weights: a whole folder, and the base again when they are taken out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sampan.checkpoint import export, lora
from sampan.checkpoint.folder import ModelFolder, open_folder, open_with_lora
from sampan.checkpoint.inspect import inspect
from sampan.checkpoint.merge import merge
from sampan.errors import CheckpointError
from sampan.models import lora as additions
from sampan.models.build import PARTS


@pytest.fixture
def file(tiny_folder: Path, tmp_path: Path) -> Path:
    """A `lora` folder for both parts of the tiny model."""
    config, random = open_folder(tiny_folder).config, np.random.default_rng(0)
    tensors: dict[str, dict[str, Any]] = {}
    for part in additions.PARTS:
        layers = additions.linear_layers(part, config)
        tensors[part] = {
            layer + end: torch.from_numpy(random.standard_normal(shape, np.float32) * np.float32(0.1))
            for layer in additions.targets(part, config, ())
            for end, shape in zip(additions.FACTORS, ((3, layers[layer][1]), (layers[layer][0], 3)), strict=True)
        }
    return lora.write(tmp_path / "lora", tensors)


def lora_run(folder: Path, start: Path) -> Path:
    """Return a run folder as a training of additions leaves it, made of a folder with `lora` in it."""
    (folder / "run.json").write_text(json.dumps({"model": {"start": str(start)}}), encoding="utf-8")
    return folder


def tensors(folder: ModelFolder) -> dict[str, Any]:
    return {f"{part}/{name}": value for part in PARTS for name, value in folder.tensors(part).items()}


def test_merged_and_taken_out_again_is_the_base(tiny_folder: Path, file: Path, tmp_path: Path):
    seen = []
    merged = merge(
        tiny_folder, tmp_path / "merged", [(file, 0.5)], progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(i, 4) for i in range(5)]
    back = merge(merged, tmp_path / "back", [(file, 0.5)], subtract=True)
    base, with_it, without = (tensors(open_folder(path)) for path in (tiny_folder, merged, back))
    changed = {name for name, value in base.items() if not torch.equal(value, with_it[name])}
    assert changed == {
        f"{part}/{layer}.weight"
        for part in additions.PARTS
        for layer in additions.targets(part, open_folder(tiny_folder).config, ())
    }
    for name, value in base.items():
        # one rounding when added, one when taken out, each of the greater of the two
        assert torch.allclose(without[name], value, rtol=0, atol=2**-23 * float(value.abs().max() + 1)), name
        assert name in changed or torch.equal(without[name], value)
    assert inspect(merged)["complete"]
    written = json.loads((back / "sampan.json").read_text(encoding="utf-8"))["provenance"]
    assert written["subtracted"] == written["base"]["provenance"]["merged"]
    assert [one["scale"] for one in written["subtracted"]] == [0.5, 0.5]
    assert written["base"]["hash"] == open_folder(merged).hash
    assert written["base"]["provenance"]["base"] == {
        "name": tiny_folder.name,
        "hash": open_folder(tiny_folder).hash,
        "provenance": None,
    }


def test_the_published_pipeline_loads_it(tiny_folder: Path, file: Path, tmp_path: Path):
    from diffusers import GlmImagePipeline

    merged = merge(tiny_folder, tmp_path / "merged", [(file, 1.0)], dtype="bf16")
    theirs = GlmImagePipeline.from_pretrained(tiny_folder).transformer
    theirs.load_lora_adapter(file / "decoder", use_safetensors=True)
    theirs.fuse_lora()
    theirs.unload_lora()
    ours = GlmImagePipeline.from_pretrained(merged, dtype=torch.bfloat16).transformer.state_dict()
    for name, value in theirs.state_dict().items():
        # summed in fp32 and cast once: what theirs is in bf16, but where the last bits of the two sums differ
        assert torch.allclose(ours[name].float(), value, rtol=2**-8, atol=1e-6), name


def test_a_run_of_additions_is_merged_with_the_model_it_started_from(tiny_folder: Path, file: Path, tmp_path: Path):
    run = lora_run(file.parent, tiny_folder)
    folder, own = open_with_lora(run)
    assert (folder.path, own) == (tiny_folder, run / "lora")
    by_run, by_file = (
        tensors(open_folder(merge(model, tmp_path / f"merged-{i}", loras)))
        for i, (model, loras) in enumerate(((run, []), (tiny_folder, [(file, 1.0)])))
    )
    assert all(torch.equal(value, by_file[name]) for name, value in by_run.items())


def failure(call: Any, folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        call()
    return caught.value.render().replace(str(folder), "FOLDER").replace("\\", "/")


def test_a_run_of_additions_is_no_model(tiny_folder: Path, file: Path, tmp_path: Path):
    run = lora_run(file.parent, tiny_folder)
    assert failure(lambda: open_folder(run), run).replace(str(tiny_folder), "TINY") == (
        "error: `FOLDER` holds low-rank additions, not a model\n"
        "  because it is a training of additions to `TINY`\n\n"
        "hint: `sampan checkpoint merge FOLDER DIR` makes a model of both; "
        "`sampan generate --model FOLDER` paints with both"
    )
    assert failure(lambda: export.export(run, tmp_path / "made", None), run) == (
        "error: the run in `FOLDER` has no model of its own\n"
        "  because it trained low-rank additions to another model\n\n"
        "hint: `sampan checkpoint merge FOLDER FOLDER/made` writes that model with the additions in it"
    )
    lora_run(run, tmp_path / "gone")
    assert failure(lambda: open_with_lora(run), run) == (
        "error: the model that `FOLDER` adds to is not there\n"
        "  because its run.json says that it started from `FOLDER/gone`\n\n"
        "hint: call from the directory it was trained in, or pass --model FOLDER --lora FOLDER/lora"
    )


def test_a_run_of_additions_is_looked_into(tiny_folder: Path, file: Path):
    run = lora_run(file.parent, tiny_folder)
    report = inspect(run)
    json.dumps(report)
    assert report["lora"]["model"] == str(tiny_folder)
    first = report["lora"]["files"][0]
    assert (first["path"], first["num_layers"], first["ranks"]) == (
        "lora/decoder/pytorch_lora_weights.safetensors", 12, [3]
    )  # fmt: skip
    assert report["parts"] == {}


def test_nothing_to_merge(tiny_folder: Path, tmp_path: Path):
    assert failure(lambda: merge(tiny_folder, tmp_path / "made", []), tiny_folder) == (
        "error: there is nothing to merge into `FOLDER`\n  because it is a whole model, and no LoRA is given\n\n"
        "hint: pass --lora FILE"
    )
    assert not (tmp_path / "made").exists()
