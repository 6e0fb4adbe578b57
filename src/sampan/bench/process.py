"""The process that a backend runs in, seen from the one that asks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampan.bench.backends import Backend
from sampan.errors import DeviceError, SampanError
from sampan.host import usable_cores

_LAST_LINES = 3  # of what a process said before it died
_ENDS_WITHIN_S = 20.0


@dataclass(frozen=True)
class ComputeTarget:
    """Where backends compute, as each of them is told.

    Args:
        device: As --device takes it.
        dtype: As --dtype takes it.
        threads: CPU threads; None takes OMP_NUM_THREADS, or else one for each core this process may use.
    """

    device: str = "auto"
    dtype: str = "auto"
    threads: int | None = None

    @property
    def num_threads(self) -> int | None:
        """How many threads every backend is told to use: the same, since what frameworks choose themselves differs."""
        variable = os.environ.get("OMP_NUM_THREADS", "")
        return self.threads or (int(variable) if variable.isdecimal() and int(variable) else usable_cores())


class BackendProcess:
    """One backend, running: each request is a method of sampan.bench.worker.Worker.

    Args:
        folder: Where what it prints is kept, to be quoted when it dies.
    """

    def __init__(self, backend: Backend, folder: Path, target: ComputeTarget):
        self.backend, self._log = backend, folder / f"{backend.framework}-{backend.mode}.log"
        # frameworks read these when they are imported; what was compiled before would make a first step look quick
        settings = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled")}
        if target.num_threads:
            settings |= dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), str(target.num_threads))
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *backend.command, backend.framework],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, encoding="utf-8",
                env={**os.environ, **settings},
            )  # fmt: skip
        self.facts = self.ask("describe", device=target.device, dtype=target.dtype, threads=target.num_threads)

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Have one thing done and return the answer.

        Raises:
            SampanError: The backend says why it cannot.
            DeviceError: It died; its last words are quoted.
        """
        assert self._process.stdin and self._process.stdout, "both are pipes"
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; what it said before stands in the pipe or in the log
        line = self._process.stdout.readline()
        if not line:
            raise DeviceError(
                f"the process of {self.backend.label} died while it was to `{do}`",
                self._last_words(),
                "leave it out with --frameworks or --modes, or give it a smaller job",
            )
        answer = json.loads(line)
        if "error" in answer:
            error = answer["error"]
            raise SampanError(f"{self.backend.label}: {error['what']}", error["because"], error["hint"])
        return answer

    def describe(self) -> dict[str, Any]:
        """Return what a record says about the backend."""
        return {"framework": self.backend.framework, "mode": self.backend.mode, **self.facts}

    def load(self, part: str, batch: Path, seed: int, model: Mapping[str, Any] | None = None) -> int:
        """Give it a batch and a part, whole or one block of the released size; return how many parameters the part has."""
        compiled = self.backend.mode == "compiled"
        answer = self.ask("load", part=part, batch=str(batch), seed=seed, compiled=compiled, model=model)
        return answer["num_parameters"]

    def step(self, **arguments: Any) -> dict[str, Any]:
        """Take a step.

        Raises:
            SampanError: Its loss or gradient is not a number, so that nothing was updated.
        """
        answer = self.ask("step", **arguments)
        if answer["skipped"]:
            raise SampanError(
                f"{self.backend.label} makes a step that is not finite, and is not timed",
                f"its loss is {answer['loss']}",
            )
        return answer

    def close(self) -> None:
        """End it."""
        assert self._process.stdin and self._process.stdout, "both are pipes"
        try:
            self._process.stdin.close()  # it ends when there are no more requests
            self._process.wait(_ENDS_WITHIN_S)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _last_words(self) -> list[str]:
        code = self._process.wait()
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        how = f"signal {-code} ended it" if code < 0 else f"it ended with status {code}"
        return [how, *(line.strip() for line in lines[-_LAST_LINES:])]


@contextmanager
def running(backends: Sequence[Backend], folder: Path, target: ComputeTarget) -> Iterator[list[BackendProcess]]:
    """Run backends while the block runs, started one after another.

    Raises:
        DeviceError: They compute on different devices or in different dtypes, so that nothing can be compared.
    """
    with ExitStack() as stack:
        processes = []
        for backend in backends:
            process = BackendProcess(backend, folder, target)
            stack.callback(process.close)
            processes.append(process)
        _require_one_target(processes)
        yield processes


def _require_one_target(processes: Sequence[BackendProcess]) -> None:
    first, *others = processes
    for other in others:
        for what in ("device", "dtype"):
            if other.facts[what] != first.facts[what]:
                raise DeviceError(
                    f"{first.backend.label} and {other.backend.label} cannot be compared here",
                    [
                        f"{process.backend.label} computes on `{process.facts['device']}` in {process.facts['dtype']}"
                        for process in (first, other)
                    ],
                    "say where and how with --device and --dtype, such as --device cpu --dtype fp32",
                )
