"""Pictures inside tables: a cell of a parquet file, a row of an arrow file.

Both name where they stand and read with pyarrow when they are asked to. What was read last stays open in the process, so
that reading in order opens each row group once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sampan.data.image_source import stamp
from sampan.errors import DataError
from sampan.extras import require

_NUM_OPEN_GROUPS = 2  # a target's and a reference's column; each may be hundreds of megabytes
_NUM_OPEN_FILES = 16


@dataclass(frozen=True)
class TableImage:
    """A picture in a table.

    Args:
        row: From 0, in the row group where there is one.
        column: Its name; the cell holds bytes, or a struct with `bytes` in it.
        item: Which of a list; None where the cell is no list.
        label: The picture's own file name, where the table says it.
        row_group: Of a parquet file, from 0; None for an arrow file, as the `datasets` library keeps a table.
    """

    path: Path
    row: int
    column: str
    item: int | None = None
    label: str = ""
    row_group: int | None = None

    @property
    def _place(self) -> str:
        return f"{self.row}" if self.row_group is None else f"{self.row_group}.{self.row}"

    @property
    def name(self) -> str:
        item = "" if self.item is None else f"[{self.item}]"
        cell = f"{self.path.as_posix()}[{self._place}]/{self.column}{item}"
        return f"{cell}/{self.label}" if self.label else cell

    def fingerprint(self) -> str:
        return f"{stamp(self.path)} {self._place}.{self.item} {self.column}"

    def read(self) -> bytes:
        pyarrow = import_pyarrow()
        try:
            if self.row_group is None:
                column = arrow_table(self.path, stamp(self.path))[self.column]
            else:
                column = _row_group_column(self.path, stamp(self.path), self.row_group, self.column)
            value = column[self.row].as_py()
            if self.item is not None:
                value = value[self.item]
            if isinstance(value, dict):
                value = value["bytes"]
        except (pyarrow.ArrowException, IndexError, KeyError) as error:
            raise OSError(f"`{self.path}` cannot be read at `{self.name}`: {error}") from error
        if not isinstance(value, bytes):
            raise OSError(f"there is no picture at `{self.name}`")
        return value


def import_pyarrow() -> Any:
    """Return pyarrow.

    Raises:
        DataError: It is not installed, or cannot be imported.
    """
    require("hub", "pyarrow", failed="tables cannot be read", error=DataError)
    import pyarrow

    return pyarrow


@lru_cache(maxsize=_NUM_OPEN_FILES)
def arrow_table(path: Path, stamp: str) -> Any:
    """Return an arrow file, stream or not, as a table mapped from it: nothing is read until it is looked at."""
    pyarrow = import_pyarrow()
    mapped = pyarrow.memory_map(str(path))
    try:
        return pyarrow.ipc.open_stream(mapped).read_all()
    except pyarrow.ArrowInvalid:
        return pyarrow.ipc.open_file(mapped).read_all()


@lru_cache(maxsize=_NUM_OPEN_GROUPS)
def _row_group_column(path: Path, stamp: str, row_group: int, column: str) -> Any:
    import_pyarrow()
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        return file.read_row_group(row_group, columns=[column], use_threads=False)[column]
