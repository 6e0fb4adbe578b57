"""How every drawn set is written: pictures in `images`, rows in metadata.jsonl, and a record of the recipe.

A folder is written beside its place, then renamed, so that it is there complete or not at all. The record also has a digest
of what was written. With it the same command finds its work done, and no folder is replaced that holds anything else: not
another's files, and not our own after a person edited them.
"""

from __future__ import annotations

import hashlib
import io
import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

import sampan
from sampan import files
from sampan.errors import DataError

RECORD = "sampan-data.json"
_FILE_BROWSERS_LEAVE = (".DS_Store", "Thumbs.db", "desktop.ini")

Row = dict[str, Any]


@dataclass(frozen=True)
class PictureSetSummary:
    """What lies in the folder of a set.

    Args:
        counts: How much of what, as the folder's record has it: `num_pictures` and others of the kind.
        written: False where the folder already held exactly this.
    """

    directory: Path
    counts: Mapping[str, int]
    written: bool


class PictureSet:
    """A set that is being written: pictures are saved at once, rows at the end."""

    def __init__(self, directory: Path):
        self._directory = directory
        self.rows: list[Row] = []

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of pictures that rows name, and of rows."""
        return {"num_pictures": len({row["file_name"] for row in self.rows}), "num_rows": len(self.rows)}

    def save(self, stem: str, image: Image.Image, compress_level: int = -1) -> str:
        """Write a picture as PNG and return the name that rows give it; -1 is the level that zlib takes by itself."""
        name, buffer = f"images/{stem}.png", io.BytesIO()
        image.save(buffer, "PNG", compress_level=compress_level)
        files.write_bytes(self._directory / name, buffer.getvalue())
        return name


def write_set(
    directory: str | Path, kind: str, recipe: Mapping[str, Any], fill: Callable[[PictureSet], dict[str, int]]
) -> PictureSetSummary:
    """Write a set into a folder, which appears complete or not at all.

    Args:
        directory: New or empty, or written by this command and unchanged since; then it is replaced, or left alone
            where it already is what is asked for.
        kind: As in `sampan data KIND`.
        recipe: Everything else that decides what is drawn, as JSON's types.
        fill: Draws the pictures and rows; returns the counts of the summary.

    Raises:
        DataError: The folder cannot be used.
    """
    directory = Path(directory).resolve()
    recipe = {"made_by": f"sampan {sampan.__version__} data {kind}", **recipe}
    known = find_summary(directory, recipe)
    if known is not None:
        return PictureSetSummary(directory, known, written=False)
    counts: dict[str, int] = {}
    with replace_folder(directory, recipe, counts) as beside:
        (beside / "images").mkdir()
        pictures = PictureSet(beside)
        counts |= fill(pictures)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in pictures.rows)
        files.write_bytes(beside / "metadata.jsonl", lines.encode())
    return PictureSetSummary(directory, counts, written=True)


def check_range(failed: str, name: str, value: int, least: int, most: int | None = None) -> None:
    """Refuse a number outside of its range.

    Raises:
        DataError: It begins with `failed`.
    """
    if value < least or (most is not None and value > most):
        span = f"from {least} to {most}" if most is not None else f"at least {least}"
        raise DataError(failed, f"`{name}` is {value}, and it must be {span}")


def find_summary(directory: Path, recipe: Mapping[str, Any]) -> dict[str, Any] | None:
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
def replace_folder(directory: Path, recipe: Mapping[str, Any], summary: dict[str, Any]) -> Iterator[Path]:
    """Give a new folder to fill; when the block ends well, it is recorded and takes the place of `directory`.

    Call `find_summary` first: what is there is deleted. Fill `summary` before the block ends.

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
    contents = sorted(
        (file.relative_to(directory).as_posix(), file)
        for file in directory.rglob("*")
        if not file.is_dir() and file.name not in _FILE_BROWSERS_LEAVE and file != directory / RECORD
    )
    digest = hashlib.sha256()
    for name, file in contents:
        digest.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
