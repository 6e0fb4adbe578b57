"""A folder that a command writes whole: beside its place, then renamed, so that it is there complete or not at all.

A small file in it records the recipe and a digest of what was written. With it the same command finds its work done,
and no folder is replaced that holds anything else: not another's files, and not our own after a person edited them.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sampan import files
from sampan.errors import DataError

RECORD = "sampan-data.json"
_FILE_BROWSERS_LEAVE = (".DS_Store", "Thumbs.db", "desktop.ini")


def finished(directory: Path, recipe: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the summary of a folder that was written by this very recipe, or None where the recipe may write one.

    Raises:
        DataError: The place is a file, or a folder with something in it that no command of ours has written.
    """
    what = f"`{directory}` is not overwritten"
    hint = "name another folder, or delete this one yourself"
    if not directory.exists():
        return None
    if not directory.is_dir():
        raise DataError(what, "it is a file", hint)
    if not any(entry.name not in _FILE_BROWSERS_LEAVE for entry in directory.iterdir()):
        return None
    try:
        record = json.loads((directory / RECORD).read_text(encoding="utf-8"))
        known = {key: record[key] for key in ("recipe", "sha256", "summary")}
    except FileNotFoundError:
        raise DataError(what, f"it has files in it, and no {RECORD} that says they were made here", hint) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(what, f"its {RECORD} cannot be read: {error}", hint) from error
    if known["sha256"] != _digest(directory):
        raise DataError(what, "files in it have been changed, added or removed since it was written", hint)
    return known["summary"] if known["recipe"] == json.loads(json.dumps(recipe)) else None


@contextmanager
def replaced(directory: Path, recipe: Mapping[str, Any], summary: dict[str, Any]) -> Iterator[Path]:
    """Give a new folder to fill; when the block ends well, it is recorded and takes the place of `directory`.

    Call `finished` first: what is there is deleted. Fill `summary` before the block ends.

    Raises:
        DataError: The folder cannot be written (no room, no right).
    """
    beside = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}.partial")
    former = beside.with_suffix(".former")
    try:
        beside.mkdir(parents=True)
        yield beside
        record = {"recipe": recipe, "sha256": _digest(beside), "summary": summary}
        files.write_bytes(beside / RECORD, (json.dumps(record, ensure_ascii=False, indent=2) + "\n").encode())
        for inner in {file.parent for file in beside.rglob("*")}:
            files.sync_folder(inner)
        if directory.exists():
            directory.replace(former)  # a full folder cannot be renamed over
        try:
            beside.replace(directory)
        except OSError:
            if former.exists():
                former.replace(directory)
            raise
        files.sync_folder(directory.parent)
    except OSError as error:
        raise DataError(f"`{directory}` cannot be written", str(error)) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        if directory.exists():
            shutil.rmtree(former, ignore_errors=True)


def _digest(directory: Path) -> str:
    """Return the SHA-256 over names and contents of all files but the record itself."""
    files = sorted(
        (file.relative_to(directory).as_posix(), file)
        for file in directory.rglob("*")
        if not file.is_dir() and file.name not in _FILE_BROWSERS_LEAVE and file != directory / RECORD
    )
    digest = hashlib.sha256()
    for name, file in files:
        digest.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
