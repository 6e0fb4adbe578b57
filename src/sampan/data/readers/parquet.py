"""Parquet files with pictures in them, or with the names of picture files: a file, a folder of them, or a pattern.

The picture is a struct of `bytes` and `path`, plain bytes, or the name of a file relative to the parquet file's folder,
which it never leaves. Captions are texts or lists of texts in any columns; references are a picture or a list of them.

Listing reads the captions and the names, never the bytes of pictures that the file's own statistics say are there. Rows
are counted from 0, as other readers of parquet do.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from sampan.data.image_source import FileSource
from sampan.data.readers import CaptionOptions, Columns, Listing, parts
from sampan.data.readers.folder import Folder
from sampan.data.readers.rows import Rows
from sampan.data.readers.tables import (
    ImageReference,
    choose_columns,
    count_absent,
    found_in,
    gather,
    is_plain_bytes,
)
from sampan.data.table_images import TableImage, import_pyarrow
from sampan.errors import DataError


def read(
    path: str | Path,
    *,
    columns: Columns | None = None,
    captions: CaptionOptions | None = None,
    split: str | None = None,
    limit: int | None = None,
) -> Listing:
    """Return the samples of a set of parquet files, in the order of the files' names and of their rows.

    Args:
        columns: Which columns to read; None for `image` and `text`.
        captions: How captions are made of what the columns hold.
        split: Of a folder: its subfolder of this name, or the files whose names begin with it.
        limit: Read only this many rows.

    Raises:
        DataError: No such files, pyarrow is not installed, or the only file cannot be read. One of several that cannot be
            read is a fault.
        JobError: A column is not there, or holds something else.
    """
    pyarrow = import_pyarrow()
    columns = columns or Columns()
    rows = Rows(limit, captions)
    files = parts.find(path, ".parquet", split, "parquet files", rows)
    for name, file in files:
        if rows.is_full:
            break
        try:
            _read_file(name, file, columns, rows)
        except (pyarrow.ArrowException, OSError) as error:
            if len(files) == 1:
                raise DataError(f"parquet file `{file}` cannot be read", str(error)) from error
            rows.leave_out(name, "damaged-shard", f"it cannot be read: {error}")
    return rows.listing()


def _read_file(name: str, path: Path, columns: Columns, rows: Rows) -> None:
    from pyarrow import parquet

    folder = Folder(path.parent)
    with parquet.ParquetFile(path) as file:
        chosen = choose_columns(file.schema_arrow, columns, f"`{path}`", needs_captions=not rows.options.has_default)
        first = 0
        for group in range(file.num_row_groups):
            if rows.is_full:
                return
            gather(
                rows,
                chosen,
                title=name,
                first=first,
                texts=file.read_row_group(group, columns=list(chosen.captions), use_threads=False),
                pictures=partial(_pictures, file, group),
                cell=partial(_cell, path, group),
                file=lambda name: FileSource(folder.find(name)),
            )
            first += file.metadata.row_group(group).num_rows


def _cell(path: Path, group: int, place: int, column: str, picture: ImageReference) -> TableImage:
    return TableImage(path, place, column, picture.item, picture.label, group)


def _pictures(file: Any, group: int, column: str) -> list[list[ImageReference]]:
    """Return the pictures of each row of a row group, without their bytes where the file says that none lacks them."""
    facts = file.metadata.row_group(group)
    leaves = {facts.column(index).path_in_schema: facts.column(index) for index in range(facts.num_columns)}
    inner = {path: leaf for path, leaf in leaves.items() if path == column or path.startswith(f"{column}.")}
    holder = next((leaf for path, leaf in inner.items() if path == column or path.endswith(".bytes")), None)
    names = next((path for path in inner if path.endswith(".path")), None)
    statistics = holder.statistics if holder is not None else None
    num_nulls = statistics.null_count if statistics is not None and statistics.has_null_count else None
    if num_nulls == 0 and is_plain_bytes(file.schema_arrow.field(column).type):
        return [[ImageReference(None, "", True)] for _ in range(facts.num_rows)]
    if num_nulls is not None and names is not None:
        light = file.read_row_group(group, columns=[names], use_threads=False)[column]
        if num_nulls == count_absent(light):  # no struct lacks its bytes
            return list(found_in(light, has_bytes=True))
    return list(found_in(file.read_row_group(group, columns=[column], use_threads=False)[column]))
