"""What the tests of readers share."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder inside another, with good pictures in it and one outside."""
    root = tmp_path / "set"
    (root / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.png", "sub/c.jpg")):
        Image.new("RGB", (8, 8), (number * 50, 0, 0)).save(root / name)
    Image.new("RGB", (8, 8)).save(tmp_path / "outside.png")
    return root
