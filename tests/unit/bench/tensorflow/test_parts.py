"""The tests in parts.py, in a process of their own, because a process has one framework."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.tensorflow_says import without_start_up

from sampan import frameworks
from sampan.errors import DeviceError

REFUSED = """error: sampan neither trains nor generates on tensorflow
  because it is there to compare a training step of generator and decoder, and has nothing else

hint: use --framework torch or mindspore; `sampan bench` compares all three"""


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None,
    reason="TensorFlow is not installed: pip install 'sampan[tensorflow]'",
)
def test_parts():
    parts, root = Path(__file__).with_name("parts.py"), Path(__file__).parents[4]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", str(parts)],
        capture_output=True, text=True, timeout=280, env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=root, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert without_start_up(done.stderr) == ""


def test_it_is_refused_for_all_but_the_comparison():
    with pytest.raises(DeviceError) as error:
        frameworks.use("tensorflow")
    assert str(error.value) == REFUSED.replace("--framework", "the framework")


def test_train_refuses_it(tmp_path: Path):
    sampan = [sys.executable, "-m", "sampan"]
    job = str(tmp_path / "job.toml")
    subprocess.run([*sampan, "init", job], check=True, capture_output=True)
    done = subprocess.run(
        [*sampan, "train", job, "--framework", "tensorflow"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr.strip()) == (1, "", REFUSED)
    assert [path.name for path in tmp_path.iterdir()] == ["job.toml"]
