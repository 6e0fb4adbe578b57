"""Fifty steps of every stage: the losses of each framework beside PyTorch's, from the same weights and draws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract import curve_job
from contract.curves import COMPARED_ONLY
from contract.workers import is_installed, start

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

TOLERANCE = 5e-4
"""Of |a - b| / b at every one of the fifty steps. Two right implementations differ by rounding in the seventh digit, and
training multiplies that: PyTorch beside itself with weights that were shaken by 1e-7 before the first step deviates by 2e-4
in the autoencoder and by less elsewhere. One exception is kept out by the job: with many codes and long steps a feature
comes to lie between two codes, rounding decides, and PyTorch leaves its own curve by 5e-3. A step of the optimizer that is
2 % too long leaves the bound, as the last test shows."""


class Curves:
    """The curves of all frameworks, made when they are first asked for."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.known: dict[tuple[str, str], dict[str, list[float]]] = {}
        curve_job.write_pictures(folder)

    def of(self, framework: str, lr_ratio: str = "1") -> dict[str, list[float]]:
        if (framework, lr_ratio) not in self.known:
            start("curves.py", framework, str(self.folder), lr_ratio)
            name = framework if lr_ratio == "1" else f"{framework}-wrong"
            record: dict[str, Any] = json.loads((self.folder / f"{name}-curves.json").read_text(encoding="utf-8"))
            self.known[framework, lr_ratio] = record["curves"]
        return self.known[framework, lr_ratio]


@pytest.fixture(scope="module")
def curves(tmp_path_factory: pytest.TempPathFactory) -> Curves:
    return Curves(tmp_path_factory.mktemp("curves"))


def deviation(found: list[float], wanted: list[float]) -> float:
    assert len(found) == len(wanted) == curve_job.NUM_STEPS
    assert np.isfinite(wanted).all()
    return float(np.max(np.abs(np.array(found) - wanted) / np.abs(wanted)))


@pytest.mark.parametrize("stage", curve_job.STAGES)
def test_every_stage_learns(stage: str, curves: Curves):
    losses = curves.of("torch")[stage]
    assert np.mean(losses[-5:]) < 0.97 * np.mean(losses[:5])  # a curve that stands still would agree with any other


@pytest.mark.parametrize("stage", curve_job.STAGES)
@pytest.mark.parametrize("framework", ["mindspore", "tensorflow"])
def test_losses_are_pytorchs(framework: str, stage: str, curves: Curves):
    if not is_installed(framework):
        pytest.skip(f"{framework} is not installed")
    if framework == "tensorflow" and stage not in COMPARED_ONLY:
        pytest.skip(f"tensorflow is there for the comparison and does not train the {stage} (decision record 0003)")
    assert deviation(curves.of(framework)[stage], curves.of("torch")[stage]) <= TOLERANCE


@pytest.mark.parametrize("stage", COMPARED_ONLY)
def test_steps_that_are_too_long_leave_the_bound(stage: str, curves: Curves):
    assert deviation(curves.of("torch", "1.02")[stage], curves.of("torch")[stage]) > TOLERANCE
