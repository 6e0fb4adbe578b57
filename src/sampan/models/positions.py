"""Host-side geometry: positions, rope tables, sinusoids, gather indices and masks, in NumPy.

Model code receives these as arguments, so that every framework computes with the same numbers and none of them has to
index, build or branch on the device. Tables are fp32 and follow the rounding of the reference code (frequencies and
angles in fp32), which matters: at t = 999 one unit in the last place of a frequency moves an angle by 6e-5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sampan.models.config import TextConfig

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Grid = tuple[int, int]


def inverse_frequencies(channels: int, theta: float = 10000.0) -> Floats:
    """Return theta^(-2j/channels) for j < channels/2, in fp32."""
    steps = np.arange(0, channels, 2, dtype=np.float32) / np.float32(channels)
    # fp64 inside, because the fp32 power of NumPy differs from one processor to the next in the last place
    return np.float32(1.0) / np.power(np.float64(theta), steps.astype(np.float64)).astype(np.float32)


def sinusoid(values: Sequence[float] | Floats, channels: int) -> Floats:
    """Return sinusoidal features (n, channels) of n numbers: all cosines first, then all sines.

    Source: the reference's Timesteps with flip_sin_to_cos and no frequency shift.
    """
    half = channels // 2
    exponent = (np.float32(-np.log(10000.0)) * np.arange(half, dtype=np.float32)) / np.float32(half)
    # rounded once from fp64, like the reference's; the fp32 exponential of NumPy is off by one unit for half of them
    frequencies = np.exp(exponent.astype(np.float64)).astype(np.float32)
    angles = np.asarray(values, np.float32).reshape(-1, 1) * frequencies[None]
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=-1)


def size_features(crop: Grid, size: Grid, channels: int, batch: int) -> Floats:
    """Return (batch, 4·channels): crop row, crop column, then height and width in pixels. Crop comes before size."""
    row = sinusoid(np.array([*crop, *size], np.float32), channels).reshape(1, -1)
    return np.repeat(row, batch, axis=0)


def rope_text(position_ids: Ints, config: TextConfig) -> tuple[Floats, Floats]:
    """Return cos and sin (batch, 1, tokens, rotary_dim/2) of positions (3, batch, tokens) in time, row and column.

    The frequencies are split into contiguous sections: the first reads the time position, then row, then column.
    """
    angles = position_ids.astype(np.float32)[..., None] * inverse_frequencies(config.rotary_dim, config.rope_theta)
    axis = np.repeat(np.arange(len(config.mrope_section)) % 3, config.mrope_section)
    picked = np.take_along_axis(angles, axis[None, None, None, :], axis=0)[0]
    return np.cos(picked)[:, None], np.sin(picked)[:, None]


def rope_image(grid: Grid, head_dim: int, num_text: int) -> tuple[Floats, Floats]:
    """Return cos and sin (1, 1, num_text + rows·columns, head_dim/2): identity for text, then rows and columns from 0."""
    rows, columns = grid
    frequencies = inverse_frequencies(head_dim // 2)
    by_row = np.repeat(np.outer(np.arange(rows, dtype=np.float32), frequencies), columns, axis=0)
    by_column = np.tile(np.outer(np.arange(columns, dtype=np.float32), frequencies), (rows, 1))
    angles = np.concatenate([by_row, by_column], axis=-1)
    angles = np.concatenate([np.zeros((num_text, head_dim // 2), np.float32), angles])[None, None]
    return np.cos(angles), np.sin(angles)


def grid_positions(start: int, grid: Grid) -> Ints:
    """Return (3, rows·columns): constant time, running row and column, all from `start`, in raster order."""
    rows, columns = grid
    row, column = np.divmod(np.arange(rows * columns), columns)
    return np.stack([np.full(rows * columns, start), start + row, start + column]).astype(np.int64)


def text_positions(start: int, count: int) -> Ints:
    """Return (3, count): start, start+1, … on all three axes."""
    return np.tile(np.arange(start, start + count, dtype=np.int64), (3, 1))


def prompt_positions(num_tokens: int, references: Sequence[tuple[int, Grid]] = ()) -> tuple[Ints, int]:
    """Return the positions (3, num_tokens) of a prompt and the next free position.

    Args:
        num_tokens: Length of the prompt, image-start token included, padding excluded.
        references: For each reference picture, the index of its first token and its grid. Inside a grid time is constant;
            after it the position jumps by the longer side.
    """
    pieces: list[Ints] = []
    index = position = 0
    for first, (rows, columns) in references:
        pieces += [text_positions(position, first - index)]
        position += first - index
        pieces += [grid_positions(position, (rows, columns))]
        position += max(rows, columns)
        index = first + rows * columns
    pieces += [text_positions(position, num_tokens - index)]
    return np.concatenate(pieces, axis=1), position + num_tokens - index


def generated_positions(start: int, grids: Sequence[Grid]) -> Ints:
    """Return positions (3, Σ rows·columns + 1) of the grids in the order they are written, then of the end token."""
    pieces = []
    for grid in grids:
        pieces.append(grid_positions(start, grid))
        start += max(grid)
    return np.concatenate([*pieces, text_positions(start, 1)], axis=1)


def bilinear_gather(grid: Grid, side: int) -> tuple[Ints, Floats]:
    """Return indices (4, rows·columns) into a side×side table and their weights (4, rows·columns).

    The table is sampled at the centres of the grid's cells, bilinearly, clamped at the border: what grid_sample does with
    align_corners off and border padding (the reference's comment says bicubic; it is bilinear).
    """

    def axis(count: int) -> tuple[Ints, Ints, Floats]:
        centre = (np.arange(count, dtype=np.float32) + np.float32(0.5)) / np.float32(count) * 2 - 1
        point = ((centre + 1) * np.float32(side) - 1) / 2
        point = np.clip(point, 0, side - 1).astype(np.float32)
        low = np.floor(point).astype(np.int64)
        return low, np.minimum(low + 1, side - 1), point - low.astype(np.float32)

    low, high, part = axis(grid[0])
    row_low, row_high, row_part = low.repeat(grid[1]), high.repeat(grid[1]), part.repeat(grid[1])
    low, high, part = axis(grid[1])
    column_low, column_high, column_part = np.tile(low, grid[0]), np.tile(high, grid[0]), np.tile(part, grid[0])
    one = np.float32(1)
    corners = [
        (row_low * side + column_low, (one - row_part) * (one - column_part)),
        (row_low * side + column_high, (one - row_part) * column_part),
        (row_high * side + column_low, row_part * (one - column_part)),
        (row_high * side + column_high, row_part * column_part),
    ]
    return np.stack([c[0] for c in corners]), np.stack([c[1] for c in corners]).astype(np.float32)


def relative_buckets(length: int, num_buckets: int, max_distance: int) -> Ints:
    """Return the bucket (length, length) of key position minus query position, both directions.

    Half of the buckets are for keys after the query. Within a direction the first half are exact distances and the rest
    grow logarithmically up to `max_distance`. Source: Raffel et al. 2020 (T5), bidirectional form.
    """
    offset = np.arange(length)[None, :] - np.arange(length)[:, None]
    half = num_buckets // 2
    exact = half // 2
    distance = np.abs(offset)
    with np.errstate(divide="ignore"):
        scaled = np.log(distance.astype(np.float32) / np.float32(exact)) / np.float32(np.log(max_distance / exact))
    far: Ints = exact + np.where(distance > 0, scaled * np.float32(half - exact), 0).astype(np.int64)
    near: Ints = np.where(distance < exact, distance, np.minimum(far, half - 1))
    return near + np.where(offset > 0, half, 0)


def grid_of(ids: Ints) -> Grid:
    """Return the rows and columns of ids (rows, columns)."""
    rows, columns = ids.shape
    return rows, columns


def upsample_ids(ids: Ints, factor: int) -> Ints:
    """Repeat every id of (…, rows, columns) `factor` times each way."""
    return ids.repeat(factor, axis=-2).repeat(factor, axis=-1)
