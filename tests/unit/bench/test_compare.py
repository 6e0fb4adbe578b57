"""Errors are of the largest value of a tensor, and what cannot be compared is infinitely far."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from sampan.bench.backends import Backend
from sampan.bench.compare import FLOOR, StepOutput, output_difference, relative_error


def answer(folder: Path, name: str, loss: float, **gradients: np.ndarray) -> StepOutput:
    np.savez(folder / f"{name}.npz", **gradients)
    return StepOutput(Backend("torch", "eager"), loss, folder / f"{name}.npz")


def test_relative():
    ones = np.ones((2, 2), np.float32)
    assert relative_error(ones * 1.5, ones) == 0.5
    assert (
        relative_error(ones[:1], ones)
        == relative_error(ones * np.nan, ones)
        == relative_error(ones * np.inf, ones)
        == math.inf
    )
    assert relative_error(ones * 0, ones * 0) == 0 and relative_error(ones, ones * 0) == math.inf
    assert relative_error(ones, ones * 0, floor=10) == 0.1
    assert relative_error(np.array([True]), np.array([False])) == math.inf
    assert relative_error(np.array([3], np.uint8), np.array([4], np.uint8)) == 0.25
    assert relative_error(np.empty(0), np.empty(0)) == 0


def test_the_worst_tensor_comes_first_and_small_ones_are_measured_against_the_largest(tmp_path: Path):
    large, small = np.full(3, 2.0), np.full(3, 1e-9)
    reference = answer(tmp_path, "a", 4.0, large=large, small=small, middle=large / 4)
    found = output_difference(
        reference, answer(tmp_path, "b", 4.1, large=large + 0.02, small=2 * small, middle=large / 4)
    )
    assert math.isclose(found.loss, 0.025)
    assert [name for name, _ in found.worst] == ["large", "small", "middle"]
    assert math.isclose(found.worst[0][1], 0.01) and math.isclose(found.worst[1][1], 1e-9 / (FLOOR * 2))
    assert found.as_dict() == {"loss": found.loss, "gradient": found.worst[0][1], "tensor": "large"}


def test_what_only_one_side_has_is_infinitely_far(tmp_path: Path):
    one = np.ones(1)
    reference = answer(tmp_path, "a", 1.0, x=one, y=one)
    assert output_difference(reference, answer(tmp_path, "b", math.nan, x=one, z=one)).worst[:2] == [
        ("y", math.inf), ("z", math.inf),
    ]  # fmt: skip
    assert output_difference(reference, answer(tmp_path, "c", math.nan, x=one, y=one)).loss == math.inf
