"""The processes that answer, one for each framework, started when they are first needed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from contract import files
from contract.compare import Answers, read

FRAMEWORKS = ("torch", "mindspore", "tensorflow")
_BEFORE = {"mindspore": ("torch",)}  # who must have left its files before
_LIMIT_S = 800


@dataclass
class Workers:
    """All frameworks' answers, in one folder."""

    folder: Path
    _known: dict[str, Answers] = field(default_factory=dict)

    def __post_init__(self) -> None:
        files.write_host_file(self.folder)
        files.write_bad_files(self.folder)

    def of(self, framework: str) -> Answers:
        """Return a framework's answers, or the reference's."""
        if framework not in self._known:
            for other in _BEFORE.get(framework, ()):
                self.of(other)
            start("worker.py", framework, str(self.folder))
            self._known[framework] = read(self.folder, framework)
        return self._known[framework]


def is_installed(framework: str) -> bool:
    """Say whether a framework can be imported, without importing it."""
    return importlib.util.find_spec(framework) is not None


def start(script: str, *arguments: str) -> None:
    """Run a script of this folder with one thread, and raise with what it said when it fails."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = {k: v for k, v in os.environ.items() if k != "SAMPAN_FRAMEWORK"} | threads
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / script), *arguments],
        env=environment, capture_output=True, text=True, timeout=_LIMIT_S, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{script} {' '.join(arguments)} failed:\n{done.stderr[-4000:]}")
