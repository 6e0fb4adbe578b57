"""The two sides of every comparison, built once a session from one tiny pipeline with random, awake weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from parity.compare import CASES, FP32_TOLERANCE, ID_CASES, Bites, error
from parity.ours import Ours
from parity.theirs import Theirs
from parity.tiny import build


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Keep the order of sums the same on every machine; tiny matrices gain nothing from threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the library's `save_pretrained` wrote."""
    return tmp_path_factory.mktemp("oracle") / "tiny"


@pytest.fixture(scope="session")
def pipeline(folder: Path) -> Any:
    """The library's pipeline."""
    return build(folder)


@pytest.fixture(scope="session")
def ours(pipeline: Any, folder: Path) -> Ours:
    return Ours(pipeline, folder)


@pytest.fixture(scope="session")
def theirs(pipeline: Any) -> Theirs:
    return Theirs(pipeline)


@pytest.fixture(scope="session")
def ours_bf16(pipeline: Any, folder: Path) -> Ours:
    return Ours(pipeline, folder, torch.bfloat16)


@pytest.fixture(scope="session")
def theirs_bf16(pipeline: Any) -> Theirs:
    return Theirs(pipeline, torch.bfloat16)


BY_LABEL = {case.label: case for case in CASES + ID_CASES}


@pytest.fixture
def bites(ours: Ours, theirs: Theirs) -> Bites:
    """A check that a named comparison passes as the code is, and fails clearly with wrong code in its place."""

    def check(label: str, wrong: Callable[[pytest.MonkeyPatch], Any]) -> None:
        assert error(BY_LABEL[label], ours, theirs) <= FP32_TOLERANCE
        with pytest.MonkeyPatch.context() as patch:
            wrong(patch)
            assert error(BY_LABEL[label], ours, theirs) > 10 * FP32_TOLERANCE

    return check
