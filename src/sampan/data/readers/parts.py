"""Which files a path means, for sets that lie in several: a file, a folder of them, or a pattern.

A pattern has `*`, `?`, `[…]`, `{000..003}` or `{a,b}` in it. Each file gets the name it has within the set, which stays
the same wherever the set lies.
"""

from __future__ import annotations

import glob
import re
from pathlib import Path

from sampan.errors import DataError, did_you_mean

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MAX_NAMES = 100_000


def find(path: str | Path, suffix: str, split: str | None, what: str) -> list[tuple[str, Path]]:
    """Return the files of a set, sorted by name, with their names in it.

    Args:
        suffix: `.tar`, `.parquet`.
        split: Of a folder, its subfolder of this name, or else the files whose names begin with it and a `-`, `_` or `.`.
        what: What the set is, for errors ("tars").

    Raises:
        DataError: There is none, one of them is not there, or the split is not.
    """
    path = Path(path)
    if path.is_dir():
        return _of_folder(path, suffix, split, what)
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
        matches = [file for file in matches if file.is_file()]
        if not matches:
            raise DataError(f"{what} `{path}` cannot be read", f"there is no file `{base / name}`")
        named |= {file.relative_to(base).as_posix(): file for file in matches}
    return list(named.items())


def _of_folder(folder: Path, suffix: str, split: str | None, what: str) -> list[tuple[str, Path]]:
    files = sorted(file for file in folder.rglob(f"*{suffix}") if file.is_file() and not file.name.startswith("."))
    parts = [(file.relative_to(folder).as_posix(), file) for file in files]
    if not parts:
        raise DataError(f"{what} `{folder}` cannot be read", f"the folder has no `{suffix}` file in it")
    if split is None:
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
