"""Colours by name: the plate of a sign and its letters, judged by the nearest of a list of named colours.

Distances are taken in OKLab, where equal distances look about equally far.
Source: Ottosson 2020, "A perceptual color space for image processing" (bottosson.github.io/posts/oklab).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sampan.synthetic.signs.colors import COLORS, RGB

Floats = NDArray[np.float64]
Box = tuple[float, float, float, float]  # left, top, right, bottom, in shares of the sides

_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
_STRAY = 0.12  # a pixel further than this from every named colour has none: edges, where two colours mix


def oklab(rgb: NDArray[np.uint8] | NDArray[np.int64]) -> Floats:
    """Return OKLab (…, 3) of sRGB (…, 3) in 0 to 255."""
    share = rgb.astype(np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return np.asarray(np.cbrt(linear @ _TO_LMS.T) @ _TO_LAB.T, np.float64)


def named_shares(image: Image.Image, box: Box = (0, 0, 1, 1), names: Mapping[str, RGB] = COLORS) -> dict[str, float]:
    """Return the share of a part of a picture that each named colour has, the largest first.

    Pixels on an edge between two colours have the colour of neither and often look like a third: those with two unlike
    neighbours are left out, as are those that are like no named colour.
    """
    left, top, right, bottom = (
        round(value * side) for value, side in zip(box, (*image.size, *image.size), strict=True)
    )
    pixels = oklab(np.asarray(image.convert("RGB"))[top:bottom, left:right])
    known = _known(tuple(names.items()))
    distance = np.sqrt(((pixels[:, :, None] - known) ** 2).sum(-1))
    nearest = np.where(distance.min(-1) < _STRAY, distance.argmin(-1), -1)
    inside = np.zeros(nearest.shape, bool)
    middle = nearest[1:-1, 1:-1]
    across = (middle == nearest[1:-1, :-2]) & (middle == nearest[1:-1, 2:])
    along = (middle == nearest[:-2, 1:-1]) & (middle == nearest[2:, 1:-1])
    inside[1:-1, 1:-1] = across | along  # strokes of letters are thin one way
    counted = nearest[inside & (nearest >= 0)]
    counts = np.bincount(counted, minlength=len(known))
    shares = {name: float(count / max(1, counts.sum())) for name, count in zip(names, counts, strict=True)}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def plate_and_ink(image: Image.Image, box: Box = (0, 0, 1, 1)) -> tuple[str, str]:
    """Return the named colours of a plate and of the letters on it: the two that have most of a part of the picture."""
    first, second, *_ = named_shares(image, box)
    return first, second


@lru_cache(maxsize=4)
def _known(items: tuple[tuple[str, RGB], ...]) -> Floats:
    return oklab(np.array([rgb for _, rgb in items]))
