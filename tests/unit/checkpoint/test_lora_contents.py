"""The hashes that a LoRA of sampan carries: a changed bit is refused, and other libraries' files have none."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.torch import save_file

from sampan.checkpoint import lora, lora_contents
from sampan.errors import CheckpointError
from sampan.models.config import ModelConfig
from unit.checkpoint.lora_files import GENERATOR, LAYER, failure, only, pair


def flip(path: Path, place: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def test_no_bit_of_a_written_lora_makes_it_another_one(config: ModelConfig, tmp_path: Path):
    tensors = {"decoder": pair(LAYER), "ar": pair(f"{GENERATOR}.self_attn.k_proj", 32, 64, 3)}
    lora.write(tmp_path / "lora", tensors, alpha=6.0, provenance={"seed": 7})

    def meaning() -> list[Any]:
        return [
            (low.part, name, layer.a.tobytes(), layer.b.tobytes(), layer.scale)
            for low in lora.read(tmp_path / "lora", config)
            for name, layer in low.layers.items()
        ]

    true = meaning()
    files = sorted(path for path in (tmp_path / "lora").rglob("*") if path.is_file())
    random, passed = np.random.default_rng(2), 0
    for path in [files[i] for i in random.integers(0, len(files), 300)]:
        content = path.read_bytes()
        flip(path, int(random.integers(len(content))), int(random.integers(8)))
        try:
            assert meaning() == true
            passed += 1
        except CheckpointError:
            pass
        path.write_bytes(content)
    assert passed < 15  # letters of the key that the hash stands under, and e written E


def test_a_lora_whose_config_was_changed_is_refused(config: ModelConfig, tmp_path: Path):
    lora.write(tmp_path, {"ar": pair(f"{GENERATOR}.self_attn.k_proj", 32, 64, 3)}, alpha=6.0)
    settings = tmp_path / "ar" / "adapter_config.json"
    values = json.loads(settings.read_text("utf-8"))
    assert "contents" not in values  # PEFT warns of what it does not know
    settings.write_text(json.dumps(values), "utf-8")  # spelled otherwise
    assert only(lora.read(tmp_path, config)).part == "ar"
    settings.write_text(json.dumps({**values, "lora_alpha": 7}), "utf-8")
    assert (
        failure(lambda: lora.read(tmp_path, config), tmp_path)
        .replace(os.sep, "/")
        .startswith(
            "error: the LoRA `FOLDER/ar/adapter_model.safetensors` is not the one that was written\n"
            "  because `adapter_config.json` beside it is not that of the hash in its header\n"
        )
    )
    settings.unlink()
    assert "is not beside it" in failure(lambda: lora.read(tmp_path, config), tmp_path)


def test_a_lora_of_before_has_no_hashes_and_one_under_another_name_keeps_them(config: ModelConfig, tmp_path: Path):
    lora.write(tmp_path, {"decoder": pair(LAYER)})
    path = tmp_path / "decoder" / lora.DIFFUSERS_FILE
    other = path.rename(tmp_path / "mine.safetensors")
    assert lora_contents.check(other)
    with safe_open(other, "pt") as file:
        header, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, other, header | {"sampan": json.dumps({"sampan": "0.1.0"})})
    assert not lora_contents.check(other)
    assert only(lora.read(other, config)).notes == ()
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name] * 2}, other, header)
    assert "its tensors or its settings are not those" in failure(lambda: lora.read(other, config), tmp_path)
