"""Where `sampan generate` writes: the place tried before the work, and what is lost where it fails after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampan import files
from sampan.errors import RequestError
from sampan.pipeline.png import save_png
from sampan.pipeline.request import ImageRequest
from sampan.units import format_bytes

_HINT = "give --out a name in a folder that can be written, on a disk with room"


def check_target(request: ImageRequest, out: Path | None) -> tuple[Path, int]:
    """Return the file of the first image, and how many bytes are free where it is to be.

    Raises:
        RequestError: Nothing can be written there, it is no PNG's name, or a reference is not there.
    """
    target = out or Path(f"sampan-{request.seed}.png")
    if target.suffix.lower() != ".png":
        raise RequestError(
            f"cannot write `{target}`", "pictures are written as PNG", "give --out a name that ends in .png"
        )
    if not target.parent.is_dir():
        raise RequestError(f"cannot write `{target}`", f"there is no folder `{target.parent}`", "make it first")
    for path in request.references:
        if path.exists() and not path.is_file():
            raise RequestError(
                f"`{path}` is no reference picture",
                "it is a folder" if path.is_dir() else "it is no regular file",
                "pass each picture by a --reference of its own",
            )
        if not path.is_file():
            raise RequestError(f"there is no reference picture `{path}`")
    try:
        if target.is_dir():
            raise IsADirectoryError("it is a folder")
        return target, files.try_place(target.parent)
    except OSError as error:
        raise RequestError(f"cannot write `{target}`", str(error), _HINT) from error


def check_room(target: Path, free_bytes: int, num_pixels: int) -> None:
    """Raise RequestError unless so many pixels fit, however badly they compress."""
    if free_bytes < 3 * num_pixels:
        raise RequestError(
            f"cannot write `{target}`",
            f"the pictures take up to {format_bytes(3 * num_pixels)}, and {format_bytes(free_bytes)} are free there",
            "make room, or give --out a place on another disk",
        )


def write_picture(
    path: Path, pixels: NDArray[np.uint8], facts: dict[str, Any], written: Sequence[Mapping[str, Any]], count: int
) -> None:
    """Write one of `count` pictures, after those whose records are `written`.

    Raises:
        RequestError: It cannot be written; says what is lost, what is not, and how it comes back.
    """
    try:
        save_png(path, pixels, facts)
    except OSError as error:
        kept = ", ".join(f"`{record['file']}`" for record in written)
        lost = f"{count - len(written)} of {count} painted pictures are lost"
        raise RequestError(
            f"`{path}` cannot be written",
            [str(error), f"{lost}; {kept} can be kept" if kept else lost],
            f"make room or give --out another place, and call again with --seed {facts['seed']}: "
            "the same pictures come out",
        ) from error
