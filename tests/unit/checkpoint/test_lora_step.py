"""Checkpoints in the middle of a training: of a LoRA as a LoRA, of a whole training as a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sampan.checkpoint import export, lora, run
from sampan.checkpoint.folder import TOKENIZER_FILES, open_folder
from sampan.errors import CheckpointError
from sampan.models import lora as additions
from sampan.models.build import PARTS


def factors(part: str, tiny_folder: Path, seed: int) -> dict[str, Any]:
    config, random = open_folder(tiny_folder).config, np.random.default_rng(seed)
    layers = additions.linear_layers(part, config)
    return {
        layer + end: torch.from_numpy(random.standard_normal(shape, np.float32))
        for layer in additions.targets(part, config, ())
        for end, shape in zip(additions.FACTORS, ((3, layers[layer][1]), (layers[layer][0], 3)), strict=True)
    }


@pytest.fixture
def lora_run(tiny_folder: Path, tmp_path: Path) -> Path:
    """A run that trained a LoRA of the decoder: saved after 20 steps and after 40, its end."""
    out = tmp_path / "run"
    out.mkdir()
    record = {"model": {"start": str(tiny_folder)}, "method": "lora", "lora": {"rank": 3, "alpha": 6.0}}
    (out / "run.json").write_text(json.dumps(record), encoding="utf-8")
    for step in (20, 40):
        averaged = factors("decoder", tiny_folder, step)
        groups = {"weights": {n: v * 0 for n, v in averaged.items()}, "ema": averaged, "optimizer": {}, "extra": {}}
        run.save(out, "decoder", step, groups, {"done": step == 40, "prefix": ""})
    return out


@pytest.mark.parametrize("name", ["step-20", "step-00000020"])
def test_a_step_of_a_lora_training_is_a_lora(name: str, lora_run: Path, tiny_folder: Path):
    (adapter,) = lora.read(lora_run / "stages" / "decoder" / name, open_folder(tiny_folder).config, 0.5)
    expected = factors("decoder", tiny_folder, 20)
    assert (adapter.part, adapter.strength) == ("decoder", 0.5)
    assert {layer + additions.FACTORS[0] for layer in adapter.layers} == {n for n in expected if ".lora_A." in n}
    for layer, added in adapter.layers.items():
        assert added.scale == 2.0  # alpha 6, rank 3
        assert np.array_equal(added.a, expected[layer + additions.FACTORS[0]].numpy())
        assert np.array_equal(added.b, expected[layer + additions.FACTORS[1]].numpy())


def test_its_end_is_what_the_finished_file_holds(lora_run: Path, tiny_folder: Path):
    config = open_folder(tiny_folder).config
    lora.write(lora_run / "lora", {"decoder": export.part_tensors(lora_run, "decoder", None)}, alpha=6.0)
    (by_step,), (by_file,) = (
        lora.read(path, config) for path in (lora_run / "stages" / "decoder" / "step-40", lora_run / "lora")
    )
    for layer, added in by_file.layers.items():
        assert np.array_equal(added.a, by_step.layers[layer].a) and added.scale == by_step.layers[layer].scale


def failure(call: Any, folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        call()
    return caught.value.render().replace(str(folder), "RUN")


def test_a_step_that_is_not_there_or_not_whole(lora_run: Path, tiny_folder: Path):
    config, stage = open_folder(tiny_folder).config, lora_run / "stages" / "decoder"
    assert failure(lambda: lora.read(stage / "step-30", config), lora_run).startswith(
        "error: there is no LoRA `RUN/stages/decoder/step-30`"
    )
    (stage / "step-00000020" / "ema.safetensors").unlink()
    assert failure(lambda: lora.read(stage / "step-20", config), lora_run).startswith(
        "error: the checkpoint `RUN/stages/decoder/step-00000020` is not whole\n  because `ema.safetensors` is missing"
    )


def test_a_lora_run_has_no_model_to_export(lora_run: Path, tmp_path: Path):
    assert "--lora RUN/stages/decoder/step-00000020` writes that model" in failure(
        lambda: export.export(lora_run, tmp_path / "made", None, {"decoder": 20}), lora_run
    )


@pytest.fixture
def whole_run(tiny_folder: Path, tmp_path: Path) -> Path:
    """A run that goes on from the tiny model: the decoder saved after 20 steps and 30, not at its end."""
    start, out = open_folder(tiny_folder), tmp_path / "run"
    (out / "processor").mkdir(parents=True)
    for name in TOKENIZER_FILES:
        (out / "processor" / name).write_bytes((tiny_folder / "processor" / name).read_bytes())
    record = {"model": {"start": str(tiny_folder)}, "method": "full", "seed": 0, "framework": "torch"}
    (out / "run.json").write_text(json.dumps(record), encoding="utf-8")
    export.write_config(out, start.config)
    for step in (20, 30):
        averaged = {name: value + step for name, value in start.tensors("decoder").items()}
        run.save(out, "decoder", step, {"weights": {}, "ema": averaged}, {"done": False, "prefix": ""})
    return out


def test_a_step_of_a_whole_training_is_exported(whole_run: Path, tiny_folder: Path, tmp_path: Path):
    made, start = (
        open_folder(export.export(whole_run, tmp_path / "made", None, {"decoder": 20})),
        open_folder(tiny_folder),
    )
    for part in PARTS:
        added = 20 if part == "decoder" else 0
        stored, before = made.tensors(part), start.tensors(part)
        assert all(torch.equal(value, before[name] + added) for name, value in stored.items()), part
    stages = json.loads((made.path / "sampan.json").read_text("utf-8"))["provenance"]["stages"]
    assert {name: stage["steps"] for name, stage in stages.items()} == {"decoder": 20}


def test_the_steps_there_are_are_named(whole_run: Path, tmp_path: Path):
    made = tmp_path / "made"
    assert failure(lambda: export.export(whole_run, made, None, {"decoder": 25}), whole_run) == (
        "error: the run in `RUN` has no checkpoint of `decoder` after step 25\n  because it is not there\n\n"
        "hint: there are those after steps 20, 30; train.keep_last keeps more"
    )
    assert "the stage was not saved yet" in failure(lambda: export.export(whole_run, made, None, {"ar": 5}), whole_run)
    assert not made.exists()


def test_a_step_of_a_whole_training_is_no_lora_and_says_what_to_do(whole_run: Path, tiny_folder: Path):
    said = failure(
        lambda: lora.read(whole_run / "stages" / "decoder" / "step-20", open_folder(tiny_folder).config), whole_run
    )
    assert "hint: `sampan checkpoint export RUN DIR --step decoder=20` writes a model of it" in said
