"""A folder of picture files, described by one of: metadata.jsonl, metadata.csv, or a `.txt` file beside each picture.

A row of metadata.jsonl is an object with `file_name`, a caption in `text` (one or a list) and captions by language in
`texts`, and the file names of reference pictures in `references`. In metadata.csv the columns are `file_name`, `text`,
`text_<language>`, and `references` with a semicolon between names. Names are relative to the folder and never leave it.
`Columns` can name others: captions replace `text` and `texts`, an image that is not "image" replaces `file_name`.

Each row stands for itself: a bad one is left out and reported, and shifts no other row's caption. No picture is opened.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from sampan.data import pictures
from sampan.data.image_source import FileSource
from sampan.data.readers import Columns, Listing
from sampan.data.readers.rows import Rows, captions, inside
from sampan.errors import BadRowError, DataError, JobError, did_you_mean

Row = tuple[str, Mapping[str, Any] | BadRowError]
"""Where a row stands, and its fields or the reason why it has none."""


def read(
    path: str | Path, *, columns: Columns | None = None, split: str | None = None, limit: int | None = None
) -> Listing:
    """Return the samples of a folder in the order of its rows.

    Args:
        columns: Fields of other names; None for the names above.
        split: The subfolder to read instead, with a description of its own.
        limit: Read only this many rows.

    Raises:
        DataError: No such folder, no description in it, two of them, or no rows.
        JobError: metadata.csv has no column of a name that `columns` gives.
    """
    folder = _folder(Path(path), split)
    names = _Names(columns or Columns())
    root = folder.resolve()
    rows = Rows()
    try:
        for where, fields in islice(_rows(folder, names), limit):
            with rows.row(where):
                if isinstance(fields, BadRowError):
                    raise fields
                named = [names.picture(fields), *names.references(fields)]
                texts = names.captions(fields)
                sources = [FileSource(inside(root, folder, name)) for name in named]
                # a picture may have several rows (plain, and as the target of an edit), so its name alone is no key
                key = " < ".join(PurePosixPath(name).as_posix() for name in named)
                rows.add(key, where, sources[0], texts, sources[1:])
    except OSError as error:
        raise DataError(f"picture folder `{folder}` cannot be read", str(error)) from error
    if not len(rows):
        raise DataError(f"picture folder `{folder}` has no rows", "its metadata file is empty")
    return rows.listing()


def _folder(folder: Path, split: str | None) -> Path:
    if not folder.is_dir():
        reason = "it is a file" if folder.exists() else "there is no such folder"
        raise DataError(f"picture folder `{folder}` cannot be read", reason)
    if split is None:
        return folder
    subfolders = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if split not in subfolders:
        raise DataError(
            f"picture folder `{folder}` has no split `{split}`",
            "a split is a subfolder with a description of its own",
            did_you_mean(split, subfolders),
        )
    return folder / split


class _Names:
    """What the fields of a row are called, and what they must be."""

    def __init__(self, columns: Columns):
        default = Columns()
        self.file_name = columns.image if columns.image != default.image else "file_name"
        self.reference = columns.references or "references"
        self.given_captions = columns.captions if columns.captions != default.captions else None
        renamed = [self.file_name, *(self.given_captions or ()), *([columns.references] if columns.references else [])]
        self.must_be_there = tuple(name for name in renamed if name != "file_name")

    def picture(self, fields: Mapping[str, Any]) -> str:
        name = fields.get(self.file_name)
        if not isinstance(name, str) or not name.strip():
            raise BadRowError("no-file", f"no `{self.file_name}`")
        return name

    def references(self, fields: Mapping[str, Any]) -> list[str]:
        names = fields.get(self.reference) or []
        names = [names] if isinstance(names, str) else names
        if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
            raise BadRowError("bad-row", f"`{self.reference}` is not a list of file names")
        return names

    def captions(self, fields: Mapping[str, Any]) -> tuple[str, ...]:
        if self.given_captions is not None:
            return captions(fields.get(name) for name in self.given_captions)
        text, texts = fields.get("text") or [], fields.get("texts") or {}
        text = [text] if isinstance(text, str) else text
        if not isinstance(text, list) or not isinstance(texts, dict):
            raise BadRowError("bad-row", "`text` is not a text or a list of them, or `texts` not an object of them")
        return captions([*text, *texts.values()])


def _rows(folder: Path, names: _Names) -> Iterator[Row]:
    descriptions = [name for name in ("metadata.jsonl", "metadata.csv") if (folder / name).is_file()]
    if len(descriptions) > 1:
        raise DataError(
            f"picture folder `{folder}` cannot be read",
            f"it has both {descriptions[0]} and {descriptions[1]}, and which one holds is not known",
            "keep one of them",
        )
    if not descriptions:
        return _text_files(folder)
    data = (folder / descriptions[0]).read_bytes().removeprefix(b"\xef\xbb\xbf")
    return _jsonl(data) if descriptions[0] == "metadata.jsonl" else _csv(folder, data, names)


def _jsonl(data: bytes) -> Iterator[Row]:
    for number, line in enumerate(data.split(b"\n"), start=1):
        where = f"metadata.jsonl:{number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError:
            yield where, BadRowError("bad-row", "not UTF-8")
        except (ValueError, RecursionError) as error:
            yield where, BadRowError("bad-row", f"not JSON: {error}")
        else:
            yield where, row if isinstance(row, dict) else BadRowError("bad-row", "not a JSON object")


def _csv(folder: Path, data: bytes, names: _Names) -> Iterator[Row]:
    # a byte that is not UTF-8 becomes a lone surrogate, which the row's own check then refuses
    table = csv.DictReader(io.StringIO(data.decode("utf-8", "surrogateescape"), newline=""))
    try:
        header = list(table.fieldnames or ())
        for name in names.must_be_there:
            if name not in header:
                raise JobError(
                    f"`{name}` is not a column of `{folder / 'metadata.csv'}`",
                    f"its columns are {', '.join(f'`{column}`' for column in header)}",
                    did_you_mean(name, header),
                )
        if names.file_name not in header:
            raise DataError(
                f"picture folder `{folder}` cannot be read",
                "the first line of metadata.csv names no column `file_name`",
                "begin it with: file_name,text",
            )
        for cells in table:
            where = f"metadata.csv:{table.line_num}"
            if None in cells:
                yield where, BadRowError("bad-row", "more cells than columns; a caption with a comma needs quotes")
                continue
            texts = {column: cells[column] for column in header if column.startswith("text_") and cells[column]}
            references = [name.strip() for name in (cells.get(names.reference) or "").split(";") if name.strip()]
            yield where, {**cells, "texts": texts, names.reference: references}
    except csv.Error as error:
        raise DataError(
            f"picture folder `{folder}` cannot be read", f"metadata.csv:{table.line_num}: {error}"
        ) from error


def _text_files(folder: Path) -> Iterator[Row]:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    images = [file for file in files if file.suffix.lower() in pictures.SUFFIXES]
    texts = {file.with_suffix(""): file for file in files if file.suffix.lower() == ".txt"}
    if not images or not texts:
        raise DataError(
            f"picture folder `{folder}` cannot be read",
            "it has no metadata.jsonl, no metadata.csv, and no pictures with `.txt` captions beside them",
            'write metadata.jsonl, a line a picture: {"file_name": "a.png", "text": "what it shows"}',
        )
    for image in images:
        name = image.relative_to(folder).as_posix()
        try:
            # UTF-8 with or without the mark that some editors put in front; a caption a line
            lines = texts[image.with_suffix("")].read_text(encoding="utf-8-sig").splitlines()
        except KeyError:
            yield name, BadRowError("no-caption", "no caption: no `.txt` file beside it")
        except UnicodeDecodeError:
            yield name, BadRowError("bad-row", "its `.txt` file is not UTF-8")
        else:
            yield name, {"file_name": name, "text": [line for line in lines if line.strip()]}
    stems = {image.with_suffix("") for image in images}
    for stem, file in texts.items():
        if stem not in stems:
            yield file.relative_to(folder).as_posix(), BadRowError("no-file", "no picture beside it")
