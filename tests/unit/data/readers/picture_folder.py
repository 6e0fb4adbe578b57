"""A small picture folder, and what the reader says of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sampan.data.image_source import FileSource
from sampan.data.readers import Sample
from sampan.data.readers.image_folder import read
from sampan.errors import DataError, JobError


def describe(folder: Path, *rows) -> None:
    lines = [row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() for row in rows]
    (folder / "metadata.jsonl").write_bytes(b"\n".join(lines) + b"\n")


def reasons(folder: Path, **options) -> list[str]:
    return [f"{fault.where}: {fault.reason}" for fault in read(folder, **options).faults]


def notes(folder: Path, **options) -> list[str]:
    return [f"{note.kind}: {note.where}: {note.reason}" for note in read(folder, **options).notes]


def captions(folder: Path, **options) -> dict[str, tuple[str, ...]]:
    return {sample.key: sample.captions for sample in read(folder, **options).samples}


def refused(folder: Path, **options) -> str:
    with pytest.raises((DataError, JobError)) as caught:
        read(folder, **options)
    return str(caught.value)


def sample(folder: Path, where: str, key: str, *captions: str) -> Sample:
    """A sample whose key says which pictures it has."""
    image, *references = (FileSource(folder / name) for name in key.split(" < "))
    return Sample(key, where, image, captions, tuple(references))
