"""Make .venv and install this project into it, on a machine that has Python 3.11 or later and nothing else.

Standard library only. A Debian python3 has neither pip nor ensurepip, so the environment is made without pip and gets
the one that lies beside this file: the same on every machine. A second call finds the stamp and returns at once.

    python3 scripts/bootstrap.py                        what the demo needs
    python3 scripts/bootstrap.py --extras torch,data,hub,logs,dev    what the tests need as well

Where Linux shows no NVIDIA driver, the CPU build of PyTorch is taken: first from the index that pip is set up with,
then from --torch-index. Everywhere else the plain build is right. A --torch-version with a local part ("2.13.0+cu130")
is taken as it is written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "sampan-setup.json"
PIP_WHEEL = Path(__file__).resolve().parent / "pip-26.3-py3-none-any.whl"
PIP_WHEEL_SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"
OLDEST_PYTHON = (3, 11)
DEFAULT_TORCH_VERSION = "2.13.0"
DEFAULT_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"


class SetupError(Exception):
    """A step of the set-up that failed; the text says what, why and what to do next."""


def say(text: str) -> None:
    """Show one line of progress at once, also where the output goes to a file."""
    print(f"[setup] {text}", flush=True)


def venv_python() -> Path:
    """Return the interpreter of .venv on this operating system."""
    return VENV / "Scripts" / "python.exe" if os.name == "nt" else VENV / "bin" / "python"


def has_nvidia_driver() -> bool:
    """Say whether an NVIDIA driver is installed, asking neither PyTorch nor the device."""
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()


def torch_attempts(version: str, index: str, system: str, nvidia: bool) -> list[list[str]]:
    """Return pip's arguments for PyTorch, in the order in which they are to be tried.

    Args:
        version: As asked for; with a local part it names one build and is not changed.
        index: The address of an index with CPU builds, or "" to take the plain build after all.
        system: `platform.system()`: only Linux has a separate CPU build.
        nvidia: Whether an NVIDIA driver is present.
    """
    if "+" not in version:
        if not index or nvidia or system != "Linux":
            return [[f"torch=={version}"]]
        version = f"{version}+cpu"
    own = [f"torch=={version}"]
    return [own, [*own, "--index-url", index]] if index else [own]


def constraints_for(text: str, torch_version: str) -> str:
    """Return the constraints with PyTorch's line set to the version that was asked for, its local part left out."""
    lines = [line for line in text.splitlines() if not line.startswith("torch==")]
    return "\n".join([*lines, f"torch=={torch_version.partition('+')[0]}"]) + "\n"


def setup_key(torch_version: str, torch_index: str) -> str:
    """Return a hash of everything the set-up depends on; another key means that it has to run again."""
    digest = hashlib.sha256(json.dumps([torch_version, torch_index, has_nvidia_driver(), str(ROOT)]).encode())
    for path in (Path(__file__), ROOT / "pyproject.toml", ROOT / "constraints.txt"):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_ready(key: str, extras: Sequence[str]) -> bool:
    """Say whether the last complete set-up had this key and at least these extras."""
    if not (STAMP.is_file() and venv_python().exists()):
        return False
    stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    return stamp["key"] == key and set(extras) <= set(stamp["extras"])


def run(arguments: Sequence[str | Path], what: str, hint: str) -> None:
    """Run a command with its output in view.

    Raises:
        SetupError: It ended with another status than 0.
    """
    command = [str(argument) for argument in arguments]
    if status := subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise SetupError(f"{what} failed (status {status})\n  because of what is printed above\n\nhint: {hint}")


def make_environment() -> None:
    """Make .venv with pip in it, unless a working one is there."""
    python = venv_python()
    probe = "import sys; sys.exit(sys.version_info < (3, 11))"
    if not (python.exists() and subprocess.run([str(python), "-c", probe], check=False).returncode == 0):
        say(f"making {VENV.name} with Python {platform.python_version()} ({sys.executable})")
        no_venv = "point PYTHON at an interpreter that has the module `venv`: make demo PYTHON=/path/to/python3"
        run([sys.executable, "-m", "venv", "--without-pip", "--clear", VENV], f"making {VENV}", no_venv)
    found = hashlib.sha256(PIP_WHEEL.read_bytes()).hexdigest()
    if found != PIP_WHEEL_SHA256:
        raise SetupError(
            f"{PIP_WHEEL} is not the file it should be\n  because its SHA-256 is {found}, not {PIP_WHEEL_SHA256}\n\n"
            f"hint: git checkout -- {PIP_WHEEL.relative_to(ROOT)}"
        )
    wanted = PIP_WHEEL.name.split("-")[1]
    if installed_version("pip") != wanted:
        say(f"bringing pip {wanted} into {VENV.name}")
        offline = ["--quiet", "--no-index", "--no-deps", "--disable-pip-version-check"]
        run([python, PIP_WHEEL / "pip", "install", *offline, PIP_WHEEL], "installing pip", "make clean, then try again")


def installed_version(package: str) -> str | None:
    """Return the version of a package in .venv, or None where it is not installed."""
    code = (
        "import importlib.metadata as m, sys\ntry: print(m.version(sys.argv[1]))\nexcept m.PackageNotFoundError: pass\n"
    )
    answer = subprocess.run([str(venv_python()), "-c", code, package], capture_output=True, text=True, check=True)
    return answer.stdout.strip() or None


def install_torch(version: str, index: str) -> None:
    """Install PyTorch alone, from the first place that has the wanted build.

    Raises:
        SetupError: No place has it; holds what pip said.
    """
    system, nvidia = platform.system(), has_nvidia_driver()
    attempts = torch_attempts(version, index, system, nvidia)
    wanted = attempts[0][0].removeprefix("torch==")
    installed = installed_version("torch")
    if installed is not None and installed.partition("+")[0] == version:
        say(f"PyTorch {installed} is installed already")
        return
    reason = "an NVIDIA driver is present" if nvidia else f"no NVIDIA driver on this {system}"
    complaints: list[str] = []
    for attempt in attempts:
        source = f"from {index}" if "--index-url" in attempt else "from the index that pip is set up with"
        say(f"installing PyTorch {wanted} ({reason}), {source}")
        # Only PyTorch is asked of this index; what it needs comes with everything else in the next step.
        command = [str(venv_python()), "-m", "pip", "install", "--disable-pip-version-check", "--no-deps", *attempt]
        answer = subprocess.run(command, cwd=ROOT, check=False, stderr=subprocess.PIPE, text=True)
        if answer.returncode == 0:
            return
        lines = [line for line in answer.stderr.splitlines() if line.startswith("ERROR:")]
        complaints.append(f"  because, {source}, pip said: {' '.join(lines[-1:]) or answer.stderr.strip()[-500:]}")
        say("not found there")
    raise SetupError(
        "\n".join([f"PyTorch {wanted} could not be installed", *complaints])
        + "\n\nhint: name an index that has it, `make demo TORCH_INDEX=https://…`, or take the plain, larger build: "
        "`make demo TORCH_INDEX=`"
    )


def install_project(extras: Sequence[str], torch_version: str) -> None:
    """Install the project, editable, with the extras, every version held to constraints.txt."""
    held = VENV / "constraints.txt"
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    held.write_text(constraints_for(pins, torch_version), encoding="utf-8")
    say(f"installing sampan with {', '.join(extras)}")
    pip = [venv_python(), "-m", "pip", "install", "--disable-pip-version-check"]
    hint = "is there a network, and does pip's index have these versions? see `pip config list`"
    target = f"{ROOT}[{','.join(extras)}]"
    run([*pip, "-c", held, "--build-constraint", held, "-e", target], "installing sampan", hint)


def main(argv: Sequence[str] | None = None) -> int:
    """Set everything up and return 0, or print what went wrong and return 1."""
    parser = argparse.ArgumentParser(description="Make .venv and install this project into it.")
    parser.add_argument("--extras", default="torch,data", help="comma-separated (default: %(default)s)")
    parser.add_argument("--torch-version", default=DEFAULT_TORCH_VERSION, help="default: %(default)s")
    parser.add_argument("--torch-index", default=DEFAULT_TORCH_INDEX, help="an index with CPU builds (%(default)s)")
    options = parser.parse_args(argv)
    extras = [name for name in options.extras.split(",") if name]
    start_s = time.monotonic()
    try:
        if sys.version_info < OLDEST_PYTHON:
            raise SetupError(
                f"Python {platform.python_version()} is too old\n"
                f"  because sampan needs 3.11 or later, and this is {sys.executable}\n\n"
                "hint: make demo PYTHON=/path/to/a/newer/python3"
            )
        key = setup_key(options.torch_version, options.torch_index)
        if is_ready(key, extras):
            return 0
        make_environment()
        install_torch(options.torch_version, options.torch_index)
        install_project(extras, options.torch_version)
        beside = STAMP.with_suffix(".json.new")
        beside.write_text(json.dumps({"key": key, "extras": extras}), encoding="utf-8")
        beside.replace(STAMP)
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    say(f"ready in {time.monotonic() - start_s:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
