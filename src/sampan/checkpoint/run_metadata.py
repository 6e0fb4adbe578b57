"""What a training wrote about itself, read back: what must not change, and which stages ran how far. Loads no framework."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sampan.checkpoint.json_files import read_json, read_rows
from sampan.errors import CheckpointError


def read_record(out: Path) -> dict[str, Any]:
    """Return a run's run.json.

    Raises:
        CheckpointError: The folder is not a run, or the file cannot be read.
    """
    if not (out / "run.json").is_file():
        why = "it has no run.json" if out.is_dir() else "there is no such folder"
        raise CheckpointError(f"`{out}` is not a run", why, "give the folder that a job names as its `out`")
    return read_json(out / "run.json")


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
