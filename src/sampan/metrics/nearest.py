"""Which of many true pictures is nearest to a generated one.

The features need no weights and no network: a small picture in OKLab, and how strongly edges run in which direction in each
of its cells. They say what a thing looks like and not what it is; reports name them by NAME.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sampan.metrics.color import oklab

Floats = NDArray[np.float64]

_SIDE_PX, _EDGES_PX, _CELL_PX, _DIRECTIONS = 16, 64, 8, 8
NAME = f"OKLab at {_SIDE_PX}x{_SIDE_PX} and edge directions ({_DIRECTIONS}) in cells of {_CELL_PX} of {_EDGES_PX} px"


def features(image: Image.Image) -> Floats:
    """Return one vector of a picture; both halves have about the same weight."""
    image = image.convert("RGB")
    small = oklab(np.asarray(image.resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BOX)))
    light = oklab(np.asarray(image.resize((_EDGES_PX, _EDGES_PX), Image.Resampling.BOX)))[..., 0]
    down, across = np.gradient(light)
    strength, angle = np.hypot(down, across), np.arctan2(down, across) % np.pi
    bins = np.minimum((angle / np.pi * _DIRECTIONS).astype(int), _DIRECTIONS - 1)
    cells = _EDGES_PX // _CELL_PX
    edges = np.zeros((cells, cells, _DIRECTIONS))
    row, column = (axis // _CELL_PX for axis in np.indices(light.shape))
    np.add.at(edges, (row, column, bins), strength)
    edges /= np.linalg.norm(edges) + 1e-6
    return np.concatenate([small.ravel() / np.sqrt(small.size / 3), 0.25 * edges.ravel()])


def rank(image: Image.Image, candidates: Floats, index: int) -> int:
    """Return how many candidates (n, width) are nearer to a picture than the one meant; 0 is the best."""
    distance = np.linalg.norm(candidates - features(image), axis=1)
    return int((distance < distance[index]).sum())


def of_all(images: Sequence[Image.Image]) -> Floats:
    """Return the features (n, width) of pictures."""
    return np.stack([features(image) for image in images])
