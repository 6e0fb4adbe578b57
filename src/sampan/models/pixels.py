"""Pictures to the tokenizer's patches: the reference's half-size resize, normalisation and flattening."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sampan.errors import RequestError
from sampan.models.config import ImageProcessorConfig
from sampan.models.positions import Grid

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_ASPECT_RATIO = 4


def smart_resize(height: int, width: int, config: ImageProcessorConfig, token_scale: int) -> tuple[int, int]:
    """Return the (height, width) in pixels at which the tokenizer sees a picture.

    Sides are multiples of the patch. Small pictures are brought up to the least side and large ones down to the greatest,
    and then everything is `token_scale` times smaller (2 in the release, by integer division). Rounding is half to even.

    Raises:
        RequestError: A side is shorter than a patch, or the aspect ratio is over 4.
    """
    patch = config.patch_size
    if min(height, width) < patch:
        raise RequestError(
            f"a reference of {width}x{height} pixels is too small",
            f"its shorter side must have {patch} pixels at least",
        )
    check_ratio(height, width)
    shortest, longest = round(math.sqrt(config.min_pixels)), round(math.sqrt(config.max_pixels))
    scale = 1.0
    if min(height, width) < shortest:
        scale = shortest / min(height, width)
    if max(height, width) * scale > longest:
        scale = longest / max(height, width)
    height, width = height // token_scale, width // token_scale
    sides = [max(patch, round(side * scale / patch) * patch) for side in (height, width)]
    if max(sides) > longest:
        shrink = max(sides) / longest
        sides = [max(patch, math.floor(side / shrink / patch) * patch) for side in sides]
    return sides[0], sides[1]


def to_patches(image: Image, config: ImageProcessorConfig, token_scale: int) -> tuple[NDArray[np.float32], Grid]:
    """Return the patches (rows·columns, 3·patch²) of an RGB picture and their grid.

    A patch is flattened as channel, row, column; patches run in raster order; values are (pixel/255 - 0.5)/0.5.
    """
    from PIL import Image as pil

    height, width = smart_resize(image.height, image.width, config, token_scale)
    resized = image.convert("RGB").resize((width, height), pil.Resampling.BICUBIC)
    pixels = (np.asarray(resized, np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
    patch = config.patch_size
    rows, columns = height // patch, width // patch
    patches = pixels.reshape(rows, patch, columns, patch, 3).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(patches.reshape(rows * columns, 3 * patch * patch)), (rows, columns)


def from_patches(patches: NDArray[np.float32], grid: Grid, patch: int) -> NDArray[np.float32]:
    """Return the image (3, rows·patch, columns·patch) of patches (rows·columns, 3·patch²), flattened as `to_patches` does."""
    rows, columns = grid
    pixels = patches.reshape(rows, columns, 3, patch, patch).transpose(2, 0, 3, 1, 4)
    return np.ascontiguousarray(pixels.reshape(3, rows * patch, columns * patch))


def reference_size(height: int, width: int, config: ImageProcessorConfig, prior_px: int) -> tuple[int, int]:
    """Return the nearest (height, width) at which tokenizer and autoencoder agree on the grid of a reference.

    The reference code rounds differently on the two sides, so that a side such as 1016, or one outside [512, 2048], gives
    grids that do not match. Multiples of `prior_px` within those bounds always match.

    Raises:
        RequestError: The aspect ratio is over 4.
    """
    check_ratio(height, width)
    shortest, longest = round(math.sqrt(config.min_pixels)), round(math.sqrt(config.max_pixels))
    least = -(-shortest // prior_px) * prior_px
    most = max(least, longest // prior_px * prior_px)
    scale = max(1.0, least / min(height, width))
    scale = min(scale, most / max(height, width))
    sides = [min(most, max(least, round(side * scale / prior_px) * prior_px)) for side in (height, width)]
    return sides[0], sides[1]


def check_ratio(height: int, width: int, what: str = "a reference") -> None:
    """Raise RequestError for a shape that is longer than MAX_ASPECT_RATIO; `what` has it."""
    ratio = max(height, width) / min(height, width)
    if ratio > MAX_ASPECT_RATIO:
        raise RequestError(
            f"{what} of {width}x{height} pixels is too narrow",
            f"its aspect ratio is {ratio:.2f} and the model takes at most {MAX_ASPECT_RATIO}",
            "crop it first",
        )
