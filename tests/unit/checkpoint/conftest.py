"""A copy of the tiny folder that a test may break, and how its errors are compared."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sampan.checkpoint.folder import open_folder
from sampan.checkpoint.write import write_folder
from sampan.models.build import PARTS
from sampan.models.config import ModelConfig


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the folder that the published libraries wrote."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "tiny"))


@pytest.fixture(scope="package")
def written(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that sampan wrote, with the hash of every file in its sampan.json; copy it before changing it."""
    opened = open_folder(tiny_folder)
    tensors = {part: opened.tensors(part) for part in PARTS}
    return write_folder(tmp_path_factory.mktemp("own") / "model", opened.config, tensors, tiny_folder / "processor")


@pytest.fixture(scope="session")
def config(tiny_folder: Path) -> ModelConfig:
    """The config of that folder."""
    return open_folder(tiny_folder).config
