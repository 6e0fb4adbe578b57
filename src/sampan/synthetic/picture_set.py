"""How every drawn set is written: pictures in `images`, rows in metadata.jsonl, the recipe in the record of the folder."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

import sampan
from sampan import files
from sampan.data import folder
from sampan.errors import DataError

Row = dict[str, Any]


@dataclass(frozen=True)
class PictureSetSummary:
    """What lies in the folder of a set.

    Args:
        counts: How much of what, as the folder's record has it: `num_pictures` and others of the kind.
        written: False where the folder already held exactly this.
    """

    directory: Path
    counts: Mapping[str, int]
    written: bool


class PictureSet:
    """A set that is being written: pictures are saved at once, rows at the end."""

    def __init__(self, directory: Path):
        self._directory = directory
        self.rows: list[Row] = []

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of pictures that rows name, and of rows."""
        return {"num_pictures": len({row["file_name"] for row in self.rows}), "num_rows": len(self.rows)}

    def save(self, stem: str, image: Image.Image, compress_level: int = -1) -> str:
        """Write a picture as PNG and return the name that rows give it; -1 is the level that zlib takes by itself."""
        name, buffer = f"images/{stem}.png", io.BytesIO()
        image.save(buffer, "PNG", compress_level=compress_level)
        files.write_bytes(self._directory / name, buffer.getvalue())
        return name


def write_set(
    directory: str | Path, kind: str, recipe: Mapping[str, Any], fill: Callable[[PictureSet], dict[str, int]]
) -> PictureSetSummary:
    """Write a set into a folder, which appears complete or not at all.

    Args:
        directory: New or empty, or written by this command and unchanged since; then it is replaced, or left alone
            where it already is what is asked for.
        kind: As in `sampan data KIND`.
        recipe: Everything else that decides what is drawn, as JSON's types.
        fill: Draws the pictures and rows; returns the counts of the summary.

    Raises:
        DataError: The folder cannot be used.
    """
    directory = Path(directory).resolve()
    recipe = {"made_by": f"sampan {sampan.__version__} data {kind}", **recipe}
    known = folder.finished(directory, recipe)
    if known is not None:
        return PictureSetSummary(directory, known, written=False)
    counts: dict[str, int] = {}
    with folder.replaced(directory, recipe, counts) as beside:
        (beside / "images").mkdir()
        pictures = PictureSet(beside)
        counts |= fill(pictures)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in pictures.rows)
        files.write_bytes(beside / "metadata.jsonl", lines.encode())
    return PictureSetSummary(directory, counts, written=True)


def check_range(failed: str, name: str, value: int, least: int, most: int | None = None) -> None:
    """Refuse a number outside of its range.

    Raises:
        DataError: It begins with `failed`.
    """
    if value < least or (most is not None and value > most):
        span = f"from {least} to {most}" if most is not None else f"at least {least}"
        raise DataError(failed, f"`{name}` is {value}, and it must be {span}")
