"""Which frameworks and modes are measured, and what is said of those that are not there."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sampan.bench import backends
from sampan.errors import DeviceError, RequestError


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch):
    """Return a function that makes only some frameworks look installed."""

    def choose(*names: str) -> None:
        monkeypatch.setattr(backends, "is_installed", lambda name: name in names)

    return choose


def test_by_default_all_that_are_installed_and_the_others_are_named(only):
    only("torch", "tensorflow")
    found, notes = backends.choose(None, backends.MODES)
    assert [backend.label for backend in found] == [
        "torch eager", "torch compiled", "tensorflow eager", "tensorflow compiled",
    ]  # fmt: skip
    assert notes == ["mindspore is not installed and is left out (pip install 'sampan[mindspore]')"]


def test_one_that_was_asked_for_and_is_not_installed_is_an_error(only):
    only("torch")
    with pytest.raises(DeviceError) as caught:
        backends.choose(("torch", "mindspore"), ("eager",))
    assert caught.value.render() == (
        "error: the framework mindspore is not installed\n  because Python finds no package `mindspore`\n\n"
        "hint: pip install 'sampan[mindspore]'"
    )


def test_without_any_there_is_nothing_to_measure(only):
    only()
    with pytest.raises(DeviceError) as caught:
        backends.choose(None, backends.MODES)
    assert caught.value.what == "there is nothing to measure"
    assert caught.value.hint == " or ".join(backends.FRAMEWORKS.values())


def test_a_side_of_the_lockstep_is_a_framework_and_may_name_a_mode(only):
    only("torch")
    assert backends.parse_backend("torch") == backends.Backend("torch", "eager")
    assert backends.parse_backend("torch:compiled") == backends.Backend("torch", "compiled")
    for word in ("torch:fast", "pytorch", ":eager", ""):
        with pytest.raises(RequestError):
            backends.parse_backend(word)


def test_a_comparison_itself_needs_no_framework():
    alone = "import sys; sys.modules |= dict.fromkeys(['torch', 'mindspore', 'tensorflow']); import sampan.bench.verb"
    done = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
