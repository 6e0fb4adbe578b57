"""A copy of the tiny folder that a test may change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the folder that the published libraries wrote."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))
