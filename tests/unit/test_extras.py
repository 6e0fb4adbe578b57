"""A package of an extra that is missing or broken is told with its versions, and with a command that mends it."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sampan import extras, frameworks
from sampan.errors import DataError, DeviceError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def kites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An extra `kites` with the package `kite`, which is looked for in the folder that this is."""
    monkeypatch.setitem(extras.EXTRAS, "kites", ("kite",))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("kite", None)


def refused() -> DataError:
    with pytest.raises(DataError) as caught:
        extras.require("kites", "kite", failed="kites cannot fly", error=DataError, otherwise=["run"])
    return caught.value


def test_one_that_is_missing(kites: Path):
    assert str(refused()) == (
        "error: kites cannot fly\n  because the package `kite` is missing\n\nhint: pip install 'sampan[kites]' or run"
    )


def test_a_folder_of_its_name_is_not_the_package(kites: Path):
    (kites / "kite").mkdir()  # as `wandb` makes one where it runs
    assert not extras.is_installed("kite")
    assert refused().because == ("the package `kite` is missing",)


def test_one_that_lacks_another_package(kites: Path):
    (kites / "kite.py").write_text("import string_of_the_kite")
    assert refused().because == ("the package `string_of_the_kite` is missing",)


@pytest.mark.parametrize("error", ["ImportError", "RuntimeError", "AttributeError", "OSError", "ValueError"])
def test_one_that_is_broken(error: str, kites: Path, monkeypatch: pytest.MonkeyPatch):
    (kites / "kite.py").write_text(f"raise {error}('needs NumPy 9\\n or newer')")
    (kites / "kite-3.1.dist-info").mkdir()
    (kites / "kite-3.1.dist-info" / "METADATA").write_text("Name: kite\nVersion: 3.1\n")
    monkeypatch.setattr(extras, "is_installed", lambda name: name in ("kite", "mindspore"))
    numpy, python = extras.version("numpy"), ".".join(map(str, sys.version_info[:3]))
    assert str(refused()) == (
        "error: kites cannot fly\n"
        f"  because importing kite failed: {error}: needs NumPy 9 or newer\n"
        f"  because here are kite 3.1, numpy {numpy}, Python {python}\n\n"
        "hint: pip install 'sampan[mindspore,kites]' brings versions that go together or run"
    )
    assert (extras.problem_of("kites") or "").startswith(
        f"importing kite failed: {error}: needs NumPy 9 or newer; here are"
    )


def test_one_that_is_there(kites: Path):
    (kites / "kite.py").write_text("")
    extras.require("kites", "kite", failed="", error=DataError)
    assert extras.problem_of("kites") is None and extras.is_installed("kite")


def test_a_python_that_is_too_new_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    assert extras.install("mindspore") == "pip install 'sampan[mindspore]' on Python 3.12: there is no build for 3.13"
    assert extras.install("torch") == "pip install 'sampan[torch]'"
    monkeypatch.setattr(sys, "version_info", (3, 12, 1))
    assert extras.install("mindspore", "hub") == "pip install 'sampan[mindspore,hub]'"


def test_every_extra_of_the_project_is_known_and_every_package_comes_with_it():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    offered = project["optional-dependencies"]
    assert set(extras.EXTRAS) == set(offered) - {"dev"}
    for name, packages in extras.EXTRAS.items():
        text = " ".join(offered[name]).replace("-", "_")
        assert [package for package in packages if package not in text] == [], name


def test_what_is_compiled_for_numpy_1_asks_for_it():
    offered = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert any(line.startswith("numpy") and "<2" in line for line in offered["mindspore"])
    assert any(line.startswith("ml-dtypes>=0.5,<0.6") for line in offered["mindspore"])
    assert [line for line in offered["hub"] if "pyarrow" in line and "<26" in line and "< '3.13'" in line] != []


# ------------------------------------------------------------------------------------------------------------ frameworks

ALONE = """
import sys
from sampan import frameworks
from sampan.errors import DeviceError
for name in sys.argv[2:]:
    sys.modules[name] = None
try:
    frameworks.chosen() if sys.argv[1] == "chosen" else frameworks.use(sys.argv[1], switch="--framework {}")
except DeviceError as error:
    print(error)
"""


def alone(*arguments: str, path: Path | None = None, **environment: str) -> str:
    """Return what is said in a process without some packages."""
    import os

    separated = os.pathsep.join(filter(None, (str(path or ""), str(ROOT / "src"))))
    env = {**os.environ, "PYTHONPATH": separated, **environment}
    env.pop("SAMPAN_FRAMEWORK", None) if "SAMPAN_FRAMEWORK" not in environment else None
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *arguments], capture_output=True, text=True, timeout=300, check=True, env=env
    )
    return done.stdout.strip()


needs_mindspore = pytest.mark.skipif(not extras.is_installed("mindspore"), reason="MindSpore is not installed")


@needs_mindspore
def test_the_other_framework_is_suggested_in_the_words_of_the_verb():
    assert alone("torch", "torch") == (
        "error: the framework torch is not installed\n  because Python finds no package `torch`\n\n"
        "hint: pip install 'sampan[torch]' or --framework mindspore, which is here"
    )
    assert alone("chosen", "torch", SAMPAN_FRAMEWORK="torch").endswith(
        "hint: pip install 'sampan[torch]' or SAMPAN_FRAMEWORK=mindspore, which is here"
    )


def test_without_any_framework_both_are_named():
    assert alone("chosen", "torch", "mindspore") == (
        "error: no framework is installed\n  because Python finds none of the packages torch, mindspore\n\n"
        f"hint: {' or '.join(frameworks.FRAMEWORKS.values())}"
    )


@needs_mindspore
def test_mindspore_without_what_reads_its_bf16():
    assert alone("mindspore", "ml_dtypes", "torch") == (
        "error: the framework mindspore cannot be used\n  because the package `ml_dtypes` is missing\n\n"
        "hint: pip install 'sampan[mindspore]'"
    )


@needs_mindspore
def test_mindspore_beside_numpy_2(monkeypatch: pytest.MonkeyPatch):
    import numpy as np

    monkeypatch.setattr(np, "__version__", "2.4.6")
    sys.modules.pop("sampan.frameworks.mindspore", None)
    with pytest.raises(ImportError, match=r"^MindSpore is compiled for NumPy 1, and NumPy 2\.4\.6 is here$"):
        importlib.import_module("sampan.frameworks.mindspore")


def test_a_framework_whose_library_is_missing(tmp_path: Path):
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch.so.1: cannot open shared object file')")
    said = alone("torch", "mindspore", path=tmp_path)
    assert said.startswith(
        "error: the framework torch cannot be used\n"
        "  because importing torch failed: ImportError: libtorch.so.1: cannot open shared object file\n"
        "  because here are torch "
    )
    assert said.endswith("hint: pip install 'sampan[torch]' brings versions that go together")


def test_an_unknown_framework_is_no_default(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SAMPAN_FRAMEWORK", "torhc")
    assert frameworks.default() == "torhc"
    with pytest.raises(DeviceError, match="did you mean `torch`"):
        frameworks.use("torhc")
