"""The mutation check's list follows the code: every constant still stands where the list says, and its tests are there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
spec = importlib.util.spec_from_file_location("mutation_check", ROOT / "scripts" / "mutation_check.py")
assert spec is not None and spec.loader is not None
check = importlib.util.module_from_spec(spec)
sys.modules["mutation_check"] = check
spec.loader.exec_module(check)
MUTATIONS = check.mutations()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_constant_stands_where_the_list_says(mutation):
    assert check.problem(mutation) is None
    assert mutation.after != mutation.before
    assert [test for test in mutation.tests if not (ROOT / test.split()[0]).exists()] == []


def test_there_are_enough_of_them_with_names_of_their_own():
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 25


def test_a_change_that_nothing_notices_is_shown():
    page = check.page([(MUTATIONS[0], None), (MUTATIONS[1], "tests/x.py::test_y")])
    assert "1 of 2 changes are caught" in page and "**nothing**" in page
