"""What tests of several rooms share: the folder of tests on the import path, and a tiny pipeline as the oracle."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # `from oracle import …`, whichever way pytest was started


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer what tests of numbers that are written down need."""
    parser.addoption("--regenerate", action="store_true", help="write the numbers of tests/golden anew")


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What is remembered between processes lies in a folder of the tests, not in that of whoever runs them."""
    from sampan import files

    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setattr(files, "cache_folder", lambda: folder)
        yield


@pytest.fixture(scope="session")
def tiny_pipeline() -> Any:
    """A `GlmImagePipeline` of the published libraries with tiny, random, awake weights; do not change it."""
    from oracle import build_tiny_pipeline

    return build_tiny_pipeline()


@pytest.fixture(scope="session")
def tiny_folder(tiny_pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the library's `save_pretrained` makes of `tiny_pipeline`; copy it before changing it."""
    folder = tmp_path_factory.mktemp("oracle") / "tiny"
    tiny_pipeline.save_pretrained(folder)
    return folder
