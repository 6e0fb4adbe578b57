"""A run that is killed goes on as if it had not been: three kills of benchmarks/kill_resume.py, which has twenty."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "kill_resume.py"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_run_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    spec = importlib.util.spec_from_file_location("kill_resume", SCRIPT)
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, script)  # its dataclasses look there
    spec.loader.exec_module(script)
    facts = script.prove(tmp_path, num_kills=3, seed=1)
    assert len(facts["kills"]) == 3
    compared = facts["compared"]
    assert compared["model"]["files"] > 5
    assert compared["same"], compared
