"""What the tests of several readers share: a package that is there and cannot be imported."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import pytest

from sampan import extras


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
