"""The run folder of a training: complete checkpoints, found again after any interruption.

    OUT/job.toml                     the job as it was given
    OUT/config.json                  the model's shape
    OUT/processor/                   the learned prompt tokenizer
    OUT/log.jsonl                    one line a step
    OUT/stages/STAGE/step-000200/    weights, ema, optimizer, extra (safetensors) and state.json with a hash per file
    OUT/model/                       the finished model, in the released layout

A checkpoint is written beside under a temporary name, synced and renamed, so that a folder named step-N is complete.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sampan import files
from sampan.checkpoint.weights import file_digest
from sampan.errors import CheckpointError
from sampan.frameworks import io

GROUPS = ("weights", "ema", "optimizer", "extra")


def save(run: Path, stage: str, step: int, groups: Mapping[str, Mapping[str, Any]], state: Mapping[str, Any]) -> Path:
    """Write one checkpoint and return its folder.

    Args:
        groups: Some of GROUPS to tensors by name.
        state: What else continues: done, seed, history … Written as state.json, with the step and file hashes.
    """
    parent = run / "stages" / stage
    parent.mkdir(parents=True, exist_ok=True)
    final = parent / f"step-{step:08d}"
    beside = parent / f".writing-{step:08d}-{os.getpid()}"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    hashes = {}
    for group, tensors in groups.items():
        if tensors:
            io.save_tensors(beside / f"{group}.safetensors", tensors, {"format": "pt"})
            hashes[f"{group}.safetensors"] = file_digest(beside / f"{group}.safetensors")
    files.write_text(
        beside / "state.json", json.dumps({"stage": stage, "step": step, "files": hashes, **state}, indent=2)
    )
    files.sync_folder(beside)
    if final.exists():
        shutil.rmtree(final)
    os.replace(beside, final)
    files.sync_folder(parent)
    return final


def steps(run: Path, stage: str) -> list[Path]:
    """Return the complete checkpoints of a stage, oldest first."""
    folders = sorted((run / "stages" / stage).glob("step-*"))
    return [folder for folder in folders if (folder / "state.json").is_file()]


def keep_last(run: Path, stage: str, count: int) -> None:
    """Remove all but the newest checkpoints of a stage, and leftovers of interrupted writing."""
    for folder in steps(run, stage)[:-count]:
        shutil.rmtree(folder)
    for folder in (run / "stages" / stage).glob(".writing-*"):
        shutil.rmtree(folder, ignore_errors=True)


def state_of(folder: Path) -> dict[str, Any]:
    """Return a checkpoint's state.json, without a look at its other files."""
    return json.loads((folder / "state.json").read_text(encoding="utf-8"))


def read_state(folder: Path) -> dict[str, Any]:
    """Return a checkpoint's state.json, its files checked against their hashes.

    Raises:
        CheckpointError: A file is missing or is not the one that was written; it names the file.
    """
    state = state_of(folder)
    for name, wanted in state["files"].items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"the checkpoint `{folder}` is not whole", f"`{name}` is missing")
        if file_digest(path) != wanted:
            raise CheckpointError(
                f"the checkpoint `{folder}` is not the one that was written",
                f"the sha256 of `{name}` is not the one in its state.json",
                "remove this folder; the run goes on from the checkpoint before it",
            )
    return state


def read_groups(folder: Path, device: str) -> dict[str, dict[str, Any]]:
    """Return the tensors of a checkpoint by group, on a device."""
    return {
        group: io.read_tensors(folder / f"{group}.safetensors", device)
        if (folder / f"{group}.safetensors").is_file()
        else {}
        for group in GROUPS
    }


def final(run: Path, stage: str) -> Path | None:
    """Return the checkpoint at which a stage was finished, or None."""
    folders = steps(run, stage)
    return folders[-1] if folders and state_of(folders[-1])["done"] else None
