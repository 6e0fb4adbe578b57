"""Every part computes what the published implementation computes, forward and backward."""

from __future__ import annotations

import pytest

from parity.compare import CASES, FP32_TOLERANCE, ID_CASES, Case, error
from parity.gradients import GRADIENT_TOLERANCE, GRADIENTS, gradient_errors
from parity.ours import Ours
from parity.theirs import Theirs


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_answers_agree(case: Case, ours: Ours, theirs: Theirs):
    assert error(case, ours, theirs) <= FP32_TOLERANCE


@pytest.mark.parametrize("case", ID_CASES, ids=lambda case: case.label)
def test_integers_are_identical(case: Case, ours: Ours, theirs: Theirs):
    assert error(case, ours, theirs) == 0


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_agree_for_every_parameter(name: str, ours: Ours, theirs: Theirs):
    errors = gradient_errors(name, ours, theirs)
    assert {key: value for key, value in errors.items() if value > GRADIENT_TOLERANCE} == {}
