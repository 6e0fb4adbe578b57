"""What the tests of readers share: a folder of pictures, and a package that is there and cannot be imported."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from sampan import extras


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder inside another, with good pictures in it and one outside."""
    root = tmp_path / "set"
    (root / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.png", "sub/c.jpg")):
        Image.new("RGB", (8, 8), (number * 50, 0, 0)).save(root / name)
    Image.new("RGB", (8, 8)).save(tmp_path / "outside.png")
    return root


@pytest.fixture
def breaks(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Return a function that makes the import of a package fail with an ImportError of some words."""

    def break_package(package: str, words: str) -> None:
        def import_module(name: str) -> object:
            if name == package:
                raise ImportError(words)
            return importlib.import_module(name)

        monkeypatch.setattr(extras, "import_module", import_module)

    return break_package
