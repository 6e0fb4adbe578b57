"""Which files a path means, for sets that lie in several: a file, a folder of them, or a pattern.

A pattern has `*`, `?`, `[…]`, `{000..003}` or `{a,b}` in it. Each file gets the name it has within the set, which stays
the same wherever the set lies.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from sampan.data.readers.folder import count_hidden, is_hidden
from sampan.data.readers.rows import Rows
from sampan.errors import DataError, did_you_mean

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MAX_NAMES = 100_000
_SPLITS = ("train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval")


def find(path: str | Path, suffix: str, split: str | None, what: str, rows: Rows) -> list[tuple[str, Path]]:
    """Return the files of a set, sorted by name, with their names in it.

    Hidden files are left aside, where a pattern does not spell their names.

    Args:
        suffix: `.tar`, `.parquet`.
        split: Of a folder, its subfolder of this name, or else the files whose names begin with it and a `-`, `_` or `.`.
        what: What the set is, for errors ("tars").
        rows: Where notes go: on hidden files, and on splits that are read together.

    Raises:
        DataError: There is none, one of them is not there, or the split is not.
    """
    path = Path(path)
    if path.is_dir():
        return _of_folder(path, suffix, split, what, rows)
    text = path.as_posix()
    pattern = not path.exists() and (glob.has_magic(text) or _BRACES.search(text) is not None)
    if split is not None:
        raise DataError(
            f"{what} `{path}` have no split `{split}`",
            "a pattern says itself which files it means" if pattern else "only a folder has splits",
            "name the folder, or leave the split out",
        )
    if not pattern:
        if not path.exists():
            raise DataError(f"{what} `{path}` cannot be read", "there is no such file or folder")
        return [(path.name, path)]
    # the part before the first sign of a pattern is where the set lies; what comes after it names the files
    start = min(text.find(sign) for sign in "*?[{" if sign in text)
    base = Path(text[: text.rfind("/", 0, start) + 1])
    named: dict[str, Path] = {}
    for name in _expand(text[text.rfind("/", 0, start) + 1 :]):
        matches = sorted(base.glob(name)) if glob.has_magic(name) else [base / name]
        spells_hidden = is_hidden(PurePosixPath(name))
        matches = [file for file in matches if file.is_file() and (spells_hidden or not is_hidden(_below(file, base)))]
        if not matches:
            raise DataError(f"{what} `{path}` cannot be read", f"there is no file `{base / name}`")
        named |= {file.relative_to(base).as_posix(): file for file in matches}
    return list(named.items())


def note_splits(rows: Rows, names: Iterable[str], where: str) -> None:
    """Say it where files look like several splits and are read together.

    Args:
        names: Of the files in the set; a split is the outermost folder, or what a file's name begins with.
        where: What the note is about.
    """
    words = {word for name in names for word in (name.split("/")[0], re.split("[-_.]", name.split("/")[-1])[0])}
    splits = sorted((word for word in words if word.lower() in _SPLITS), key=lambda word: _SPLITS.index(word.lower()))
    if len(splits) > 1:
        named = " and ".join(f"`{word}`" for word in splits)
        rows.note(where, "splits", f'{named} are read together; data.split = "{splits[0]}" reads one')


def _below(file: Path, folder: Path) -> PurePosixPath:
    return PurePosixPath(file.relative_to(folder).as_posix())


def _of_folder(folder: Path, suffix: str, split: str | None, what: str, rows: Rows) -> list[tuple[str, Path]]:
    files = sorted(file for file in folder.rglob(f"*{suffix}") if file.is_file())
    names = [_below(file, folder) for file in files]
    parts = [(name.as_posix(), file) for name, file in zip(names, files, strict=True) if not is_hidden(name)]
    if not parts:
        raise DataError(f"{what} `{folder}` cannot be read", f"the folder has no `{suffix}` file in it")
    for hidden, count in count_hidden([name for name in names if is_hidden(name)]).items():
        rows.note(hidden, "hidden", f"{count:,} `{suffix}` files in it are not read")
    if split is None:
        note_splits(rows, (name for name, _ in parts), folder.name)
        return parts
    chosen = [part for part in parts if split in Path(part[0]).parent.parts]
    chosen = chosen or [part for part in parts if re.match(rf"{re.escape(split)}[-_.]", part[1].name)]
    if not chosen:
        known = {word for name, file in parts for word in (*Path(name).parent.parts, re.split("[-_.]", file.name)[0])}
        raise DataError(
            f"{what} `{folder}` have no split `{split}`",
            f"no `{suffix}` file is in a folder `{split}` or has a name that begins with `{split}-`",
            did_you_mean(split, known),
        )
    return chosen


def _expand(pattern: str) -> list[str]:
    """Return the names that a pattern with braces stands for; `{08..11}` keeps the leading zeros."""
    braces = _BRACES.search(pattern)
    if not braces:
        return [pattern]
    if numbers := _RANGE.fullmatch(braces[1]):
        first, last = int(numbers[1]), int(numbers[2])
        if last < first or last - first >= _MAX_NAMES:
            raise DataError(f"`{{{braces[1]}}}` is not a range of files", f"it goes from {first:,} to {last:,}")
        words = [f"{number:0{len(numbers[1])}d}" for number in range(first, last + 1)]
    else:
        words = braces[1].split(",")
    head, tail = pattern[: braces.start()], pattern[braces.end() :]
    return [head + word + rest for rest in _expand(tail) for word in words] if tail else [head + word for word in words]
