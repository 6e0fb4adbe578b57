"""Rows of metadata.jsonl and metadata.csv, and which of their fields are the picture, its references and its captions.

Names of fields and columns are compared without the blanks around them and without case.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sampan.data.readers import Columns
from sampan.data.readers.folder import is_picture
from sampan.errors import BadRowError, DataError, JobError, did_you_mean

DESCRIPTIONS = ("metadata.jsonl", "metadata.csv")
Row = tuple[str, Mapping[str, Any] | BadRowError]
"""Where a row stands, and its fields by their folded names or the reason why it has none."""

_CAPTION_NAMES = ("caption", "captions", "prompt", "prompts", "description", "sentence", "txt", "label", "tags")
_MAX_NAMED = 20
EXAMPLE = 'write metadata.jsonl, a line a picture: {"file_name": "a.png", "text": "what it shows"}'


def fold(name: str) -> str:
    """Return the name of a field as it is compared."""
    return name.strip().casefold()


class Fields:
    """What the fields of a row are called, and what they must be.

    Args:
        columns: Other names than `file_name`, `text` with its languages, and `references`.
        file: The metadata file, as errors call it.
    """

    def __init__(self, columns: Columns, file: str):
        self.columns, self.file = columns, file
        # job files that earlier versions wrote say `image` and ["text"], which stood for the names of this format
        names = ("file_name",) if columns.image is None else (columns.image, "file_name")
        self.images = names if columns.image in (None, "image") else (columns.image or "",)
        self.reference = columns.references or "references"
        self.captions = columns.captions if columns.captions != ("text",) else ()
        self._seen: dict[str, str] = {}
        self._example: Mapping[str, Any] = {}

    def see(self, names: Iterable[str], fields: Mapping[str, Any]) -> None:
        """Remember the names of a row's fields, as they are written."""
        self._seen |= {fold(name): name.strip() for name in names if fold(name) not in self._seen}
        self._example = self._example or fields

    def picture(self, fields: Mapping[str, Any]) -> str:
        """Return the name of a row's picture."""
        values = [fields.get(fold(image)) for image in self.images]
        name = next((value for value in values if isinstance(value, str) and value.strip()), None)
        if name is None:
            raise BadRowError("no-file", f"no `{self.images[0]}`")
        return name

    def references(self, fields: Mapping[str, Any]) -> list[str]:
        """Return the names of a row's reference pictures."""
        names = fields.get(fold(self.reference)) or []
        names = [names] if isinstance(names, str) else names
        if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
            raise BadRowError("bad-row", f"`{self.reference}` is not a list of file names")
        return names

    def texts(self, fields: Mapping[str, Any]) -> list[Any]:
        """Return what a row says of its picture."""
        if self.captions:
            return [fields.get(fold(name)) for name in self.captions]
        text, texts = fields.get("text") or [], fields.get("texts") or {}
        text = [text] if isinstance(text, str) else text
        if not isinstance(text, list) or not isinstance(texts, dict):
            raise BadRowError("bad-row", "`text` is not a text or a list of them, or `texts` not an object of them")
        return [*text, *texts.values()]

    def check(self, folder: Path, *, needs_captions: bool) -> None:
        """Refuse a file in which nothing has the name of a picture's column, or of a caption's.

        Of metadata.csv every column that the job names must be there; of metadata.jsonl, where rows may differ, some row
        must have one.

        Args:
            needs_captions: False where a row without a caption gets one.

        Raises:
            JobError: A name that the job gives is not there.
            DataError: The format's own names are not there.
        """
        if not self._seen:
            return
        is_csv = self.file.endswith(".csv")
        word = "column" if is_csv else "field"
        listed = f"its {word}s are " + ", ".join(f"`{name}`" for name in list(self._seen.values())[:_MAX_NAMED])
        has_picture = self._is_there(*self.images)
        named: list[str] = [] if has_picture or self.columns.image is None else [self.columns.image]
        if is_csv:
            named += [*self.captions, *([self.columns.references] if self.columns.references else [])]
        elif self.captions and needs_captions and not self._is_there(*self.captions):
            named.append(self.captions[0])
        for name in named:
            if not self._is_there(name):
                raise JobError(
                    f"`{name}` is not a {word} of `{folder / self.file}`",
                    listed,
                    did_you_mean(name, list(self._seen.values())),
                )
        own_captions = [
            name for name in self._seen if name in ("text", "texts") or (is_csv and name.startswith("text_"))
        ]
        has_captions = bool(self.captions or own_captions) or not needs_captions
        lacking = [] if has_picture else ["`file_name`, which names the picture"]
        lacking += [] if has_captions else ["`text`, which has the caption"]
        if lacking:
            raise DataError(
                f"picture folder `{folder}` cannot be read",
                (f"{self.file} has no {word} {f', and no {word} '.join(lacking)}", listed),
                self._hint(has_picture, has_captions),
            )

    def _is_there(self, *names: str) -> bool:
        return any(fold(name) in self._seen for name in names)

    def _hint(self, has_picture: bool, has_captions: bool) -> str:
        """Say which settings would name the columns that are there."""
        is_csv = self.file.endswith(".csv")
        only = next(iter(self._seen.values())) if is_csv and len(self._seen) == 1 else ""
        if sign := next((sign for sign in (";", "\t", "|") if sign in only), None):
            return f"put commas between columns; the first line has {sign!r}"
        images = [
            name
            for key, name in self._seen.items()
            if isinstance(value := self._example.get(key), str) and is_picture(value)
        ]
        texts = [name for key, name in self._seen.items() if key in _CAPTION_NAMES and name not in images]
        settings = [f'data.image_column = "{name}"' for name in images[:1] if not has_picture]
        settings += [f'data.caption_columns = ["{name}"]' for name in texts[:1] if not has_captions]
        if settings:
            return f"say which they are: {', '.join(settings)}"
        return "begin it with: file_name,text" if is_csv else EXAMPLE


def read_jsonl(data: bytes, fields: Fields) -> Iterator[Row]:
    """Yield the rows of metadata.jsonl."""
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
            if not isinstance(row, dict):
                yield where, BadRowError("bad-row", "not a JSON object")
                continue
            # a name that is written as it is compared wins over one that is not
            folded = {fold(name): value for name, value in row.items()} | row
            fields.see(row, folded)
            yield where, folded


def read_csv(folder: Path, data: bytes, fields: Fields, *, needs_captions: bool) -> Iterator[Row]:
    """Yield the rows of metadata.csv.

    Raises:
        JobError, DataError: It cannot be read, or lacks a column.
    """
    # a byte that is not UTF-8 becomes a lone surrogate, which the row's own check then refuses
    text = io.StringIO(data.decode("utf-8", "surrogateescape"), newline="")
    table = csv.DictReader(text, skipinitialspace=True)
    try:
        written = list(table.fieldnames or ())
        # a name that is written as it is compared wins over one that is not
        header = [name if fold(name) in written else fold(name) for name in written]
        table.fieldnames = header
        first = next(table, None)
        fields.see(written, first or {})
        fields.check(folder, needs_captions=needs_captions)
        reference = fold(fields.reference)
        for cells in itertools.chain([first] if first else [], table):
            where = f"metadata.csv:{table.line_num}"
            if None in cells:
                yield where, BadRowError("bad-row", "more cells than columns; a caption with a comma needs quotes")
                continue
            texts = {column: cells[column] for column in header if column.startswith("text_") and cells[column]}
            references = [name.strip() for name in (cells.get(reference) or "").split(";") if name.strip()]
            names = {fold(image): (cells.get(fold(image)) or "").strip() for image in fields.images}
            yield where, {**cells, "texts": texts, reference: references, **names}
    except csv.Error as error:
        raise DataError(
            f"picture folder `{folder}` cannot be read", f"metadata.csv:{table.line_num}: {error}"
        ) from error
