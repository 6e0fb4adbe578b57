"""What parquet files and the tables of `datasets` have in common: which columns hold what, and where their pictures lie.

A picture in a table is a struct of `bytes` and `path` (as `datasets` writes it), plain bytes, or the name of a file. Lists
of these can be references. Which cells have bytes is asked of the table; the bytes themselves are not read here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sampan.data.image_source import ImageSource
from sampan.data.readers import Columns
from sampan.data.readers.rows import Rows
from sampan.data.table_images import import_pyarrow
from sampan.errors import BadRowError, JobError, did_you_mean


@dataclass(frozen=True)
class ImageReference:
    """A picture that a cell has or names.

    Args:
        item: Which of a list; None where the cell is none.
        path: What the cell says its file is called; it may name a file, or be only a name for the bytes.
        has_bytes: Whether the picture itself is in the cell.
    """

    item: int | None
    path: str
    has_bytes: bool

    @property
    def label(self) -> str:
        """The file name alone; what stands before it is of another machine."""
        return re.split(r"[\\/]", self.path)[-1]


def gather(
    rows: Rows,
    columns: TableColumns,
    *,
    title: str,
    first: int,
    texts: Any,
    pictures: Callable[[str], Iterable[list[ImageReference]]],
    cell: Callable[[int, str, ImageReference], ImageSource],
    file: Callable[[str], ImageSource],
) -> None:
    """Add rows of a table that were read together, as many as are wanted.

    Args:
        title: What the table is called; with a row's number it names the row and its sample.
        first: Number of the first of the rows in the table.
        texts: The caption columns, as pyarrow has them.
        pictures: Gives the pictures of each row in a column.
        cell: Gives the source of a picture that lies in the table, from (place among the rows, column, picture).
        file: Gives the source of a picture whose file is named; may raise BadRowError.
    """

    def source(place: int, column: str, picture: ImageReference) -> ImageSource:
        if picture.has_bytes:
            return cell(place, column, picture)
        if not picture.path:
            raise BadRowError("no-file", f"an entry of `{column}` has no picture")
        return file(picture.path)

    captions_by_column = [texts[column].to_pylist() for column in columns.captions]
    references_by_row = list(pictures(columns.references)) if columns.references else None
    for place, images in enumerate(pictures(columns.image)):
        if rows.is_full:
            return
        where = f"{title}[{first + place}]"
        with rows.row(where):
            if not images:
                raise BadRowError("no-file", f"no picture in `{columns.image}`")
            image = source(place, columns.image, images[0])
            named = references_by_row[place] if references_by_row else ()
            references = [source(place, columns.references or "", picture) for picture in named]
            row_captions = rows.captions(values[place] for values in captions_by_column)
            rows.add(where, where, image, row_captions, references)


@dataclass(frozen=True)
class TableColumns:
    """The columns of a table that are read, each by its name there; captions may be none."""

    image: str
    captions: tuple[str, ...]
    references: str | None


def choose_columns(schema: Any, columns: Columns, what: str, *, needs_captions: bool = True) -> TableColumns:
    """Return the columns that are meant: `image` and `text` where none are named; case and blanks do not matter.

    Args:
        schema: A pyarrow schema.
        needs_captions: False where a row without a caption gets one, so that `text` may be missing.

    Raises:
        JobError: One is not there, or holds something else; it says which columns there are, and what they hold.
    """
    kinds_by_column = {field.name: _holds(field.type) for field in schema}

    def spelled(name: str) -> str:
        alike = [column for column in kinds_by_column if column.strip().casefold() == name.strip().casefold()]
        return alike[0] if name not in kinds_by_column and len(alike) == 1 else name

    image = spelled(columns.image or "image")
    captions = tuple(map(spelled, columns.captions or ("text",)))
    if not columns.captions and not needs_captions and captions[0] not in kinds_by_column:
        captions = ()
    references = None if columns.references is None else spelled(columns.references)
    wanted = [("data.image_column", image, ("a picture", "text"))]
    wanted += [("data.caption_columns", name, ("text", "texts")) for name in captions]
    if references is not None:
        wanted += [("data.references_column", references, ("a picture", "pictures", "text", "texts"))]
    listed = "its columns are " + ", ".join(f"`{name}` ({holds})" for name, holds in kinds_by_column.items())
    for setting, name, allowed in wanted:
        fitting = [column for column, holds in kinds_by_column.items() if holds in allowed]
        if name not in kinds_by_column:
            hint = did_you_mean(name, fitting)
            raise JobError(
                f"`{setting}` names `{name}`, which is not a column of {what}",
                listed,
                hint.replace("known:", f"{setting} could be") if hint else None,
            )
        if kinds_by_column[name] not in allowed:
            raise JobError(
                f"`{setting}` names `{name}`, which holds {kinds_by_column[name]} in {what}",
                listed,
                f"{setting} could be " + ", ".join(f"`{column}`" for column in fitting) if fitting else None,
            )
    return TableColumns(image, captions, references)


def is_plain_bytes(kind: Any) -> bool:
    """Say whether cells of an arrow type are bytes and nothing else."""
    types = import_pyarrow().types
    return (
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_binary_view(kind)
    )


def count_absent(column: Any) -> int:
    """Return how many places of a chunked array have no picture: null cells, empty lists, nulls in lists."""
    pyarrow = import_pyarrow()
    num = 0
    for chunk in column.chunks:
        if _is_list(chunk.type):
            lengths = pyarrow.compute.list_value_length(chunk).to_pylist()
            num += sum(not length for length in lengths) + chunk.flatten().null_count
        else:
            num += chunk.null_count
    return num


def found_in(column: Any, has_bytes: bool | None = None) -> Iterator[list[ImageReference]]:
    """Yield the pictures of each cell of a pyarrow chunked array; a cell without one gives an empty list.

    A null in a list is a picture without a name or bytes.

    Args:
        has_bytes: Whether the bytes of each picture are there, where that is known and the array came without them.
    """
    pyarrow = import_pyarrow()
    for chunk in column.chunks:
        if not _is_list(chunk.type):
            yield from ([picture] if picture.has_bytes or picture.path else [] for picture in _flat(chunk, has_bytes))
            continue
        flat = _flat(chunk.flatten(), has_bytes)
        for length in pyarrow.compute.list_value_length(chunk).to_pylist():
            yield [replace(next(flat), item=item) for item in range(length or 0)]


def _flat(array: Any, has_bytes: bool | None) -> Iterator[ImageReference]:
    """Yield the picture of each value of an array of structs, bytes or names."""
    pyarrow = import_pyarrow()
    paths: Sequence[str | None] = [None] * len(array)
    if pyarrow.types.is_struct(array.type):
        fields = {field.name for field in array.type}
        if "path" in fields:
            paths = pyarrow.compute.struct_field(array, "path").to_pylist()
        # a struct that came without its bytes has them, by `has_bytes`, wherever it is there itself
        held = pyarrow.compute.struct_field(array, "bytes") if "bytes" in fields else array
        there = held.is_valid().to_pylist() if "bytes" in fields or has_bytes else [False] * len(array)
    elif is_plain_bytes(array.type):
        there = array.is_valid().to_pylist()
    else:
        paths, there = array.to_pylist(), [False] * len(array)
    for place, path in enumerate(paths):
        yield ImageReference(None, path or "", there[place])


def _holds(kind: Any) -> str:
    """Say what cells of an arrow type are."""
    types = import_pyarrow().types
    if types.is_dictionary(kind):
        return _holds(kind.value_type)
    if _is_list(kind):
        inner = _holds(kind.value_type)
        return {"a picture": "pictures", "text": "texts"}.get(inner, f"lists of {inner}")
    if is_plain_bytes(kind):
        return "a picture"
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "text"
    if types.is_struct(kind):
        fields = {field.name: field.type for field in kind}
        if "bytes" in fields and is_plain_bytes(fields["bytes"]):
            return "a picture"
        if fields and all(_holds(inner) == "text" for inner in fields.values()):
            return "texts"
    return str(kind)


def _is_list(kind: Any) -> bool:
    types = import_pyarrow().types
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
