"""A folder of a picture set: which of its files are looked at, and which file a name in it means.

What editors, file managers and archivers keep for themselves is not part of a set. A name is found however its accents are
composed and whichever way its slashes lean: macOS writes accents as letters of their own (NFD), Windows writes `\\`.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

from sampan.data import pictures
from sampan.errors import BadRowError

_SYSTEM_FOLDERS = {
    "__macosx",  # archives made on a Mac
    "@eadir",  # Synology
    "#recycle",
    "$recycle.bin",
    "system volume information",
    "lost+found",
}


def is_hidden(path: PurePath) -> bool:
    """Say whether a name within a set is hidden, or lies in a folder that is: `.ipynb_checkpoints`, `__MACOSX` …"""
    return any(
        (part.startswith(".") and part not in (".", "..")) or part.casefold() in _SYSTEM_FOLDERS for part in path.parts
    )


def is_picture(name: str) -> bool:
    """Say whether a name ends as a picture's does."""
    return PurePosixPath(name).suffix.lower() in pictures.SUFFIXES


def composed(name: str) -> str:
    """Return a name with its accents composed (NFC), as which names are compared."""
    return unicodedata.normalize("NFC", name)


def with_slashes(name: str) -> str:
    """Return a file name of a row with `/` between folders, as keys have it."""
    return PurePosixPath(name.replace("\\", "/")).as_posix()


def count_hidden(names: list[PurePosixPath]) -> dict[str, int]:
    """Return how many of some hidden files lie in each hidden folder; hidden files elsewhere are left aside."""
    counts: Counter[str] = Counter()
    for name in names:
        folders = name.parents  # from the inside out, the last one is `.`
        if outermost := next((folder for folder in reversed(folders) if is_hidden(folder)), None):
            counts[outermost.as_posix()] += 1
    return dict(counts)


class Folder:
    """A folder whose files are listed, and named by rows.

    Args:
        path: As it was named; what is found lies below it.
    """

    def __init__(self, path: Path):
        self.path, self.root = path, path.resolve()

    def walk(self) -> tuple[list[Path], list[PurePosixPath]]:
        """Return the files in the folder and below, sorted, and the names of hidden pictures, sorted; no link to a folder
        is followed."""
        files: list[Path] = []
        hidden: list[PurePosixPath] = []
        for here, _, names in os.walk(self.path):
            below = Path(here).relative_to(self.path)
            for name in names:
                if not is_hidden(below / name):
                    files.append(self.path / below / name)
                elif is_picture(name):
                    hidden.append(PurePosixPath((below / name).as_posix()))
        return sorted(files), sorted(hidden)

    def find(self, name: str) -> Path:
        """Return the file of a name inside the folder; a link that leads out of it is refused too.

        Raises:
            BadRowError: The name leads out, or there is no such file.
        """
        for kind in (PurePosixPath(name), PureWindowsPath(name)):
            if kind.anchor or ".." in kind.parts:
                raise BadRowError("outside", f"`{name}` leads out of the folder")
        try:
            spelled = self._spell(name)
            if not (self.root / spelled).resolve().is_relative_to(self.root):
                raise BadRowError("outside", f"`{name}` leads out of the folder")
            if not (self.root / spelled).is_file():
                raise BadRowError("no-file", f"`{name}` is not there")
        except (OSError, ValueError, RuntimeError) as error:  # over-long, with a zero byte, a circle of links
            raise BadRowError("no-file", f"`{name!r}` is not a file name: {error}") from error
        return self.path / spelled

    def _spell(self, name: str) -> str:
        """Return a name as the folder spells it; as it is where nothing there is meant."""
        for written in dict.fromkeys((name, name.replace("\\", "/"))):
            if os.path.lexists(self.root / written):
                return written
            spelled = PurePosixPath()
            for part in PurePosixPath(written).parts:
                forms = (part, composed(part), unicodedata.normalize("NFD", part))
                spelled /= next((form for form in forms if os.path.lexists(self.root / spelled / form)), part)
            if os.path.lexists(self.root / spelled):
                return spelled.as_posix()
        return name
