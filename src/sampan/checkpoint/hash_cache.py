"""Hashes of files, remembered by each file's size, times and inode, so that a second start need not read 35 GB again.

They lie in one small file in the user's cache folder. A remembered hash is an economy and never the last word against a file:
before one is called damaged it is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sampan import documents, files
from sampan.checkpoint.weights import file_digest
from sampan.errors import BadDocumentError

_MAX_FILES = 4096
_seen: dict[tuple[Path, files.FileMark], str] = {}  # of this process


def digest(path: Path) -> str:
    """Return the sha256 of a file, read once by this process unless it changes."""
    path = path.resolve()
    mark = files.file_mark(path)
    known = None if mark is None else _seen.get((path, mark))
    if known is not None:
        return known
    sha256 = file_digest(path)
    if mark is not None and files.file_mark(path) == mark:  # not one that was written to meanwhile
        _seen[path, mark] = sha256
    return sha256


def changed_files(
    folder: Path,
    recorded: Mapping[str, str],
    progress: Callable[[str, int, int], None] | None = None,
    *,
    is_remembered: bool = True,
) -> list[str]:
    """Return which of a folder's files are missing or are not those whose hashes are recorded, by their recorded names.

    Args:
        recorded: The sha256 by name inside the folder.
        progress: Called with what is done, how many files are done and their number.
        is_remembered: Believe what an earlier process found, and leave it to the next.
    """
    store = cache_file()
    known = _read(store) if is_remembered else {}
    fresh, changed = {}, []
    for number, (name, sha256) in enumerate(recorded.items()):
        if progress:
            progress("checking files", number, len(recorded))
        path = (folder / name).resolve()
        if not path.is_file():
            changed.append(name)
            continue
        mark = files.file_mark(path)
        key = str(path)
        if mark is not None and known.get(key) == [*mark, sha256]:
            continue
        if digest(path) != sha256:
            changed.append(name)
        elif mark is not None and files.file_mark(path) == mark:
            fresh[key] = [*mark, sha256]
    if progress and recorded:
        progress("checking files", len(recorded), len(recorded))
    if fresh and is_remembered:
        _write(store, known, fresh)
    return changed


def cache_file() -> Path | None:
    """Return where hashes are remembered between processes; None where this user has no such place."""
    try:
        return files.cache_folder() / "hashes.json"
    except (RuntimeError, OSError):
        return None


def _read(store: Path | None) -> dict[str, Any]:
    with suppress(OSError, BadDocumentError):
        values = documents.parse_json(documents.read_text(store)) if store else {}
        if isinstance(values, dict):
            return values
    return {}


def _write(store: Path | None, known: dict[str, Any], fresh: dict[str, Any]) -> None:
    """Write what is known now. Whoever writes last wins; what is lost so is hashed again."""
    if store is None:
        return
    kept = {key: value for key, value in known.items() if key not in fresh and Path(key).is_file()} | fresh
    with suppress(OSError):  # a folder that cannot be written to costs time at the next start, nothing else
        store.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(store, json.dumps(dict(list(kept.items())[-_MAX_FILES:]), indent=0))
