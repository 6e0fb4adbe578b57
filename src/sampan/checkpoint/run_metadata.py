"""What a training wrote about itself, read back: what must not change, and which stages ran how far. Loads no framework."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sampan.checkpoint import sealed, weights
from sampan.checkpoint.json_files import read_json, read_rows
from sampan.errors import CheckpointError

RECORD_FORMAT = 2  # of run.json, since it has a checksum and the hashes of other files
_BEGIN_ANEW = "copy it from a backup of this run; without one, set `out` to another folder and begin anew"


def read_record(out: Path) -> dict[str, Any]:
    """Return a run's run.json.

    Raises:
        CheckpointError: The folder is not a run, or the file cannot be read, or its content is not that of its checksum.
    """
    if not (out / "run.json").is_file():
        why = "it has no run.json" if out.is_dir() else "there is no such folder"
        raise CheckpointError(f"`{out}` is not a run", why, "give the folder that a job names as its `out`")
    return _sealed(out / "run.json", required=None)


def read_config_values(out: Path) -> dict[str, Any]:
    """Return a run's config.json without its checksum; errors as `read_record`."""
    record = out / "run.json"
    is_new = record.is_file() and sealed.is_sealed(read_record(out))
    return sealed.unsealed(_sealed(out / "config.json", required=is_new))


def write_record(out: Path, facts: Mapping[str, Any]) -> None:
    """Write a run's run.json: facts, and the hashes of the prompt tokenizer's files, which never change."""
    hashes = {f"processor/{path.name}": weights.file_digest(path) for path in sorted((out / "processor").iterdir())}
    sealed.write(out / "run.json", {"format": RECORD_FORMAT, **facts, "files": hashes})


def check_record(out: Path) -> list[str]:
    """Hold a run's own files, without its checkpoints, against their hashes; return in words which have none.

    Raises:
        CheckpointError: A file is not the one that was written; it is named.
    """
    record = read_record(out)
    if (out / "config.json").is_file():
        read_config_values(out)
    for name, sha256 in (record.get("files") or {}).items():
        path = out / name
        if not path.is_file() or weights.file_digest(path) != sha256:
            why = "its sha256 is not the one in run.json" if path.is_file() else "it is missing"
            raise CheckpointError(f"`{path}` is not the file that was written", why, _BEGIN_ANEW)
    if sealed.is_sealed(record):
        return []
    return ["run.json, config.json, processor/: the run was begun before they had hashes; they are taken as they stand"]


def _sealed(path: Path, *, required: bool | None) -> dict[str, Any]:
    """Return a JSON file held against its checksum; `required` None is as its own `format` says."""
    values = read_json(path)
    if wrong := sealed.defect(values, required="format" in values if required is None else required):
        raise CheckpointError(f"`{path}` is not the file that was written", wrong, _BEGIN_ANEW)
    return values


def read_log(path: Path) -> dict[str, dict[str, Any]]:
    """Return, for each stage in the order they first appear in a `log.jsonl`, its last line's step and loss.

    A last line that was cut off by an interruption is left out, and so are lines that are no step. A loss that was not
    finite is None. Without a file there are no stages.
    """
    stages: dict[str, dict[str, Any]] = {}
    for record in _steps(path):
        known = stages.setdefault(str(record["stage"]), {"first_loss": record["loss"]})
        known.update(last_step=record["step"], last_loss=record["loss"])
    return stages


def read_steps(path: Path, stage: str) -> dict[int, dict[str, Any]]:
    """Return the lines of a stage's steps in a `log.jsonl` by step; measurements are left out."""
    return {int(record["step"]): record for record in _steps(path) if record["stage"] == stage}


def _steps(path: Path) -> Iterator[dict[str, Any]]:
    # a measurement at a stage's end has no loss
    return (row for row in (read_rows(path) if path.is_file() else ()) if {"stage", "step", "loss"} <= row.keys())
