"""The run folder of a training: complete checkpoints, found again after any interruption.

    OUT/run.json                     what must stay the same from the first step to the last
    OUT/job.toml                     the job as it was given
    OUT/config.json                  the model's shape
    OUT/processor/                   the learned prompt tokenizer
    OUT/log.jsonl                    one line a step
    OUT/stages/STAGE/step-00000200/  weights, ema, optimizer, extra (safetensors) and state.json
    OUT/model/                       the finished model, in the released layout

A checkpoint is written beside under a temporary name, synced and renamed, so that a folder named step-N is complete. One
that lost a file afterwards, or has one of another size, is never offered.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sampan import files
from sampan.checkpoint.provenance import StageSession, versions
from sampan.checkpoint.weights import file_digest
from sampan.errors import CheckpointError

FORMAT = 2  # of state.json: 1 had no sizes, no versions and no history
GROUPS = ("weights", "ema", "optimizer", "extra")


def save(
    run: Path,
    stage: str,
    step: int,
    groups: Mapping[str, Mapping[str, Any]],
    state: Mapping[str, Any],
    session: StageSession | None = None,
) -> Path:
    """Write one checkpoint and return its folder.

    Args:
        groups: Some of GROUPS to tensors by name.
        state: What else continues, written into state.json as it is. A training gives `done`, `prefix`, `seed`,
            `rows_drawn` (the place in the data: rows of the stage's order that its steps have drawn), `schedule` (`lr`,
            `min_lr_ratio`, `warmup_steps`, `num_steps` as they were) and `job` (the job's text).
        session: Whose work it is; adds `framework`, `device`, `versions` and `history`.

    Raises:
        CheckpointError: It cannot be written; the checkpoints before it stay.
    """
    from sampan.frameworks import io  # here: a run can be looked into where no framework is

    parent = run / "stages" / stage
    final = parent / f"step-{step:08d}"
    beside = parent / f".writing-{step:08d}-{os.getpid()}"
    record: dict[str, Any] = {"format": FORMAT, "stage": stage, "step": step, "files": {}, "bytes": {}, **state}
    if session is not None:
        record |= {"framework": session.framework, "device": session.device, "versions": versions(session.framework)}
        record["history"] = session.history(step)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        for group, tensors in groups.items():
            if tensors:
                path = beside / f"{group}.safetensors"
                io.save_tensors(path, tensors, {"format": "pt"})
                record["files"][path.name], record["bytes"][path.name] = file_digest(path), path.stat().st_size
        files.write_text(beside / "state.json", json.dumps(record, indent=2, ensure_ascii=False))
        files.sync_folder(beside)
        if final.exists():
            _remove(final)
        os.replace(beside, final)
        files.sync_folder(parent)
    except OSError as error:
        raise CheckpointError(
            f"the checkpoint `{final}` cannot be written",
            str(error),
            "the checkpoints before it stay; go on with --resume",
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)  # after a failure, what it took
    return final


def steps(run: Path, stage: str) -> list[Path]:
    """Return the complete checkpoints of a stage, oldest first."""
    return [folder for folder in _folders(run, stage) if defect(folder) is None]


def newest(run: Path, stage: str) -> tuple[Path | None, list[str]]:
    """Return the newest complete checkpoint of a stage, or None, and in words which newer ones are passed over.

    Raises:
        CheckpointError: The newest is in a format of a later sampan.
    """
    notes = []
    for folder in reversed(_folders(run, stage)):
        wrong = defect(folder)
        if wrong is None:
            state_of(folder)
            return folder, notes
        notes.append(f"{stage}: the checkpoint `{folder.name}` is passed over: {wrong}")
    return None, notes


def defect(folder: Path) -> str | None:
    """Return in words why a checkpoint is not whole, or None. Looks at names and sizes, not into the files."""
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "it has no state.json"
    except (OSError, ValueError) as error:
        return f"its state.json cannot be read: {error}"
    if not isinstance(state, dict) or not isinstance(state.get("files"), dict) or "step" not in state:
        return "its state.json is not that of a checkpoint"
    sizes = state.get("bytes", {})
    for name in state["files"]:
        path = folder / name
        if not path.is_file():
            return f"`{name}` is missing"
        if name in sizes and path.stat().st_size != sizes[name]:
            return f"`{name}` has {path.stat().st_size} bytes and was written with {sizes[name]}"
    return None


def keep_last(run: Path, stage: str, count: int) -> None:
    """Remove all but the newest whole checkpoints of a stage, and what interrupted writing and removing left."""
    kept = steps(run, stage)[-count:]
    if kept:
        for folder in _folders(run, stage):
            if folder < kept[-1] and folder not in kept:
                _remove(folder)
    for pattern in (".writing-*", ".removing-*"):
        for folder in (run / "stages" / stage).glob(pattern):
            shutil.rmtree(folder, ignore_errors=True)


def state_of(folder: Path) -> dict[str, Any]:
    """Return a checkpoint's state.json, without a look at its other files.

    Raises:
        CheckpointError: It is in a format of a later sampan.
    """
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    found = state.get("format", 1)
    if found not in range(1, FORMAT + 1):
        raise CheckpointError(
            f"the checkpoint `{folder}` cannot be read",
            f"its state.json has format {found}, and this version of sampan knows {FORMAT} and those before it",
            "use the version of sampan that wrote it, or a later one",
        )
    return state


def read_state(folder: Path) -> dict[str, Any]:
    """Return a checkpoint's state.json, its files checked against their hashes.

    Raises:
        CheckpointError: A file is missing or is not the one that was written, naming the file; or its format is unknown.
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
    from sampan.frameworks import io

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


def _folders(run: Path, stage: str) -> list[Path]:
    return sorted(path for path in (run / "stages" / stage).glob("step-*") if path.is_dir())


def _remove(folder: Path) -> None:
    """Remove a checkpoint so that a half-removed one is never found under its name."""
    aside = folder.with_name(f".removing-{folder.name}-{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(folder, aside)
    shutil.rmtree(aside, ignore_errors=True)
