"""The Python of docs/lora.md runs as it stands, on a tiny model in the places that it names."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sampan.checkpoint import lora as lora_files
from sampan.checkpoint.folder import open_folder
from sampan.cli import main
from sampan.models import lora

PAGE = Path(__file__).resolve().parents[2] / "docs" / "lora.md"


@pytest.fixture
def place(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the model and the LoRA that the page speaks of."""
    config, random = open_folder(tiny_folder).config, np.random.default_rng(0)
    shutil.copytree(tiny_folder, tmp_path / "models" / "glm-image")
    tensors: dict[str, dict[str, Any]] = {}
    for part in lora.PARTS:
        layers = lora.linear_layers(part, config)
        tensors[part] = {
            layer + end: torch.from_numpy(0.1 * random.standard_normal(shape, np.float32))
            for layer in lora.targets(part, config, ())
            for end, shape in zip(lora.FACTORS, ((2, layers[layer][1]), (layers[layer][0], 2)), strict=True)
        }
    lora_files.write(tmp_path / "runs" / "apples" / "lora", tensors, alpha=3.0)
    (tmp_path / "runs" / "apples" / "run.json").write_text('{"model": {"start": "models/glm-image"}}', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_the_libraries_load_what_the_page_says(place: Path):
    blocks = re.findall(r"^```python\n(.+?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, Any] = {}
    exec("\n".join(blocks), names)
    for module in (names["pipeline"].transformer, names["pipeline"].vision_language_encoder, names["generator"]):
        scales = {scale for layer in module.modules() if hasattr(layer, "lora_A") for scale in layer.scaling.values()}
        assert scales == {1.5}
        assert all(value.any() for name, value in module.named_parameters() if "lora_B" in name)


def test_the_merges_of_the_page_run(place: Path, capsys: pytest.CaptureFixture[str]):
    lines = re.findall(r"^sampan (checkpoint merge .+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        assert main(line.split()) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.split() == [line.split()[3] for line in lines]


def test_the_defaults_of_the_page_are_those_of_the_program():
    rows = re.findall(r"^\| `(ar|decoder)` \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {part: tuple(re.findall(r"`(.+?)`", words)) for part, words in rows} == lora.DEFAULTS
