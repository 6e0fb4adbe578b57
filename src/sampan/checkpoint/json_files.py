"""Text and JSON files of a checkpoint, read with errors that name the file and the line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sampan.errors import CheckpointError

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
LFS_HINT = "fetch the real file: `git lfs pull` in that folder, or download the folder again"


def is_lfs_pointer(path: Path) -> bool:
    """Say whether a file is what a clone without Git LFS leaves in the place of a large file."""
    with open(path, "rb") as file:
        return file.read(len(LFS_POINTER)) == LFS_POINTER


def read_text(path: Path) -> str:
    """Return a UTF-8 text file.

    Raises:
        CheckpointError: It is missing, is a Git LFS pointer, or is not UTF-8.
    """
    try:
        if is_lfs_pointer(path):
            raise CheckpointError(f"`{path}` cannot be read", "it is a Git LFS pointer, not the file itself", LFS_HINT)
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise CheckpointError(f"`{path}` is missing") from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"`{path}` cannot be read", f"it is not UTF-8 text: {error}") from error
    except OSError as error:
        raise CheckpointError(f"`{path}` cannot be read", str(error)) from error


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON file that holds an object.

    Raises:
        CheckpointError: As `read_text`, or it is not a JSON object.
    """
    try:
        value = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise CheckpointError(
            f"`{path}` cannot be read", f"line {error.lineno}, column {error.colno} is not JSON: {error.msg}"
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"`{path}` cannot be read", f"it holds a {type(value).__name__}, not an object of keys")
    return value


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file of JSON lines; what is no object is left out, as a line that was cut off by a kill.

    Raises:
        OSError: The file is missing or cannot be read.
    """
    for line in path.read_bytes().decode("utf-8", errors="replace").split("\n"):  # a caption may hold other line breaks
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict):
            yield row
