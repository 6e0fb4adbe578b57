"""What the environment says of ranks is checked before they look for each other."""

from __future__ import annotations

import pytest

from sampan.errors import DeviceError
from sampan.frameworks.torch import parallel

UNSET = "\n\nhint: start several ranks by torchrun, as in docs/distributed.md; for one, unset WORLD_SIZE"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"WORLD_SIZE": "two"}, "the variable WORLD_SIZE of the environment is `two`, and no whole number from 1"),
        ({"WORLD_SIZE": "-2"}, "the variable WORLD_SIZE of the environment is `-2`, and no whole number from 1"),
        ({"WORLD_SIZE": "0"}, "the variable WORLD_SIZE of the environment is `0`, and no whole number from 1"),
        (
            {"WORLD_SIZE": "2", "RANK": "1"},
            (
                "the environment has WORLD_SIZE = 2, and not MASTER_ADDR and MASTER_PORT\n"
                "  because torchrun sets all of them for each rank that it starts"
            ),
        ),
        (
            {"WORLD_SIZE": "2", "RANK": "5", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"},
            "the environment has RANK = 5, and WORLD_SIZE = 2\n  because ranks are from 0 to 1",
        ),
        (
            {"WORLD_SIZE": "2", "RANK": "x", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"},
            "the variable RANK of the environment is `x`, and no whole number from 0",
        ),
    ],
)
def test_half_an_environment_is_refused_in_words(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DeviceError) as caught:
        parallel.start("cpu", 1.0)
    assert caught.value.render().rstrip() == f"error: {said}{UNSET}"


def test_one_rank_needs_no_further_variable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert parallel.start("cpu", 1.0) == "cpu"
