"""The set-up script: which PyTorch it asks for, when it runs again, and what it says when it cannot."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "scripts" / "bootstrap.py"
INDEX = "https://example.org/cpu"


@pytest.fixture
def bootstrap():
    spec = importlib.util.spec_from_file_location("bootstrap", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_linux_without_a_driver_asks_its_own_index_first_for_the_cpu_build(bootstrap):
    assert bootstrap.torch_attempts("2.13.0", INDEX, "Linux", nvidia=False) == [
        ["torch==2.13.0+cpu"],
        ["torch==2.13.0+cpu", "--index-url", INDEX],
    ]


@pytest.mark.parametrize(
    ("system", "nvidia", "index"),
    [("Linux", True, INDEX), ("Darwin", False, INDEX), ("Windows", False, INDEX), ("Linux", False, "")],
)
def test_everywhere_else_the_plain_build_is_taken(bootstrap, system, nvidia, index):
    assert bootstrap.torch_attempts("2.13.0", index, system, nvidia) == [["torch==2.13.0"]]


def test_a_build_that_is_named_is_taken_as_it_is(bootstrap):
    assert bootstrap.torch_attempts("2.13.0+cu130", INDEX, "Linux", nvidia=True) == [
        ["torch==2.13.0+cu130"],
        ["torch==2.13.0+cu130", "--index-url", INDEX],
    ]


def test_constraints_follow_the_torch_that_was_asked_for(bootstrap):
    text = "# pins\nnumpy==2.4.6\ntorch==2.13.0\ntorchless==1\n"
    assert bootstrap.constraints_for(text, "2.12.1+cu130") == "# pins\nnumpy==2.4.6\ntorchless==1\ntorch==2.12.1\n"


def test_the_packed_pip_is_the_file_it_says_it_is(bootstrap):
    assert hashlib.sha256(bootstrap.PIP_WHEEL.read_bytes()).hexdigest() == bootstrap.PIP_WHEEL_SHA256


def test_the_stamp_counts_only_with_the_same_key_and_enough_extras(bootstrap, tmp_path):
    bootstrap.VENV = tmp_path
    bootstrap.STAMP = tmp_path / "sampan-setup.json"
    key = bootstrap.setup_key("2.13.0", INDEX)
    assert key != bootstrap.setup_key("2.13.1", INDEX)
    assert not bootstrap.is_ready(key, ["torch"])
    bootstrap.STAMP.write_text(json.dumps({"key": key, "extras": ["torch", "data"]}), encoding="utf-8")
    assert not bootstrap.is_ready(key, ["torch"])  # a stamp without an interpreter
    python = bootstrap.venv_python()
    python.parent.mkdir(parents=True)
    python.touch()
    assert bootstrap.is_ready(key, ["torch"])
    assert not bootstrap.is_ready(key, ["torch", "dev"])
    assert not bootstrap.is_ready("another", ["torch"])


def test_a_torch_that_nobody_has_is_one_clear_error(bootstrap, capfd):
    bootstrap.torch_attempts = lambda *_: [["torch==0.0.0+none", "--no-index"], ["torch==0.0.0+none", "--no-index"]]
    bootstrap.venv_python = lambda: Path(sys.executable)
    with pytest.raises(bootstrap.SetupError) as caught:
        bootstrap.install_torch("0.0.0+none", INDEX)
    first, *said, empty, hint = str(caught.value).splitlines()
    assert (first, len(said), empty) == ("PyTorch 0.0.0+none could not be installed", 2, "")
    # what pip says depends on its own settings: that there is no such version, or that they forbid it
    assert all(line.startswith("  because, from the index that pip is set up with, pip said: ERROR: ") for line in said)
    assert hint == (
        "hint: name an index that has it, `make demo TORCH_INDEX=https://…`, or take the plain, larger build: "
        "`make demo TORCH_INDEX=`"
    )
    assert "not found there" in capfd.readouterr().out


def test_a_damaged_pip_is_refused_before_anything_runs_it(bootstrap, tmp_path):
    wheel = tmp_path / "pip-26.3-py3-none-any.whl"
    wheel.write_bytes(b"not a wheel")
    bootstrap.PIP_WHEEL, bootstrap.ROOT, bootstrap.VENV = wheel, tmp_path, tmp_path / ".venv"
    bootstrap.venv_python = lambda: Path(sys.executable)
    with pytest.raises(bootstrap.SetupError, match="is not the file it should be") as caught:
        bootstrap.make_environment()
    assert str(caught.value).endswith("hint: git checkout -- pip-26.3-py3-none-any.whl")


def test_help_names_the_settings():
    answer = subprocess.run([sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True, check=False)
    assert answer.returncode == 0
    assert "--torch-index" in answer.stdout
