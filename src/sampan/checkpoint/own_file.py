"""sampan.json: what sampan says of a model folder that it wrote, the hashes of the folder's files among it.

    format        2 since it has a checksum
    geometry, painting, prompt, provenance
    knows         what the model says it knows (sampan.checkpoint.knowledge), where it does
    sha256        of each weight file, by its name inside the folder
    documents     sha256 of every other file that was written
    checksum      of all this (sampan.checkpoint.sealed)

A folder that was written before has `sha256` alone: its weights are held against it, and its configs are taken as they are. A
folder of another tool has none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sampan.checkpoint import hash_cache, sealed
from sampan.checkpoint.json_files import read_json
from sampan.errors import CheckpointError

OWN_FILE = "sampan.json"
FORMAT = 2
Progress = Callable[[str, int, int], None]
_SHOWN = 5


def read(folder: Path) -> dict[str, Any]:
    """Return what a folder's sampan.json says; nothing where there is none.

    Raises:
        CheckpointError: It cannot be read.
    """
    return read_json(folder / OWN_FILE) if (folder / OWN_FILE).is_file() else {}


def recorded_hashes(own: Mapping[str, Any]) -> dict[str, str]:
    """Return the sha256 of files by name that a sampan.json has: of weights, and of documents where it has those.

    Raises:
        CheckpointError: They are no hashes by name.
    """
    hashes: dict[str, str] = {}
    for key in ("sha256", "documents"):
        values = own.get(key) or {}
        if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
            raise CheckpointError(f"the {OWN_FILE} of the model cannot be used", f"its `{key}` are no hashes by file")
        hashes |= values
    return hashes


def differences(
    folder: Path, needed: Iterable[Path] = (), progress: Progress | None = None, *, is_remembered: bool = True
) -> list[str]:
    """Return in words how a model folder's files differ from those that its sampan.json records.

    Args:
        needed: The files that are read to run the model. Where the whole folder was recorded, each of them must have been.
        progress: Called with what is done, how many files are hashed and their number.
        is_remembered: Do not hash files again that an earlier process hashed, and that are as they were then.

    Raises:
        CheckpointError: sampan.json cannot be read.
    """
    own = read(folder)
    wrong = [f"{OWN_FILE}: {problem}"] if (problem := sealed.defect(own, required="format" in own)) else []
    hashes = recorded_hashes(own)
    if sealed.is_sealed(own):
        names = (path.relative_to(folder).as_posix() for path in needed)
        wrong += [f"`{name}` was not written with it" for name in names if name not in hashes and name != OWN_FILE]
    changed = hash_cache.changed_files(folder, hashes, progress, is_remembered=is_remembered)
    return wrong + [
        f"the sha256 of `{name}` is not the one in its {OWN_FILE}"
        if (folder / name).is_file()
        else f"`{name}` is missing"
        for name in changed
    ]


def check(folder: Path, needed: Iterable[Path], progress: Progress | None = None) -> None:
    """Check that a model folder's files are those that its sampan.json records; of a folder without such records, nothing.

    Args:
        needed, progress: As `differences` takes them.

    Raises:
        CheckpointError: Files differ; they are named.
    """
    if wrong := differences(folder, needed, progress):
        more = [f"and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
        raise CheckpointError(
            f"the model in `{folder}` is not the one that was written",
            [*wrong[:_SHOWN], *more],
            f"download or copy these files again; `sampan checkpoint inspect {folder}` lists all. If they were changed on "
            f"purpose, take `sha256`, `documents`, `format` and `checksum` out of {OWN_FILE}; generate, serve, eval and "
            "checkpoint merge also take --no-verify",
        )
