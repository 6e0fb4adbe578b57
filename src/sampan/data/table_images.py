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

_NUM_OPEN_GROUPS = 2  # a target's and a reference's column; each may be hundreds of megabytes
_NUM_OPEN_FILES = 16


@dataclass(frozen=True)
class ParquetImage:
    """A picture in a parquet file.

    Args:
        row_group, row: The group, and the row within it; both from 0.
        column: Its name; the cell holds bytes, or a struct with `bytes` in it.
        item: Which of a list; None where the cell is no list.
        label: The picture's own file name, where the table says it.
    """

    path: Path
    row_group: int
    row: int
    column: str
    item: int | None = None
    label: str = ""

    @property
    def name(self) -> str:
        return _name(self.path, f"{self.row_group}.{self.row}", self.column, self.item, self.label)

    def fingerprint(self) -> str:
        return f"{stamp(self.path)} {self.row_group}.{self.row}.{self.item} {self.column}"

    def read(self) -> bytes:
        pyarrow = import_pyarrow()
        try:
            column = _row_group_column(self.path, stamp(self.path), self.row_group, self.column)
            return _bytes(column[self.row].as_py(), self)
        except (pyarrow.ArrowException, IndexError, KeyError) as error:
            raise OSError(f"`{self.path}` cannot be read at `{self.name}`: {error}") from error


@dataclass(frozen=True)
class ArrowImage:
    """A picture in an arrow file, as the `datasets` library keeps a table.

    Args:
        row: From 0.
        column, item, label: As of a Cell.
    """

    path: Path
    row: int
    column: str
    item: int | None = None
    label: str = ""

    @property
    def name(self) -> str:
        return _name(self.path, str(self.row), self.column, self.item, self.label)

    def fingerprint(self) -> str:
        return f"{stamp(self.path)} {self.row}.{self.item} {self.column}"

    def read(self) -> bytes:
        pyarrow = import_pyarrow()
        try:
            table = arrow_table(self.path, stamp(self.path))
            return _bytes(table[self.column][self.row].as_py(), self)
        except (pyarrow.ArrowException, IndexError, KeyError) as error:
            raise OSError(f"`{self.path}` cannot be read at `{self.name}`: {error}") from error


def import_pyarrow() -> Any:
    """Return pyarrow.

    Raises:
        DataError: It is not installed.
    """
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.ipc
    except ModuleNotFoundError as error:
        raise DataError(
            "tables cannot be read", f"the package `{error.name}` is missing", "pip install 'sampan[hub]'"
        ) from error
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


def _bytes(value: Any, source: ParquetImage | ArrowImage) -> bytes:
    if source.item is not None:
        value = value[source.item]
    if isinstance(value, dict):
        value = value["bytes"]
    if not isinstance(value, bytes):
        raise OSError(f"there is no picture at `{source.name}`")
    return value


def _name(path: Path, row: str, column: str, item: int | None, label: str) -> str:
    place = f"{path.as_posix()}[{row}]/{column}" + (f"[{item}]" if item is not None else "")
    return f"{place}/{label}" if label else place
