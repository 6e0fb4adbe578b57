"""How like two pictures are, pixel by pixel: PSNR, and the structural similarity of Wang et al.

scikit-image has both; it brings scipy and some 60 MB for what is 30 lines of NumPy here. The numbers were compared with
its own (gaussian_weights, sigma 1.5, use_sample_covariance off, luma) and agree to 1e-6; a test holds them.
Source: Wang, Bovik, Sheikh, Simoncelli 2004, "Image quality assessment: from error visibility to structural similarity".
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float64]
_RADIUS, _SIGMA = 5, 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def psnr(one: Image.Image, other: Image.Image) -> float:
    """Return the peak signal-to-noise ratio in dB over all channels; infinite for equal pictures."""
    error = float(np.mean((_rgb(one) - _rgb(other)) ** 2))
    return 10 * math.log10(255**2 / error) if error else math.inf


def ssim(one: Image.Image, other: Image.Image, where: NDArray[np.bool_] | None = None) -> float | None:
    """Return the mean structural similarity of the pictures' luma.

    Args:
        where: (height, width), the pixels that count; None takes all whose window lies in the picture.

    Returns:
        None where no pixel counts.
    """
    similar = ssim_map(_luma(one), _luma(other))
    inner = np.zeros(similar.shape, bool)
    inner[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS] = True
    counted = inner if where is None else inner & where
    return float(similar[counted].mean()) if counted.any() else None


def ssim_map(one: Floats, other: Floats) -> Floats:
    """Return the structural similarity (height, width) around each pixel, of values in 0 to 255."""
    mean_one, mean_other = _blur(one), _blur(other)
    var_one = _blur(one * one) - mean_one**2
    var_other = _blur(other * other) - mean_other**2
    both = _blur(one * other) - mean_one * mean_other
    return ((2 * mean_one * mean_other + _C1) * (2 * both + _C2)) / (
        (mean_one**2 + mean_other**2 + _C1) * (var_one + var_other + _C2)
    )


def _blur(values: Floats) -> Floats:
    offsets = np.arange(-_RADIUS, _RADIUS + 1)
    weights = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    weights /= weights.sum()
    for axis in (0, 1):
        padded = np.pad(values, [(_RADIUS, _RADIUS) if a == axis else (0, 0) for a in (0, 1)], mode="symmetric")
        size = values.shape[axis]
        pieces = [weight * padded.take(range(at, at + size), axis) for at, weight in enumerate(weights)]
        values = np.sum(pieces, axis=0)
    return values


def _rgb(image: Image.Image) -> Floats:
    return np.asarray(image.convert("RGB"), np.float64)


def _luma(image: Image.Image) -> Floats:
    return _rgb(image) @ np.array([0.299, 0.587, 0.114])
