"""The process that a side runs in, seen from the one that asks."""

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
    """Where sides compute, as each of them is told.

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
        """How many threads every side is told to use: the same, since what frameworks choose themselves differs."""
        said = os.environ.get("OMP_NUM_THREADS", "")
        return self.threads or (int(said) if said.isdecimal() and int(said) else usable_cores())


class BackendProcess:
    """One side, running.

    Args:
        folder: Where what it prints is kept, to be quoted when it dies.
    """

    def __init__(self, side: Backend, folder: Path, place: ComputeTarget):
        self.side, self._said = side, folder / f"{side.framework}-{side.mode}.log"
        # frameworks read these when they are imported; what was compiled before would make a first step look quick
        settings = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled")}
        if place.num_threads:
            settings |= dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), str(place.num_threads))
        with open(self._said, "ab") as said:
            self._process = subprocess.Popen(
                [sys.executable, *side.command, side.framework],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True, encoding="utf-8",
                env={**os.environ, **settings},
            )  # fmt: skip
        self.facts = self.ask("describe", device=place.device, dtype=place.dtype, threads=place.num_threads)

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Have one thing done and return the answer.

        Raises:
            SampanError: The side says why it cannot.
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
                f"the process of {self.side.label} died while it was to `{do}`",
                self._last_words(),
                "leave it out with --frameworks or --modes, or give it a smaller job",
            )
        answer = json.loads(line)
        if "error" in answer:
            error = answer["error"]
            raise SampanError(f"{self.side.label}: {error['what']}", error["because"], error["hint"])
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
        lines = self._said.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        how = f"signal {-code} ended it" if code < 0 else f"it ended with status {code}"
        return [how, *(line.strip() for line in lines[-_LAST_LINES:])]


@contextmanager
def running(sides: Sequence[Backend], folder: Path, place: ComputeTarget) -> Iterator[list[BackendProcess]]:
    """Run sides while the block runs, started one after another.

    Raises:
        DeviceError: They compute on different devices or in different dtypes, so that nothing can be compared.
    """
    with ExitStack() as stack:
        found = []
        for side in sides:
            process = BackendProcess(side, folder, place)
            stack.callback(process.close)
            found.append(process)
        _check_alike(found)
        yield found


def facts_of(process: BackendProcess) -> Mapping[str, Any]:
    """Return what a record says about a side."""
    return {"framework": process.side.framework, "mode": process.side.mode, **process.facts}


def _check_alike(processes: Sequence[BackendProcess]) -> None:
    first, *others = processes
    for other in others:
        for what in ("device", "dtype"):
            if other.facts[what] != first.facts[what]:
                raise DeviceError(
                    f"{first.side.label} and {other.side.label} cannot be compared here",
                    [
                        f"{process.side.label} computes on `{process.facts['device']}` in {process.facts['dtype']}"
                        for process in (first, other)
                    ],
                    "say where and how with --device and --dtype, such as --device cpu --dtype fp32",
                )
