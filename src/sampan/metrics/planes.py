"""A picture taken apart by colour: for each colour in it a grey picture, dark where that colour is, frames taken out.

Letters of a sign have one colour, and a program that reads black on white reads them best alone. Nothing here knows what
should stand in the picture, and true pictures are taken apart as generated ones are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Mask = NDArray[np.bool_]
Run = tuple[int, int, int]  # row, first column, column behind the last

_NUM_COLORS = 24  # of the palette that colours are looked for in
_LEAST_SHARE = 0.004  # of a picture that a colour covers
_NEAR = 40.0  # two colours closer than this in RGB are one
_SOFTNESS = (40.0, 160.0)  # least and greatest distance in RGB at which nothing of a colour is left
_RIM_PX = 6  # left around what is dark
_FRAME = (0.5, 0.4)  # a frame is wider than this share of the picture, and has a line longer than that share
_SPECK = (0.03, 6)  # a speck is lower than this share of the picture, or smaller than so many pixels


def planes(image: Image.Image, factor: int) -> list[Image.Image]:
    """Return a grey picture for each colour of an RGB picture that has letter-like shapes, cut to them and enlarged."""
    palette_image = image.quantize(_NUM_COLORS, Image.Quantize.MEDIANCUT, kmeans=2)
    palette = np.asarray(palette_image.getpalette(), np.float32).reshape(-1, 3)
    counts = np.bincount(np.asarray(palette_image).ravel(), minlength=len(palette))
    colors: list[Any] = []
    for index in np.argsort(-counts, kind="stable"):
        near = any(np.linalg.norm(palette[index] - color) <= _NEAR for color in colors)
        if counts[index] >= _LEAST_SHARE * image.width * image.height and not near:
            colors.append(palette[index])
    pixels, greys = np.asarray(image, np.float32), []
    for color in colors:
        gaps = [float(np.linalg.norm(color - other)) for other in colors if other is not color]
        reach = float(np.clip(min(gaps, default=_SOFTNESS[1]), *_SOFTNESS))
        light = np.clip(np.sqrt(((pixels - color) ** 2).sum(-1)) / reach, 0, 1)
        letters = without_frames(light < 0.5)
        if letters.sum() < 20:
            continue
        around = np.asarray(Image.fromarray((letters * 255).astype(np.uint8)).filter(ImageFilter.MaxFilter(3))) > 0
        rows, columns = np.nonzero(letters)
        top, left = max(0, rows.min() - _RIM_PX), max(0, columns.min() - _RIM_PX)
        cut = np.where(around, light, 1)[top : rows.max() + _RIM_PX, left : columns.max() + _RIM_PX]
        grey = Image.fromarray((np.pad(cut, 8, constant_values=1) * 255).astype(np.uint8))
        greys.append(grey.resize((grey.width * factor, grey.height * factor), Image.Resampling.BICUBIC))
    return greys


def without_frames(mask: Mask) -> Mask:
    """Return a mask without shapes that are no letters: what touches the picture's rim, wide frames, specks."""
    kept, (height, width) = mask.copy(), mask.shape
    for runs in shapes(mask):
        top, bottom = min(r[0] for r in runs), max(r[0] for r in runs) + 1
        left, right = min(r[1] for r in runs), max(r[2] for r in runs)
        longest, area = max(end - start for _, start, end in runs), sum(end - start for _, start, end in runs)
        at_rim = top == 0 or left == 0 or bottom == height or right == width
        is_frame = right - left > _FRAME[0] * width and longest > _FRAME[1] * width
        if at_rim or is_frame or bottom - top < _SPECK[0] * height or area < _SPECK[1]:
            for row, start, end in runs:
                kept[row, start:end] = False
    return kept


def shapes(mask: Mask) -> list[list[Run]]:
    """Return the connected shapes of a mask, corners touching included, each as its runs along rows."""
    parents: list[int] = []
    runs: list[Run] = []
    above: list[int] = []

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    for row, line in enumerate(mask):
        ends = np.flatnonzero(np.diff(np.concatenate(([0], line.astype(np.int8), [0]))))
        here = []
        for start, end in zip(ends[::2].tolist(), ends[1::2].tolist(), strict=True):
            index = len(parents)
            parents.append(index)
            runs.append((row, start, end))
            here.append(index)
            for other in above:
                if runs[other][1] <= end and runs[other][2] >= start:
                    parents[root(index)] = root(other)
        above = here
    grouped: dict[int, list[Run]] = {}
    for index, run in enumerate(runs):
        grouped.setdefault(root(index), []).append(run)
    return list(grouped.values())
