"""Generator and decoder on TensorFlow give what PyTorch gives: each in a process of its own, from the same NumPy weights."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tensorflow_says import without_start_up

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None,
    reason="TensorFlow is not installed: pip install 'sampan[tensorflow]'",
)
Answers = dict[str, Any]

FORWARD, GRADIENT, LOSS = 1e-5, 1e-4, 5e-4  # largest difference, of a tensor's largest value; of losses as they stand
# after ten steps, of a tensor's largest value: where a gradient is near 0, AdamW's first steps enlarge its rounding
WEIGHT, MOMENT = 1e-4, 1e-4
QUICK = ("ar gradients", "dit gradients", "ar steps")
EAGER = ("ar gradients", "ar recomputed", "dit gradients", "dit recomputed", "ar steps", "dit steps")


def answers(framework: str, questions: tuple[str, ...], folder: Path) -> Answers:
    """Ask a framework, and require that it says nothing beside its answers."""
    program, file = Path(__file__).with_name("answers.py"), folder / f"{framework}.npz"
    done = subprocess.run(
        [sys.executable, str(program), framework, str(file), *questions],
        capture_output=True, text=True, timeout=800, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, without_start_up(done.stderr)) == (0, "", "")
    with np.load(file) as found:
        return dict(found)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Answers, Answers]:
    """What PyTorch and TensorFlow answer to what is asked in every run of the tests."""
    folder = tmp_path_factory.mktemp("answers")
    return answers("torch", QUICK, folder), answers("tensorflow", QUICK, folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Answers, Answers]:
    """What PyTorch and TensorFlow answer to everything, TensorFlow compiled as well."""
    folder = tmp_path_factory.mktemp("answers")
    compiled = tuple(f"{question} compiled" for question in EAGER)
    return answers("torch", EAGER, folder), answers("tensorflow", (*EAGER, *compiled), folder)


def difference(found: Any, wanted: Any) -> float:
    """Return the largest difference, of the largest value that is wanted."""
    assert found.shape == wanted.shape
    return float(np.abs(found.astype(np.float64) - wanted).max() / np.abs(wanted).max())


def worst(found: Answers, wanted: Answers, question: str, group: str = "", asked: str = "") -> tuple[float, str]:
    """Return the largest difference of a question's tensors and its name; `asked` is what was asked of the other."""
    names = [name for name in found if name.startswith(f"{question}/{group}")]
    others = {name: name.replace(question, asked or question, 1) for name in names}
    assert names and {*others.values()} == {n for n in wanted if n.startswith(f"{asked or question}/{group}")}
    return max((difference(found[name], wanted[other]), name) for name, other in others.items())


@pytest.mark.parametrize("call", ["ar/causal", "ar/masked", "ar/packed", "ar/cached", "dit/plain", "dit/references"])
def test_forward(quick: tuple[Answers, Answers], call: str):
    torch, tensorflow = quick
    assert difference(tensorflow[call], torch[call]) <= FORWARD


def test_a_cache_gives_what_the_whole_gives(quick: tuple[Answers, Answers]):
    _, tensorflow = quick
    assert difference(tensorflow["ar/cached"], tensorflow["ar/whole"]) <= FORWARD


@pytest.mark.parametrize("part", ["ar", "dit"])
def test_gradients(quick: tuple[Answers, Answers], part: str):
    torch, tensorflow = quick
    assert worst(tensorflow, torch, f"{part} gradients") <= (GRADIENT, "")


def test_ten_steps(quick: tuple[Answers, Answers]):
    torch, tensorflow = quick
    check_steps(tensorflow, torch, "ar steps", "ar steps")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["", " compiled"])
@pytest.mark.parametrize("part", ["ar", "dit"])
def test_gradients_of_a_graph_and_of_what_is_computed_again(whole: tuple[Answers, Answers], part: str, way: str):
    torch, tensorflow = whole
    for what in ("gradients", "recomputed"):
        assert worst(tensorflow, torch, f"{part} {what}{way}", asked=f"{part} {what}") <= (GRADIENT, "")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["", " compiled"])
@pytest.mark.parametrize("part", ["ar", "dit"])
def test_ten_steps_of_a_graph(whole: tuple[Answers, Answers], part: str, way: str):
    torch, tensorflow = whole
    check_steps(tensorflow, torch, f"{part} steps{way}", f"{part} steps")


@pytest.mark.slow
@pytest.mark.parametrize("part", ["ar", "dit"])
def test_a_graph_is_what_is_computed_without_one(whole: tuple[Answers, Answers], part: str):
    _, tensorflow = whole
    graph, plain = (tensorflow[f"{part} steps{way}/loss"] for way in (" compiled", ""))
    assert np.abs(graph - plain).max() <= FORWARD
    for what in ("gradients", "recomputed"):
        assert worst(tensorflow, tensorflow, f"{part} {what} compiled", asked=f"{part} {what}") <= (GRADIENT, "")


def check_steps(found: Answers, wanted: Answers, question: str, asked: str) -> None:
    assert np.ptp(wanted[f"{asked}/loss"]) > 100 * LOSS  # it moves, or nothing would be shown
    assert np.abs(found[f"{question}/loss"] - wanted[f"{asked}/loss"]).max() <= LOSS
    assert difference(found[f"{question}/norm"], wanted[f"{asked}/norm"]) <= GRADIENT
    assert worst(found, wanted, question, "optimizer/", asked) <= (MOMENT, "")
    for group in ("weights/", "ema/"):
        assert worst(without_noise(found), without_noise(wanted), question, group, asked) <= (WEIGHT, "")


def without_noise(found: Answers) -> Answers:
    """Leave out the generator's biases of keys: channels that are not rotated add the same to all scores of a query, which
    the softmax takes away again. Their gradient is rounding, and AdamW makes whole steps of it."""
    return {name: values for name, values in found.items() if not name.endswith("k_proj.bias")}
