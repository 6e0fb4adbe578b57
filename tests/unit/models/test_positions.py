"""Positions, masks and tables, by hand-made examples."""

from __future__ import annotations

import numpy as np
import pytest

import masks
from sampan.models import positions
from sampan.models.config import TextConfig


def test_the_example_of_one_reference_and_a_target():
    # 4×5 reference tokens after one text token; text to position 22; then a 4×4 target
    given, following = positions.prompt_positions(1 + 20 + 17, [(1, (4, 5))])
    time, row, column = given
    assert (time[0], row[0], column[0]) == (0, 0, 0)
    assert set(time[1:21]) == {1}
    assert row[1:21].tolist() == [r for r in (1, 2, 3, 4) for _ in range(5)]
    assert column[1:21].tolist() == [1, 2, 3, 4, 5] * 4
    assert given[:, 21].tolist() == [6, 6, 6]
    assert (given[:, -1].tolist(), following) == ([22, 22, 22], 23)
    written = positions.generated_positions(following, [(4, 4)])
    assert set(written[0, :16]) == {23}
    assert written[1, :16].tolist() == [r for r in (23, 24, 25, 26) for _ in range(4)]
    assert written[2, :16].tolist() == [23, 24, 25, 26] * 4
    assert written[:, 16].tolist() == [27, 27, 27]


def test_a_prompt_without_references_counts_up():
    given, following = positions.prompt_positions(4)
    assert given.tolist() == [[0, 1, 2, 3]] * 3
    assert following == 4


def test_grids_follow_by_their_longer_side():
    written = positions.generated_positions(10, [(2, 3), (4, 1)])
    assert written[0].tolist() == [10] * 6 + [13] * 4 + [17]
    assert written[:, -1].tolist() == [17, 17, 17]


def test_left_padding_is_closed_and_sees_itself():
    mask = masks.left_padded_mask([2, 3], 3)
    assert mask.shape == (2, 1, 3, 3)
    assert mask[0, 0].tolist() == [[True, False, False], [False, True, False], [False, True, True]]
    assert mask[1, 0].tolist() == np.tril(np.ones((3, 3), bool)).tolist()


def test_text_is_not_rotated_and_pictures_start_at_zero():
    cos, sin = positions.rope_image((2, 3), 8, 2)
    assert cos.shape == sin.shape == (1, 1, 2 + 6, 4)
    assert (cos[0, 0, :3] == 1).all()  # two text tokens, and the first patch
    assert (sin[0, 0, :3] == 0).all()
    # rows in the first half of the channels, columns in the second
    assert sin[0, 0, 3].tolist() == pytest.approx([0, 0, np.sin(1), np.sin(0.01)])
    assert sin[0, 0, 5].tolist() == pytest.approx([np.sin(1), np.sin(0.01), 0, 0])


def test_sections_of_frequencies_read_their_axis():
    config = TextConfig()
    only_rows = np.zeros((3, 1, 1), np.int64)
    only_rows[1] = 5
    _, sin = positions.rope_text(only_rows, config)
    assert (np.flatnonzero(sin[0, 0, 0]) == np.arange(8, 20)).all()


def test_sinusoid_has_cosines_first_and_sizes_follow_the_crop():
    assert positions.sinusoid([0.0], 6).tolist() == [[1, 1, 1, 0, 0, 0]]
    row = positions.size_features((1, 2), (64, 96), 4, 2)
    assert row.shape == (2, 16)
    assert np.array_equal(row[0], positions.sinusoid([1, 2, 64, 96], 4).reshape(-1))
    assert np.array_equal(row[0], row[1])


def test_a_grid_as_large_as_the_table_is_the_table():
    ids, weights = positions.bilinear_gather((4, 4), 4)
    assert (np.abs(weights.sum(0) - 1) < 1e-6).all()
    assert ids[weights.argmax(0), np.arange(16)].tolist() == list(range(16))
    assert (weights.max(0) > 1 - 1e-6).all()


@pytest.mark.parametrize("grid", [(1, 1), (7, 3), (40, 12)])
def test_gathered_positions_stay_inside_the_table(grid: tuple[int, int]):
    ids, weights = positions.bilinear_gather(grid, 5)
    assert ids.shape == weights.shape == (4, grid[0] * grid[1])
    assert 0 <= ids.min() <= ids.max() < 25
    assert weights.min() >= 0
    assert np.allclose(weights.sum(0), 1, atol=1e-6)


def test_ids_are_repeated_in_both_directions():
    ids = np.array([[1, 2], [3, 4]])
    assert positions.upsample_ids(ids, 2).tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    assert positions.upsample_ids(ids, 1).tolist() == ids.tolist()


def test_buckets_are_exact_near_by_and_end_at_the_greatest_distance():
    buckets = positions.relative_buckets(300, 32, 128)
    assert buckets[150, 150:159].tolist() == [0, *range(17, 25)][:9]
    assert buckets[150, 142:150].tolist() == [8, 7, 6, 5, 4, 3, 2, 1]
    assert buckets[0, 299] == 31
    assert buckets[299, 0] == 15
