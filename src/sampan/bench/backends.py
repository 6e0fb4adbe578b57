"""What is compared: a framework in a mode. Loads no framework."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sampan.errors import DeviceError, RequestError, did_you_mean
from sampan.extras import install, is_installed
from sampan.frameworks import FRAMEWORKS as TRAINED

MODES = ("eager", "compiled")
PARTS = ("ar", "decoder")
FRAMEWORKS = {**TRAINED, "tensorflow": install("tensorflow")}
"""What can be compared, and how to install it."""
PACKAGES = {name: f"sampan.frameworks.{name}" for name in TRAINED} | {"tensorflow": "sampan.bench.tensorflow"}
"""Where each one's adapter is."""


@dataclass(frozen=True)
class Backend:
    """A framework in a mode.

    Args:
        framework: One of FRAMEWORKS.
        mode: One of MODES.
        command: What Python is started with; the framework's name is added. It has to speak as sampan.bench.worker does.
    """

    framework: str
    mode: str
    command: tuple[str, ...] = ("-m", "sampan.bench.worker")

    @property
    def label(self) -> str:
        """The name that reports use."""
        return f"{self.framework} {self.mode}"


def installed() -> list[str]:
    """Return the frameworks that can be imported here, by looking for their packages only."""
    return [name for name in FRAMEWORKS if is_installed(name)]


def choose(frameworks: Sequence[str] | None, modes: Sequence[str]) -> tuple[list[Backend], list[str]]:
    """Return every framework in every mode, and in words what was left out.

    Args:
        frameworks: As the user named them; None takes all that are installed.

    Raises:
        RequestError: A name is unknown or stands there twice.
        DeviceError: A named framework is not installed, or none is.
    """
    check_names("--frameworks", frameworks or (), tuple(FRAMEWORKS))
    check_names("--modes", modes, MODES)
    present, notes = installed(), []
    if frameworks is None:
        if not present:
            raise DeviceError(
                "there is nothing to measure", "no framework is installed", " or ".join(FRAMEWORKS.values())
            )
        absent = [name for name in FRAMEWORKS if name not in present]
        notes = [f"{name} is not installed and is left out ({FRAMEWORKS[name]})" for name in absent]
    wanted = present if frameworks is None else frameworks
    return [require_installed(Backend(name, mode)) for name in wanted for mode in modes], notes


def parse_backend(word: str) -> Backend:
    """Return the backend that FRAMEWORK or FRAMEWORK:MODE names; without a mode it is eager.

    Raises:
        RequestError: Framework or mode is unknown.
        DeviceError: The framework is not installed.
    """
    framework, _, mode = word.partition(":")
    check_names("--diverge", (framework,), tuple(FRAMEWORKS))
    check_names("--diverge", (mode or MODES[0],), MODES)
    return require_installed(Backend(framework, mode or MODES[0]))


def require_installed(backend: Backend) -> Backend:
    """Return a backend whose framework is installed.

    Raises:
        DeviceError: It is not.
    """
    if not is_installed(backend.framework):
        raise DeviceError(
            f"the framework {backend.framework} is not installed",
            f"Python finds no package `{backend.framework}`",
            FRAMEWORKS[backend.framework],
        )
    return backend


def check_names(option: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse what is not one of the known names, and what stands there twice.

    Raises:
        RequestError: One is.
    """
    for name in names:
        if name not in known:
            raise RequestError(f"{option}: `{name}` is not one of {', '.join(known)}", (), did_you_mean(name, known))
        if list(names).count(name) > 1:
            raise RequestError(f"{option}: `{name}` stands there twice")
