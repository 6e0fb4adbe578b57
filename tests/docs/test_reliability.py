"""The table of faults names tests that are there, and its numbers come from records."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("reliability", ROOT / "scripts" / "reliability.py")
assert _spec and _spec.loader
reliability = sys.modules["reliability"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reliability)


@pytest.mark.parametrize("fault", reliability.faults(), ids=lambda fault: fault["number"])
def test_each_test_of_a_fault_is_there(fault: dict[str, object]):
    assert set(fault) - {"record", "numbers"} == {"number", "fault", "bar", "tests"}
    assert ("record" in fault) == ("numbers" in fault)
    assert isinstance(fault["tests"], list) and fault["tests"]
    for test in fault["tests"]:
        file, _, name = test.partition("::")
        path = ROOT / "tests" / file
        assert path.exists(), test
        if name:
            assert re.search(rf"^def {name}\(", path.read_text(encoding="utf-8"), re.MULTILINE), test


def test_no_fault_has_a_failed_test():
    for fault in reliability.faults():
        name, found = reliability.newest(fault["number"])
        assert found is None or found["failed"] == 0, (name, fault["number"])


def test_the_page_is_up_to_date():
    assert reliability.PAGE.read_text(encoding="utf-8") == reliability.page(), "run: scripts/reliability.py --page"
