"""What every stage of a job costs, counted on one framework, as JSON: run once for each framework and compared.

    SAMPAN_FRAMEWORK=torch python costs.py FOLDER PRESET DEVICE [SECTION.FIELD=NUMBER …]

The real stages draw their real batches from a few pictures in FOLDER, which is made where it is not there. Further
arguments are overrides of the preset.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console

from sampan.frameworks import meter
from sampan.job import parse
from sampan.models import lora
from sampan.train.dummy_batch import DummyInputs
from sampan.train.run_state import open_run
from sampan.train.stages import make

JOB = """
out = "{folder}/run"
[data]
path = "{folder}/set"
workers = 0
[model]
preset = "{preset}"
{overrides}
[stage.vae]
micro_batch_size = 1
crop_px = 64
[stage.tokenizer]
micro_batch_size = 1
[stage.glyph]
micro_batch_size = 2
[stage.ar]
micro_batch_size = 2
[stage.decoder]
micro_batch_size = 1
"""
VARIANTS = {  # what changes in the stage's section, the method, the dtype, that of trained weights
    "plain": ({}, "full", "fp32", "fp32"),
    "again": ({"recompute": True}, "full", "fp32", "fp32"),
    "lora": ({}, "lora", "fp32", "fp32"),
    "lora again": ({"recompute": True}, "lora", "fp32", "fp32"),
    "frozen text": ({"freeze_text": True}, "full", "fp32", "fp32"),
    "bf16": ({}, "full", "bf16", "bf16"),
    "mixed": ({}, "full", "bf16", "fp32"),
}
STAGES = {
    "vae": ("plain", "mixed"),
    "tokenizer": ("plain", "mixed"),
    "glyph": ("plain", "mixed"),
    "ar": tuple(VARIANTS),
    "decoder": ("plain", "again", "lora", "lora again", "bf16", "mixed"),
}
SIZE_PX = {"nano": 128, "glm-image": 1024}


def cases(folder: Path, preset: str, overrides: list[str]) -> Iterator[tuple[str, Any, Any, Any, Any]]:
    """Yield `stage/variant`, the run, the stage, the arrays of its largest batch, and what is trained of it."""
    if not (folder / "set").exists():
        (folder / "set").mkdir(parents=True)
        size = SIZE_PX[preset]
        for number in range(4):
            Image.new("RGB", (size, size), (40 * number, 80, 120)).save(folder / "set" / f"{number}.png")
        rows: list[dict[str, Any]] = [{"file_name": f"{n}.png", "text": f'a sign "NUMBER {n}"'} for n in range(3)]
        rows.append({"file_name": "3.png", "text": "make it red", "references": ["0.png"]})
        lines = "\n".join(json.dumps(row) for row in rows)
        (folder / "set" / "metadata.jsonl").write_text(lines, encoding="utf-8")
    sections: dict[str, list[str]] = {}
    for override in overrides:
        section, _, setting = override.partition(".")
        sections.setdefault(section, []).append(setting)
    tables = "\n".join("\n".join([f"[model.override.{name}]", *lines]) for name, lines in sections.items())
    job = parse(JOB.format(folder=folder.as_posix(), preset=preset, overrides=tables))
    base = open_run(job, "cpu", "fp32", resume=True, console=Console(quiet=True))
    for name, variants in STAGES.items():
        for variant in variants:
            changed, method, dtype, weights = VARIANTS[variant]
            settings = dataclasses.replace(getattr(job.stage, name), **changed)
            train = dataclasses.replace(job.train, method=method, weights=weights)
            work = dataclasses.replace(base, job=dataclasses.replace(job, train=train), dtype=dtype)
            blank = DummyInputs(work.data.pictures, work.config)
            stage = make(name, work.stage_inputs(settings, work.data.training, blank))
            trainable: Any = lambda name: True  # noqa: E731
            if method == "lora":
                lora.attach(stage.module, name, work.config, 8)
                trainable = lora.trainable
            largest = max((stage.draw(step, 0) for step in range(4)), key=num_bytes)
            yield f"{name}/{variant}", work, stage, largest.arrays, trainable


def costs(folder: Path, preset: str, overrides: list[str], device: str) -> dict[str, Any]:
    """Return `stage/variant` to what is measured and what is counted of it."""
    found = {}
    for case, work, stage, arrays, trainable in cases(folder, preset, overrides):
        is_lora = trainable is lora.trainable
        measured = meter.measure(
            stage.module, stage.loss, arrays, device=device, dtype=work.dtype, trainable=trainable,
            trainable_dtype=work.job.train.weights, autocast=work.dtype,
        )  # fmt: skip
        count = meter.count(stage.module, trainable, {} if is_lora else stage.frozen_rows)
        found[case] = {**dataclasses.asdict(measured), **dataclasses.asdict(count)}
    return found


def num_bytes(batch: Any) -> int:
    """Return the size of a batch."""
    return sum(getattr(array, "nbytes", 0) for array in batch.arrays)


if __name__ == "__main__":
    where, of, which, *more = sys.argv[1:]
    sys.stdout.write(json.dumps(costs(Path(where), of, more, which)) + "\n")
