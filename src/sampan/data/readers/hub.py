"""Picture sets in a layout of the Hugging Face Hub, read with the `datasets` library: a local folder, or a name on the Hub.

    pictures/birds                  a folder on this machine, which wins over a name on the Hub
    owner/name                      a set on the Hub
    owner/name@revision:config      a branch, tag or commit of it; and one of its configurations

The library brings the set into its own cache as arrow files; a sample's picture is a row of one of them, or a file that
such a row names. No code of a set is ever run: only versions of the library that cannot do so are used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sampan.data.image_source import FileSource, stamp
from sampan.data.readers import CaptionOptions, Columns, Listing
from sampan.data.readers.folder import Folder
from sampan.data.readers.rows import Rows
from sampan.data.readers.tables import ImageReference, TableColumns, choose_columns, found_in, gather
from sampan.data.table_images import TableImage, arrow_table, import_pyarrow
from sampan.errors import BadRowError, DataError, did_you_mean
from sampan.extras import require

_NAME = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?(?::(?P<config>[\w.-]+))?")
_FIRST_VERSION_WITHOUT_CODE = 4
_ROWS_AT_ONCE = 10_000


def read(
    path: str | Path,
    *,
    columns: Columns | None = None,
    captions: CaptionOptions | None = None,
    split: str | None = None,
    limit: int | None = None,
) -> Listing:
    """Return the samples of one split of a set, in the order of its rows, counted from 0.

    Args:
        path: A folder, or the name of a set.
        columns: Which columns to read; None for `image` and `text`.
        captions: How captions are made of what the columns hold.
        split: One of the set's; None where it has but one.
        limit: Read only this many rows.

    Raises:
        DataError: There is no such set, it cannot be reached, or it has no such split or configuration; several and none
            is chosen; `datasets` is not installed, or is too old.
        JobError: A column is not there, or holds something else.
    """
    import_pyarrow()
    datasets = _import_datasets()
    place = _place(str(path))
    with _quiet(datasets), _explained(datasets, place):
        config = _choose_config(datasets, place)
        splits = datasets.get_dataset_split_names(place.name, config, revision=place.revision)
        split = _choose_split(place, split, splits)
        table = datasets.load_dataset(place.name, config, split=split, revision=place.revision)
    rows = Rows(limit, captions)
    chosen = choose_columns(
        table.data.schema, columns or Columns(), place.what, needs_captions=not rows.options.has_default
    )
    title = f"{place.title}/{split}"
    folders = _trusted_folders(datasets, place)
    first = 0
    for cached in table.cache_files:
        first += _read_arrow(Path(cached["filename"]), place, title, first, folders, chosen, rows)
    if limit is None and first != len(table):
        raise DataError(f"{place.what} cannot be read", f"its cache holds {first} rows and should hold {len(table)}")
    return rows.listing()


def _read_arrow(
    path: Path,
    place: _Place,
    title: str,
    first: int,
    folders: list[Path],
    columns: TableColumns,
    rows: Rows,
) -> int:
    """Add the rows of an arrow file and return how many it has; captions are read, bytes of pictures are not."""
    pyarrow = import_pyarrow()
    try:
        table = arrow_table(path, stamp(path))
        for start in range(0, table.num_rows, _ROWS_AT_ONCE):
            if rows.is_full:
                break
            part = table.slice(start, _ROWS_AT_ONCE)
            gather(
                rows,
                columns,
                title=title,
                first=first + start,
                texts=part,
                pictures=lambda column, part=part: found_in(part[column]),
                cell=partial(_cell, path, start),
                file=partial(_named_file, folders, place.is_folder),
            )
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"the cached table `{path}` cannot be read", str(error), "delete it, and it is made again"
        ) from error
    return table.num_rows


def _cell(path: Path, start: int, place: int, column: str, picture: ImageReference) -> TableImage:
    return TableImage(path, start + place, column, picture.item, picture.label)


def _named_file(folders: list[Path], is_folder: bool, name: str) -> FileSource:
    """Return a picture file that a row names.

    Args:
        folders: Where such files may lie, as `_trusted_folders` gives them.
        is_folder: The set is a folder on this machine; names are then relative to it.

    Raises:
        BadRowError: It lies elsewhere or is not there.
    """
    path = Path(name)
    if not path.is_absolute():
        if not is_folder:
            raise BadRowError("no-file", f"`{name}` is only the name of a picture, which is not in the set")
        return FileSource(Folder(folders[0]).find(name))
    # `datasets` names files by where it found or put them; a row that names any other file is refused
    if not any(path.resolve().is_relative_to(folder.resolve()) for folder in folders):
        raise BadRowError("outside", f"`{path}` is outside the set")
    if not path.is_file():
        raise BadRowError("no-file", f"`{path}` is not there")
    return FileSource(path)


# ---------------------------------------------------------------------------------------------------- which set it is


@dataclass(frozen=True)
class _Place:
    """A set: a folder, or a name on the Hub with a revision."""

    name: str
    revision: str | None
    config: str | None
    is_folder: bool

    @property
    def what(self) -> str:
        return f"picture folder `{self.name}`" if self.is_folder else f"`{self.title}` on the Hub"

    @property
    def title(self) -> str:
        if self.is_folder:
            return Path(self.name).name
        return self.name + (f"@{self.revision}" if self.revision else "")


def _place(text: str) -> _Place:
    folder, _, config = text.rpartition(":")
    if Path(text).is_dir():
        return _Place(text, None, None, True)
    if folder and Path(folder).is_dir():
        return _Place(folder, None, config, True)
    if Path(text).exists():
        raise DataError(f"`{text}` cannot be read", "it is a file, and a set in a Hub layout is a folder")
    match = _NAME.fullmatch(text.replace("\\", "/"))  # as a path, a name has the separators of the platform
    if match is None or text.startswith((".", "~")):
        raise DataError(
            f"`{text}` cannot be read",
            "there is no such folder, and it is not a name on the Hub",
            "a name on the Hub is `owner/name`, `owner/name@revision` or `owner/name:config`",
        )
    return _Place(match["name"], match["revision"], match["config"], False)


def _choose_config(datasets: Any, place: _Place) -> str:
    known = datasets.get_dataset_config_names(place.name, revision=place.revision)
    if place.config is not None:
        if place.config not in known:
            raise DataError(
                f"{place.what} has no configuration `{place.config}`", (), did_you_mean(place.config, known)
            )
        return place.config
    if len(known) > 1:
        default = datasets.get_dataset_default_config_name(place.name, revision=place.revision)
        if default is None:
            raise DataError(
                f"{place.what} has several configurations",
                f"they are {', '.join(f'`{name}`' for name in known)}",
                f'name one: data.path = "{place.name}:{known[0]}"',
            )
        return default
    return known[0]


def _choose_split(place: _Place, split: str | None, known: list[str]) -> str:
    if split is None and len(known) == 1:
        return known[0]
    if split is None:
        raise DataError(
            f"{place.what} has several splits",
            f"they are {', '.join(f'`{name}`' for name in known)}",
            f'choose one: data.split = "{known[0]}"',
        )
    if split not in known:
        raise DataError(f"{place.what} has no split `{split}`", (), did_you_mean(split, known))
    return split


def _trusted_folders(datasets: Any, place: _Place) -> list[Path]:
    """Return where pictures may lie that rows name: the set's own folder first, and where the library keeps what it got."""
    from huggingface_hub import constants

    caches = [Path(datasets.config.HF_DATASETS_CACHE), Path(constants.HF_HUB_CACHE)]
    return [Path(place.name), *caches] if place.is_folder else caches


# ------------------------------------------------------------------------------------------------------- the library


def _import_datasets() -> Any:
    failed = "sets in a Hub layout cannot be read"
    require("hub", "datasets", failed=failed, error=DataError)
    import datasets

    if int(datasets.__version__.split(".")[0]) < _FIRST_VERSION_WITHOUT_CODE:
        raise DataError(
            failed,
            f"`datasets` {datasets.__version__} can run code that comes with a set",
            f"pip install 'datasets>={_FIRST_VERSION_WITHOUT_CODE}'",
        )
    return datasets


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Keep the library and the one below it from writing to the terminal, and leave their settings as they were."""
    from huggingface_hub import utils

    logs = [datasets.utils.logging, utils.logging]
    levels = [log.get_verbosity() for log in logs]
    bars = [(part, part.are_progress_bars_disabled()) for part in (datasets, utils)]
    for log in logs:
        log.set_verbosity_error()
    for part, _ in bars:
        part.disable_progress_bars()
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.set_verbosity(level)
        for part, disabled in bars:
            if not disabled:
                part.enable_progress_bars()


@contextmanager
def _explained(datasets: Any, place: _Place) -> Iterator[None]:
    """Say in our words what the library could not do."""
    failed = f"{place.what} cannot be read"
    try:
        yield
    except datasets.exceptions.DatasetNotFoundError as error:
        because = [_first_line(error)]
        if not place.is_folder:
            because.insert(0, f"there is no folder `{place.name}` here")
        raise DataError(failed, because, "check the name; a private or gated set needs `hf auth login`") from error
    except ConnectionError as error:
        raise DataError(
            failed,
            (f"there is no folder `{place.name}` here", _first_line(error)),
            "check the connection and that HF_HUB_OFFLINE is not set, or fetch the set on a machine that has one",
        ) from error
    except datasets.exceptions.DatasetGenerationError as error:
        raise DataError(failed, _first_line(error.__cause__ or error), "mend that file or take it out") from error
    except (datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError) as error:
        raise DataError(failed, _first_line(error)) from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
