"""A folder of picture files, described by one of: metadata.jsonl, metadata.csv, or a `.txt` file beside each picture.

A row of metadata.jsonl is an object with `file_name`, a caption in `text` (one or a list) and captions by language in
`texts`, and the file names of reference pictures in `references`. In metadata.csv the columns are `file_name`, `text`,
`text_<language>`, and `references` with a semicolon between names. Names are relative to the folder and never leave it.

Each row stands for itself: a bad one is left out and reported, and shifts no other row's caption.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from sampan.data import pictures
from sampan.data.readers import BadRow, Progress, Report, Sample
from sampan.errors import DataError

_NUM_BAD_SHOWN = 5

Row = tuple[str, Mapping[str, Any] | str]
"""Where a row stands, and its fields or the reason why it has none."""


class _Bad(Exception):
    """The reason why a row is left out; never leaves this module."""


def read(
    path: str | Path,
    *,
    max_bad_share: float = 0.05,
    limit: int | None = None,
    decode: bool = True,
    progress: Progress | None = None,
) -> tuple[list[Sample], Report]:
    """Return the samples of a folder in the order of its rows, and a report of the rows left out.

    Args:
        max_bad_share: Share of bad rows, in [0, 1], above which nothing is returned.
        limit: Read only this many rows.
        decode: Decode every picture once, which finds broken files; else only missing files are found.

    Raises:
        DataError: No such folder, no description in it, two of them, no usable row, or too large a share of bad rows.
    """
    folder = Path(path)
    rows = _rows(folder)[:limit]
    root = folder.resolve()
    checked: dict[Path, str | None] = {}
    seen: Counter[str] = Counter()
    samples: list[Sample] = []
    bad: list[BadRow] = []
    for done, (where, fields) in enumerate(rows, start=1):
        try:
            if isinstance(fields, str):
                raise _Bad(fields)
            names = [_name(fields), *_references(fields)]
            captions = _captions(fields)
            files = [_inside(root, folder, name) for name in names]
            for name, file in zip(names, files, strict=True):
                if file not in checked:
                    checked[file] = _fault(file, decode)
                if fault := checked[file]:
                    raise _Bad(f"`{name}`: {fault}")
        except _Bad as reason:
            bad.append(BadRow(where, str(reason)))
        else:
            # a picture may have several rows (plain, and as the target of an edit), so its name alone is no key
            key = " < ".join(PurePosixPath(name).as_posix() for name in names)
            seen[key] += 1
            key = key if seen[key] == 1 else f"{key} #{seen[key]}"
            samples.append(Sample(key, files[0], captions, tuple(files[1:])))
        if progress:
            progress(done, len(rows))
    report = Report(len(rows), tuple(bad))
    if report.bad_share > max_bad_share or not samples:
        raise _too_bad(folder, report, max_bad_share)
    return samples, report


def _rows(folder: Path) -> list[Row]:
    if not folder.is_dir():
        reason = "it is a file" if folder.exists() else "there is no such folder"
        raise DataError(f"picture folder `{folder}` cannot be read", reason)
    found = [name for name in ("metadata.jsonl", "metadata.csv") if (folder / name).is_file()]
    if len(found) > 1:
        raise DataError(
            f"picture folder `{folder}` cannot be read",
            f"it has both {found[0]} and {found[1]}, and which one holds is not known",
            "keep one of them",
        )
    try:
        if not found:
            return _text_files(folder)
        data = (folder / found[0]).read_bytes().removeprefix(b"\xef\xbb\xbf")
        return list(_jsonl(data) if found[0] == "metadata.jsonl" else _csv(folder, data))
    except OSError as error:
        raise DataError(f"picture folder `{folder}` cannot be read", str(error)) from error


def _jsonl(data: bytes) -> Iterator[Row]:
    for number, line in enumerate(data.split(b"\n"), start=1):
        where = f"metadata.jsonl:{number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError:
            yield where, "not UTF-8"
        except (ValueError, RecursionError) as error:
            yield where, f"not JSON: {error}"
        else:
            yield where, row if isinstance(row, dict) else "not a JSON object"


def _csv(folder: Path, data: bytes) -> Iterator[Row]:
    # a byte that is not UTF-8 becomes a lone surrogate, which the row's own check then refuses
    table = csv.DictReader(io.StringIO(data.decode("utf-8", "surrogateescape"), newline=""))
    try:
        columns = table.fieldnames or ()
        if "file_name" not in columns:
            raise DataError(
                f"picture folder `{folder}` cannot be read",
                "the first line of metadata.csv names no column `file_name`",
                "begin it with: file_name,text",
            )
        for cells in table:
            texts = {column: cells[column] for column in columns if column.startswith("text_") and cells[column]}
            references = [name.strip() for name in (cells.get("references") or "").split(";") if name.strip()]
            row = {"file_name": cells["file_name"], "text": cells.get("text"), "texts": texts, "references": references}
            where = f"metadata.csv:{table.line_num}"
            yield where, "more cells than columns; a caption with a comma needs quotes" if None in cells else row
    except csv.Error as error:
        raise DataError(
            f"picture folder `{folder}` cannot be read", f"metadata.csv:{table.line_num}: {error}"
        ) from error


def _text_files(folder: Path) -> list[Row]:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    images = [file for file in files if file.suffix.lower() in pictures.SUFFIXES]
    texts = {file.with_suffix(""): file for file in files if file.suffix.lower() == ".txt"}
    if not images or not texts:
        raise DataError(
            f"picture folder `{folder}` cannot be read",
            "it has no metadata.jsonl, no metadata.csv, and no pictures with `.txt` captions beside them",
            'write metadata.jsonl, a line a picture: {"file_name": "a.png", "text": "what it shows"}',
        )
    rows: list[Row] = []
    for image in images:
        name = image.relative_to(folder).as_posix()
        try:
            # UTF-8 with or without the mark that some editors put in front; a caption a line
            lines = texts[image.with_suffix("")].read_text(encoding="utf-8-sig").splitlines()
        except KeyError:
            rows.append((name, "no caption: no `.txt` file beside it"))
        except UnicodeDecodeError:
            rows.append((name, "its `.txt` file is not UTF-8"))
        else:
            rows.append((name, {"file_name": name, "text": [line for line in lines if line.strip()]}))
    stems = {image.with_suffix("") for image in images}
    for stem, file in texts.items():
        if stem not in stems:
            rows.append((file.relative_to(folder).as_posix(), "no picture beside it"))
    return rows


def _name(fields: Mapping[str, Any]) -> str:
    name = fields.get("file_name")
    if not isinstance(name, str) or not name.strip():
        raise _Bad("no `file_name`")
    return name


def _references(fields: Mapping[str, Any]) -> list[str]:
    given = fields.get("references") or []
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, list) or not all(isinstance(name, str) and name.strip() for name in given):
        raise _Bad("`references` is not a list of file names")
    return given


def _captions(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the captions of a row, each once, those of `text` first."""
    text, texts = fields.get("text") or [], fields.get("texts") or {}
    text = [text] if isinstance(text, str) else text
    if not isinstance(text, list) or not isinstance(texts, dict):
        raise _Bad("`text` is not a text or a list of them, or `texts` not an object of them")
    captions: dict[str, None] = {}
    for caption in [*text, *texts.values()]:
        if not isinstance(caption, str):
            raise _Bad(f"a caption is not a text: {caption!r}")
        try:
            caption.encode("utf-8")
        except UnicodeEncodeError:
            raise _Bad("a caption is not valid Unicode") from None
        if caption.strip():
            captions[caption.strip()] = None
    if not captions:
        raise _Bad("no caption")
    return tuple(captions)


def _inside(root: Path, folder: Path, name: str) -> Path:
    """Return the file of a name inside the folder; a link that leads out of it is refused too."""
    for kind in (PurePosixPath(name), PureWindowsPath(name)):
        if kind.anchor or ".." in kind.parts:
            raise _Bad(f"`{name}` leads out of the folder")
    try:
        if not (root / name).resolve().is_relative_to(root):
            raise _Bad(f"`{name}` leads out of the folder")
        if not (root / name).is_file():
            raise _Bad(f"`{name}` is not there")
    except (OSError, ValueError, RuntimeError) as error:  # over-long, with a zero byte, a circle of links
        raise _Bad(f"`{name!r}` is not a file name: {error}") from error
    return folder / name


def _fault(file: Path, decode: bool) -> str | None:
    if not decode:
        return None
    try:
        pictures.load_rgb(file)
    except DataError as error:
        return "; ".join(error.because)
    return None


def _too_bad(folder: Path, report: Report, max_bad_share: float) -> DataError:
    shown = [str(row) for row in report.bad[:_NUM_BAD_SHOWN]]
    if len(report.bad) > _NUM_BAD_SHOWN:
        shown.append(f"of {len(report.bad) - _NUM_BAD_SHOWN} more")
    if not report.num_rows:
        return DataError(f"picture folder `{folder}` has no rows", "its metadata file is empty")
    share = f"{len(report.bad)} of {report.num_rows} rows ({report.bad_share:.1%}) of picture folder `{folder}`"
    return DataError(
        f"{share} cannot be used, and at most {max_bad_share:.1%} may be",
        shown,
        "mend these rows or take them out, or allow a larger share",
    )
