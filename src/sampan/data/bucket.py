"""Aspect-ratio buckets: a short list of sizes, and to which of them a picture goes.

Everything here is arithmetic on (height, width) in pixels; no picture is opened.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect
from collections.abc import Sequence
from functools import lru_cache

Size = tuple[int, int]

_MAX_OVER = 0.04  # share by which a size may be larger than the square of its resolution


def sizes(resolutions_px: Sequence[int], max_aspect_ratio: float, multiple_px: int) -> tuple[Size, ...]:
    """Return the (height, width) of every bucket, by resolution and then by aspect ratio (height over width).

    For each resolution: its square, and for each shorter side down to the greatest aspect ratio the longer side whose area
    is nearest to the square's, lying and standing.

    Args:
        resolutions_px: Sides of squares.
        max_aspect_ratio: Long side over short side at most; 1 gives squares alone.
        multiple_px: What all sides are multiples of.

    Raises:
        ValueError: There is no resolution, one is not a multiple of `multiple_px`, or the aspect ratio is below 1.
    """
    if not resolutions_px:
        raise ValueError("there is no resolution to make sizes of")
    if max_aspect_ratio < 1:
        raise ValueError(f"a long side over a short side is at least 1, and {max_aspect_ratio:g} is asked for")
    unique: dict[Size, None] = {}
    for resolution_px in sorted(set(resolutions_px)):
        if resolution_px < multiple_px or resolution_px % multiple_px:
            raise ValueError(f"a resolution of {resolution_px} px is not a multiple of {multiple_px} px")
        cells = resolution_px // multiple_px
        shapes = [(cells, cells)]
        for short in range(cells - 1, 0, -1):
            long = _long_side(short, cells * cells)
            if long > short * max_aspect_ratio:
                break
            shapes += [(short, long), (long, short)]
        shapes.sort(key=lambda shape: shape[0] / shape[1])
        unique |= dict.fromkeys((rows * multiple_px, columns * multiple_px) for rows, columns in shapes)
    return tuple(unique)


def assign(picture: Size, sizes: tuple[Size, ...]) -> int:
    """Return the number of the size that a picture goes to.

    The largest resolution that it need not be enlarged for, and of that the aspect ratio nearest to its own on a logarithmic
    scale. A picture smaller than all of them goes to the smallest resolution.

    Args:
        picture: (height, width) in pixels.
        sizes: As `sizes` returns them.
    """
    ratio = math.log(picture[0] / picture[1])
    nearest = 0
    for borders, numbers in _resolutions(sizes):
        nearest = numbers[bisect(borders, ratio)]
        height, width = sizes[nearest]
        if picture[0] >= height and picture[1] >= width:
            break
    return nearest


def crop(picture: Size, size: Size) -> tuple[Size, tuple[int, int]]:
    """Return how a picture comes to a size: to which (height, width) it is scaled, and the (top, left) of the part kept.

    The part is the largest centred one, so that one of the two numbers is 0; it is what `sampan.data.pictures.fit` keeps, to
    the pixel, and what the decoder is told as crop coordinates.
    """
    scale = max(size[0] / picture[0], size[1] / picture[1])
    height, width = (max(wanted, round(side * scale)) for wanted, side in zip(size, picture, strict=True))
    return (height, width), ((height - size[0]) // 2, (width - size[1]) // 2)


def _long_side(short: int, area: int) -> int:
    """Return the other side of the rectangle nearest to an area and not much above it."""
    long = round(area / short)
    return long if long * short <= area * (1 + _MAX_OVER) else area // short


@lru_cache(maxsize=8)
def _resolutions(sizes: tuple[Size, ...]) -> tuple[tuple[list[float], list[int]], ...]:
    """Return for each resolution, the largest first, the borders between its aspect ratios and the numbers of its sizes.

    A resolution is known by its square; other sizes belong to the square whose area is nearest.
    """
    squares = sorted({height for height, width in sizes if height == width}, reverse=True)
    members: dict[int, list[tuple[float, int]]] = {side: [] for side in squares}
    for number, (height, width) in enumerate(sizes):
        side = min(squares, key=lambda side: abs(math.log(height * width / side**2)))
        members[side].append((math.log(height / width), number))
    table = []
    for ratios_and_numbers in members.values():
        ratios_and_numbers.sort()
        ratios = [ratio for ratio, _ in ratios_and_numbers]
        borders = [(low + high) / 2 for low, high in itertools.pairwise(ratios)]
        table.append((borders, [number for _, number in ratios_and_numbers]))
    return tuple(table)
