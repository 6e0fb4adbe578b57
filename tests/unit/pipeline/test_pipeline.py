"""Painting with LoRAs: beside the weights they do what they do in them, and the picture says which they were."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file

from sampan.checkpoint import lora as lora_files
from sampan.checkpoint import weights
from sampan.checkpoint.folder import open_folder
from sampan.checkpoint.merge import merge
from sampan.checkpoint.write import write_folder
from sampan.errors import CheckpointError, RequestError
from sampan.models import lora
from sampan.models.build import PARTS
from sampan.pipeline import output
from sampan.pipeline.options import PipelineOptions
from sampan.pipeline.pipeline import Pipeline, generate, open_pipeline
from sampan.pipeline.request import ImageRequest

REQUEST = ImageRequest("a boat", width_px=64, height_px=64, num_inference_steps=2, seed=3, temperature=0.0)


@pytest.fixture(scope="module")
def file(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `lora` folder of a run that adapted both parts of the tiny model."""
    config, random = open_folder(tiny_folder).config, np.random.default_rng(0)
    run = tmp_path_factory.mktemp("run")
    tensors: dict[str, dict[str, Any]] = {}
    for part in lora.PARTS:
        layers = lora.linear_layers(part, config)
        tensors[part] = {
            layer + end: torch.from_numpy(0.3 * random.standard_normal(shape, np.float32))
            for layer in lora.targets(part, config, ())
            for end, shape in zip(lora.FACTORS, ((2, layers[layer][1]), (layers[layer][0], 2)), strict=True)
        }
    (run / "run.json").write_text(json.dumps({"model": {"start": str(tiny_folder)}}), encoding="utf-8")
    return lora_files.write(run / "lora", tensors)


def paint(model: Path, out: Path, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the pixels and the metadata of a picture."""
    request = dataclasses.replace(REQUEST, count=options.pop("count", 1))
    console = options.pop("console", None) or Console(file=io.StringIO())
    how = PipelineOptions(**{"model": str(model), "device": "cpu", "dtype": "fp32", **options})
    (record,) = generate(request, how, out=out, console=console)
    with Image.open(out) as image:
        facts = json.loads(image.text["sampan"])  # type: ignore[attr-defined]
        assert facts.items() <= record.items()
        return np.asarray(image).astype(int), facts


def test_beside_the_weights_they_do_what_they_do_in_them(tiny_folder: Path, file: Path, tmp_path: Path):
    plain, facts = paint(tiny_folder, tmp_path / "a.png")
    assert "loras" not in facts
    beside, facts = paint(tiny_folder, tmp_path / "b.png", loras=[(file, 0.5)])
    assert np.abs(beside - plain).max() > 20
    names = ("decoder/pytorch_lora_weights.safetensors", "ar/adapter_model.safetensors")
    assert facts["loras"] == [
        {"file": Path(name).name, "sha256": weights.file_digest(file / name), "scale": 0.5} for name in names
    ]
    assert facts["model_hash"] == open_folder(tiny_folder).hash
    merged, _ = paint(merge(tiny_folder, tmp_path / "merged", [(file, 0.5)]), tmp_path / "c.png")
    assert np.abs(merged - beside).max() <= 1  # one step of 8 bits, where the sums' last bits differ
    halves, _ = paint(tiny_folder, tmp_path / "d.png", loras=[(file, 0.3), (file, 0.2)])
    assert np.abs(halves - beside).max() <= 1
    nothing, _ = paint(tiny_folder, tmp_path / "e.png", loras=[(file, 0.0)])
    assert np.array_equal(nothing, plain)


def test_with_offload_and_in_bf16(tiny_folder: Path, file: Path, tmp_path: Path):
    plain, _ = paint(tiny_folder, tmp_path / "a.png", dtype="bf16")
    kept, _ = paint(tiny_folder, tmp_path / "b.png", loras=[(file, 0.5)], dtype="bf16")
    offloaded, _ = paint(tiny_folder, tmp_path / "c.png", loras=[(file, 0.5)], dtype="bf16", offload=True)
    assert np.array_equal(kept, offloaded)
    assert np.abs(kept - plain).max() > 20


def test_a_run_of_additions_paints_with_the_model_it_started_from(tiny_folder: Path, file: Path, tmp_path: Path):
    by_run, facts = paint(file.parent, tmp_path / "a.png")
    by_file, wanted = paint(tiny_folder, tmp_path / "b.png", loras=[(file, 1.0)])
    assert np.array_equal(by_run, by_file)
    assert facts == wanted


def test_a_pipeline_takes_additions(tiny_folder: Path, file: Path):
    folder = open_folder(tiny_folder)
    pipeline = Pipeline(folder, "cpu", "fp32", loras=lora_files.read(file, folder.config))
    assert pipeline.part("decoder").transformer_blocks[0].attn1.to_q.lora_A.weight.shape[0] == 2
    assert pipeline.part("ar").model.language_model.layers[0].mlp.down_proj.lora_A.weight.shape[0] == 2
    assert not any(".lora_" in name for name in pipeline.part("vae").state_dict())


def test_a_lora_that_does_not_fit_is_said_before_anything_is_painted(tiny_folder: Path, tmp_path: Path):
    with pytest.raises(CheckpointError) as caught:
        paint(tiny_folder, tmp_path / "a.png", loras=[(tmp_path / "none.safetensors", 1.0)])
    assert caught.value.what == f"there is no LoRA `{tmp_path / 'none.safetensors'}`"
    assert not (tmp_path / "a.png").exists()


def no_room(*given: Any) -> None:
    raise OSError(28, "No space left on device")


def test_a_place_that_cannot_be_written_is_said_before_anything_is_loaded(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(output.files, "try_place", no_room)
    with pytest.raises(RequestError) as caught:
        paint(tmp_path / "no-model", tmp_path / "a.png")
    assert str(caught.value) == (
        f"error: cannot write `{tmp_path / 'a.png'}`\n  because [Errno 28] No space left on device\n\n"
        "hint: give --out a name in a folder that can be written, on a disk with room"
    )
    monkeypatch.undo()
    (tmp_path / "b.png").mkdir()
    with pytest.raises(RequestError, match="it is a folder"):
        paint(tmp_path / "no-model", tmp_path / "b.png")


def test_a_disk_with_little_room_is_said_before_anything_is_painted(tiny_folder: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(output.files, "try_place", lambda folder: 3 * 64 * 64 - 1)
    with pytest.raises(RequestError, match=r"the pictures take up to 12.0 KiB, and 12.0 KiB are free there"):
        paint(tiny_folder, tmp_path / "a.png")


def test_what_is_lost_and_what_is_kept_is_said(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    really = output.save_png
    monkeypatch.setattr(output, "save_png", lambda path, *more: no_room() if "-2" in path.name else really(path, *more))
    with pytest.raises(RequestError) as caught:
        paint(tiny_folder, tmp_path / "a.png", count=3)
    assert str(caught.value) == (
        f"error: `{tmp_path / 'a-2.png'}` cannot be written\n  because [Errno 28] No space left on device\n"
        f"  because 2 of 3 painted pictures are lost; `{tmp_path / 'a-1.png'}` can be kept\n\n"
        "hint: make room or give --out another place, and call again with --seed 3: the same pictures come out"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["a-1.png"]


# --- files that were changed ---------------------------------------------------------------------------------------------


@pytest.fixture
def changed(tiny_folder: Path, tmp_path: Path) -> Path:
    """A folder that sampan wrote, with one bit of the decoder's weights changed."""
    opened = open_folder(tiny_folder)
    tensors = {part: opened.tensors(part) for part in PARTS}
    model = write_folder(tmp_path / "model", opened.config, tensors, tiny_folder / "processor")
    path = model / "transformer" / "diffusion_pytorch_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 64
    path.write_bytes(content)
    return model


def test_changed_weights_do_not_paint_unless_that_is_asked_for(changed: Path, tmp_path: Path):
    with pytest.raises(CheckpointError) as caught:
        paint(changed, tmp_path / "a.png")
    assert caught.value.because == (
        "the sha256 of `transformer/diffusion_pytorch_model.safetensors` is not the one in its sampan.json",
    )
    assert not (tmp_path / "a.png").exists()
    with pytest.raises(CheckpointError, match="is not the one that was written"):
        open_pipeline(PipelineOptions(model=str(changed), device="cpu", dtype="fp32"))  # as `serve` and `eval` open it
    paint(changed, tmp_path / "a.png", verified=False)
    assert (tmp_path / "a.png").exists()


def test_a_merge_gives_changed_weights_no_new_hashes(changed: Path, file: Path, tmp_path: Path):
    with pytest.raises(CheckpointError, match="is not the one that was written"):
        merge(changed, tmp_path / "merged", [(file, 1.0)])
    assert not (tmp_path / "merged").exists()
    merge(changed, tmp_path / "merged", [(file, 1.0)], verified=False)


def test_what_a_lora_leaves_open_is_printed(tiny_folder: Path, file: Path, tmp_path: Path):
    tensors = load_file(file / "decoder" / "pytorch_lora_weights.safetensors")
    save_file(tensors, tmp_path / "plain.safetensors")
    says = io.StringIO()
    console = Console(file=says, width=80)
    paint(tiny_folder, tmp_path / "a.png", loras=[(tmp_path / "plain.safetensors", 1.0)], console=console)
    assert f"LoRA `{tmp_path / 'plain.safetensors'}`: nothing says the alpha; the scale taken is 1 (alpha = rank)" in (
        says.getvalue()
    )
    notes: list[str] = []
    merge(tiny_folder, tmp_path / "merged", [(tmp_path / "plain.safetensors", 1.0)], say=notes.append)
    assert len(notes) == 1
