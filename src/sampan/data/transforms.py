"""What the frozen parts look at, made of pictures by worker processes: pixels at the bucket's size, and patches.

Bytes, not floats, travel between processes, and no framework is loaded here.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sampan.data import workers as processes
from sampan.data.bucket import Size
from sampan.data.image_cache import load
from sampan.data.image_source import ImageSource

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Grid = tuple[int, int]

_PIECE_PIXELS = 2_000_000  # that a worker is sent at once: enough to hide the way there and back


@dataclass(frozen=True)
class TransformTask:
    """A picture to open.

    Args:
        source, shape, digest, size: As sampan.data.image_cache.load takes them.
        grids: Grids of patches that are wanted.
        patch: Side of a patch in pixels.
        with_pixels: Whether the picture itself is wanted too.
    """

    source: ImageSource
    shape: Size
    digest: str
    size: Size
    grids: tuple[Grid, ...]
    patch: int
    with_pixels: bool


@dataclass(frozen=True)
class TransformedImage:
    """What came of a task.

    Args:
        pixels: (height, width, 3); None where not wanted.
        patches: For each grid, (rows·columns, 3·patch²).
    """

    pixels: Bytes | None
    patches: tuple[Bytes, ...]


def transform_images(
    batches: Iterable[Sequence[TransformTask]], workers: int
) -> Generator[TransformedImage, None, None]:
    """Yield what comes of all batches' tasks, one after another, made ahead by worker processes.

    Args:
        batches: Tasks whose images are needed at the same time, of one size.
        workers: Processes; 0 opens images here, when they are asked for.

    Raises:
        DataError: A picture cannot be read any more, or a worker ended by itself.
    """
    batches = iter(batches)
    first = next(batches, None)
    if first is None:
        return
    # while one batch is being encoded the next is made, and no worker waits for work
    ahead = len(list(_pieces(first))) + 2 * workers
    pieces = (piece for batch in chain([first], batches) for piece in _pieces(batch))
    with closing(processes.map_in_order(_transform_all, pieces, workers, ahead)) as results:
        yield from chain.from_iterable(results)


def patch_bytes(image: Image.Image, grid: Grid, patch: int) -> Bytes:
    """Return the patches (rows·columns, 3·patch²) of an RGB picture brought to exactly that grid, each value a byte."""
    rows, columns = grid
    resized = image.resize((columns * patch, rows * patch), Image.Resampling.BICUBIC)
    pixels = np.asarray(resized).reshape(rows, patch, columns, patch, 3).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(pixels.reshape(rows * columns, 3 * patch * patch))


def grid_patches(image: Image.Image, grid: Grid, patch: int) -> Floats:
    """Return the patches (rows·columns, 3·patch²) of an RGB picture brought to exactly that grid, as pixels.to_patches."""
    return unit_floats(patch_bytes(image, grid, patch))


def unit_floats(values: Bytes) -> Floats:
    """Return bytes as numbers in [-1, 1], as pictures.to_array has them."""
    return values.astype(np.float32) / np.float32(127.5) - np.float32(1)


def _pieces(batch: Sequence[TransformTask]) -> Iterator[Sequence[TransformTask]]:
    height, width = batch[0].size
    count = max(1, _PIECE_PIXELS // (height * width))
    for first in range(0, len(batch), count):
        yield batch[first : first + count]


def _transform_all(tasks: Sequence[TransformTask]) -> list[TransformedImage]:
    return [_transform(task) for task in tasks]


def _transform(task: TransformTask) -> TransformedImage:
    image = load(task.source, task.shape, task.digest, task.size)
    patches = tuple(patch_bytes(image, grid, task.patch) for grid in task.grids)
    return TransformedImage(np.asarray(image) if task.with_pixels else None, patches)
