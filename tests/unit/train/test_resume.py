"""A run goes on from what is whole, and says what is not: checkpoints, what it was begun with, what it starts from."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from sampan.checkpoint import export, run, sealed
from sampan.checkpoint.folder import open_folder
from sampan.checkpoint.write import write_folder
from sampan.errors import CheckpointError
from sampan.job import parse
from sampan.models.build import PARTS
from sampan.train.run_state import open_run
from unit.train.conftest import NUM_STEPS, train


def flip(path: Path, place: int = -1, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def go_on(out: Path, tiny_job: str, *settings: str) -> str:
    says = io.StringIO()
    job = parse(tiny_job, [f"out={out.as_posix()}", 'train.stages=["ar"]', *settings])
    train(job, resume=True, says=Console(file=says, width=400))
    return says.getvalue()


def weights(out: Path, stage: str = "ar") -> str:
    folder = run.final(out, stage)
    assert folder is not None
    return run.read_state(folder)["files"]["weights.safetensors"]


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json"])
def test_a_changed_bit_is_said_and_the_checkpoint_before_is_taken(name: str, copied: Path, tiny_job: str):
    true = weights(copied)
    last = copied / "stages" / "ar" / f"step-{NUM_STEPS:08d}"
    flip(last / name, 300 if name == "state.json" else -1)
    assert run.final(copied, "ar") is None
    said = go_on(copied, tiny_job)
    assert f"ar: the checkpoint `{last.name}` is passed over: " in said
    assert f"ar: goes on at step {NUM_STEPS - 2}" in said
    assert weights(copied) == true  # the steps that were lost are taken again


def test_six_that_became_seven_is_no_model(copied: Path, tiny_job: str):
    for folder in (copied / "stages" / "ar").glob("step-*"):
        if folder.name > "step-00000006":
            shutil.rmtree(folder)
    path = copied / "stages" / "ar" / "step-00000006" / "state.json"
    path.write_text(path.read_text("utf-8").replace('"step": 6', '"step": 7'), "utf-8")
    said = go_on(copied, tiny_job, "stage.ar.num_steps=24")
    assert "ar: the checkpoint `step-00000006` is passed over: its state.json is not the one that was written" in said
    assert "ar: goes on at step 4" in said


def test_a_run_of_before_is_gone_on_with_and_that_is_said(copied: Path, tiny_job: str):
    for path in [copied / "run.json", copied / "config.json", *copied.glob("stages/ar/*/state.json")]:
        values = json.loads(path.read_text("utf-8"))
        for key in ("checksum", "format") if path.name != "state.json" else ("checksum",):
            values.pop(key, None)
        if path.name == "run.json":
            del values["files"]
        if path.name == "state.json":
            values["format"] = 2
        path.write_text(json.dumps(values, indent=2), "utf-8")
    true = weights(copied)
    shutil.rmtree(copied / "stages" / "ar" / f"step-{NUM_STEPS:08d}")
    said = go_on(copied, tiny_job)
    assert (
        "run.json, config.json, processor/: the run was begun before they had hashes; they are taken as they stand"
        in said
    )
    assert "ar: the checkpoint `step-00000022` was written before state.json had a checksum" in said
    assert weights(copied) == true


@pytest.mark.parametrize("name", ["run.json", "config.json", "processor/tokenizer.json"])
def test_what_a_run_was_begun_with_is_held_against_its_hash(name: str, copied: Path, tiny_job: str):
    text = (copied / name).read_text("utf-8")
    changed = {
        "run.json": text.replace('"framework": "torch"', '"framework": "torcl"'),
        "config.json": text.replace("1e-05", "1e-04", 1),
        "processor/tokenizer.json": text + " ",
    }[name]
    assert changed != text
    (copied / name).write_text(changed, "utf-8")
    job = parse(tiny_job, [f"out={copied.as_posix()}"])
    with pytest.raises(CheckpointError) as caught:
        open_run(job, "cpu", "fp32", resume=True, console=Console(quiet=True))
    assert caught.value.what == f"`{copied / name}` is not the file that was written"


def test_what_a_run_starts_from_is_held_against_its_hashes(tiny_folder: Path, tiny_job: str, tmp_path: Path):
    opened = open_folder(tiny_folder)
    model = write_folder(
        tmp_path / "model", opened.config, {part: opened.tensors(part) for part in PARTS}, tiny_folder / "processor"
    )
    flip(model / "transformer" / "diffusion_pytorch_model.safetensors")
    job = parse(tiny_job, [f"out={(tmp_path / 'run').as_posix()}", f'model.start="{model.as_posix()}"'])
    with pytest.raises(CheckpointError, match="is not the one that was written"):
        open_run(job, "cpu", "fp32", resume=False, console=Console(quiet=True))
    assert not (tmp_path / "run").exists()


def test_what_a_run_started_from_does_not_stand_in_for_a_finished_part_that_was_changed(copied: Path, tmp_path: Path):
    flip(copied / "stages" / "ar" / f"step-{NUM_STEPS:08d}" / "ema.safetensors")
    with pytest.raises(CheckpointError) as caught:
        export.export(copied, tmp_path / "model", None)
    assert caught.value.what == f"the run in `{copied}` has no whole `ar`"
    assert not (tmp_path / "model").exists()


def test_a_new_run_has_hashes_of_all_that_it_was_begun_with(tiny_run: Path):
    record = json.loads((tiny_run / "run.json").read_text("utf-8"))
    assert sealed.defect(record, required=True) is None
    assert record["files"].keys() == {
        path.relative_to(tiny_run).as_posix() for path in (tiny_run / "processor").iterdir()
    }
    assert sealed.defect(json.loads((tiny_run / "config.json").read_text("utf-8")), required=True) is None
