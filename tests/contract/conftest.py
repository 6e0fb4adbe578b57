"""The frameworks' answers, asked for once a session."""

from __future__ import annotations

import pytest

from contract.workers import Workers


@pytest.fixture(scope="session")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Workers:
    """What gives the answers of a framework, starting its process the first time."""
    return Workers(tmp_path_factory.mktemp("contract"))
