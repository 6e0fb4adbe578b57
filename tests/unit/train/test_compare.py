"""How far two trainings lie apart, in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sampan.frameworks import quantized
from sampan.frameworks.torch import blockwise
from sampan.train import compare


def test_distance_is_measured_against_the_way_that_was_gone():
    begin = {"a": np.zeros(3), "b": np.array([1.0])}
    first = {"a": np.array([3.0, 0, 0]), "b": np.array([5.0])}
    second = {"a": np.array([3.0, 0, 0.6]), "b": np.array([5.8])}
    found = compare.relative_difference(first, begin.get, first.get, second.get)
    assert (found.difference, found.change) == pytest.approx((1.0, 5.0))
    assert found.relative == pytest.approx(0.2)
    assert not found.identical
    assert found.worst_tensor == (
        "b",
        pytest.approx(0.2),
    )  # 0.8 of 4; a is off by 0.6 of 3, where all values moved by 2.5
    again = compare.relative_difference(first, begin.get, first.get, first.get)
    assert (again.relative, again.identical, again.worst_tensor) == (0.0, True, ("", 0.0))


def test_a_tensor_that_stood_still_may_move_no_further_than_the_others():
    begin = {"a": np.zeros(4), "b": np.zeros(1)}
    first = {"a": np.full(4, 2.0), "b": np.zeros(1)}
    for nudge, share in ((0.1, 0.1 / math.sqrt(16 / 5)), (9.0, 9.0 / math.sqrt(16 / 5))):
        second = {**first, "b": np.array([nudge])}
        assert compare.relative_difference(first, begin.get, first.get, second.get).worst_tensor == (
            "b",
            pytest.approx(share),
        )


def test_what_did_not_move_must_not_differ():
    still, other = {"a": np.ones(2)}, {"a": np.array([1.0, 1.0 + 1e-12])}
    assert compare.relative_difference(still, still.get, still.get, still.get).relative == 0
    assert compare.relative_difference(still, still.get, still.get, other.get).relative == math.inf
    broken = {"a": np.array([1.0, np.nan])}
    assert compare.relative_difference(still, still.get, still.get, broken.get).relative == math.inf


def test_what_is_missing_on_one_side_is_no_match():
    there, nowhere = {"a": np.zeros(2)}, dict[str, np.ndarray]()
    assert not compare.relative_difference(there, nowhere.get, there.get, nowhere.get).identical
    with pytest.raises(ValueError, match=r"`a` has the shapes \(2,\), \(3,\)"):
        compare.relative_difference(there, nowhere.get, there.get, {"a": np.zeros(3)}.get)


@pytest.mark.parametrize("moment", compare.MOMENTS)
def test_moments_in_8_bits_are_read_as_numbers(moment: str):
    numbers = torch.rand(3, 200, generator=torch.Generator().manual_seed(0)) - 0.5 * (moment == "exp_avg")
    held, scales = blockwise.encode(numbers.view(-1), compare.MOMENTS[moment])
    optimizer = {f"w.{moment}.codes": held.view(3, 200), f"w.{moment}.scales": scales, "num_updates": torch.tensor(3)}
    assert compare.moment_names(optimizer, {f"v.{moment}": scales}) == [f"w.{moment}", f"v.{moment}"]
    read = compare.moments(optimizer, lambda tensor: tensor.numpy())(f"w.{moment}")
    assert read is not None
    wanted = blockwise.decode(held, scales, compare.MOMENTS[moment]).view(3, 200)
    assert len(scales) == quantized.num_blocks(600) == 3
    np.testing.assert_array_equal(read, wanted.numpy())
    assert compare.moments(optimizer, lambda tensor: tensor.numpy())("v.exp_avg") is None


def test_relative_losses():
    assert compare.relative_error(2.0, 2.001) == pytest.approx(5e-4)
    assert compare.relative_error(2.0, 2.0) == 0
    assert compare.relative_error(math.nan, math.inf) == 0  # neither can be said: both steps were skipped
    assert compare.relative_error(math.nan, 2.0) == compare.relative_error(2.0, math.inf) == math.inf
