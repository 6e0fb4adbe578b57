"""The recipe is pinned: twenty steps of every stage give the numbers that are written down, on each framework that trains.

    pytest tests/golden --regenerate

writes losses.json anew; whoever changes numbers on purpose shows the difference. Each framework records in a process of its
own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from contract.curve_job import STAGES
from contract.workers import is_installed

HERE = Path(__file__).parent
GOLDEN = HERE / "losses.json"
FRAMEWORKS = ("torch", "mindspore")
TOLERANCE = {"loss": 1e-5, "grad_norm": 1e-4, "weights_moved": 1e-5, "average_moved": 1e-5}
"""Relative, at every step. PyTorch held to SSE4 differs from PyTorch with AVX-512 by at most 2e-6 in losses, 1e-5 in
gradient norms and 1e-7 in distances, and one or two threads make no difference, so that another processor stays inside. The
smallest changes of the recipe that the mutation check makes leave it (docs/mutations.md)."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that takes the steps on a framework, once, and returns their numbers by stage."""
    known: dict[str, Any] = {}

    def record(framework: str) -> Any:
        if framework not in known:
            folder = tmp_path_factory.mktemp(framework)
            threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
            done = subprocess.run(
                [sys.executable, str(HERE / "record.py"), framework, str(folder)],
                env={**os.environ, **threads}, capture_output=True, text=True, timeout=280, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr[-4000:]
            known[framework] = json.loads((folder / f"{framework}.json").read_text(encoding="utf-8"))
        return known[framework]

    return record


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_stage_gives_the_numbers_that_are_written_down(
    framework: str, recorded: Any, pytestconfig: pytest.Config
):
    if not is_installed(framework):
        pytest.skip(f"{framework} is not installed")
    golden = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.is_file() else {}
    numbers = recorded(framework)
    if pytestconfig.getoption("--regenerate"):
        GOLDEN.write_text(json.dumps({**golden, framework: numbers}, indent=1) + "\n", encoding="utf-8")
        pytest.skip(f"wrote {framework} into {GOLDEN}; look at the difference before it is committed")
    assert numbers.keys() == golden[framework].keys() == set(STAGES)
    apart = [
        f"{stage} {name}: {found!r} instead of {wanted!r}"
        for stage in STAGES
        for name, tolerance in TOLERANCE.items()
        for found, wanted in [(numbers[stage][name], golden[framework][stage][name])]
        if found != pytest.approx(wanted, rel=tolerance)
    ]
    assert not apart, "\n".join(apart)


@pytest.mark.parametrize("stage", STAGES)
def test_frameworks_are_pinned_to_the_same_losses(stage: str):
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert golden["mindspore"][stage]["loss"] == pytest.approx(golden["torch"][stage]["loss"], rel=1e-5)
