"""Saving while training goes on: a step waits for the copy of what it would change, and a thread writes it.

One save is under way at a time. What went wrong with it is raised by the next call, in the thread that trains.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sampan.checkpoint import run
from sampan.checkpoint.provenance import StageSession
from sampan.frameworks import io
from sampan.train import distributed


class StageSaver:
    """Writes the checkpoints of one stage.

    Args:
        out: The run folder.
        keep: Checkpoints of the stage that are kept.
        saved: Called with the step of a checkpoint that is whole, in the thread that trains.
    """

    def __init__(self, out: Path, stage: str, session: StageSession, keep: int, saved: Callable[[int], None]):
        self.out, self.stage, self.session, self.keep, self.saved = out, stage, session, keep, saved
        self._thread: threading.Thread | None = None
        self._step: int | None = None
        self._error: BaseException | None = None

    def begin(self, step: int, groups: Mapping[str, Mapping[str, Any]], record: Mapping[str, Any]) -> None:
        """Copy what a checkpoint keeps, and begin to write it; waits for the save before it.

        Where ranks cannot speak about a save beside their steps, it is written before this returns.

        Raises:
            CheckpointError: The one before could not be written, or this one where it was written.
        """
        if not distributed.saves_beside():
            self.save(step, groups, record)
            return
        self.wait()
        copies = {group: io.host_ranges(tensors, copied=True) for group, tensors in groups.items()}
        self._step = step
        self._thread = threading.Thread(target=self._write, args=(step, copies, dict(record)), name="save")
        self._thread.start()

    def save(self, step: int, groups: Mapping[str, Mapping[str, Any]], record: Mapping[str, Any]) -> None:
        """Write a checkpoint now; nothing is copied that need not be. Errors as of `begin`."""
        self.wait()
        ranges = {group: io.host_ranges(tensors, copied=False) for group, tensors in groups.items()}
        self._step = step
        self._write(step, ranges, record)
        self.check()

    def check(self) -> None:
        """Say of a save that has ended how it ended; returns at once.

        Raises:
            CheckpointError: It could not be written.
        """
        if self._step is None or (self._thread is not None and self._thread.is_alive()):
            return
        step, error = self._step, self._error
        self._thread = self._step = self._error = None
        if error is not None:
            raise error
        self.saved(step)

    def wait(self) -> None:
        """Wait for the save that is under way; errors as of `check`."""
        if self._thread is not None:
            self._thread.join()
        self.check()

    def __enter__(self) -> StageSaver:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Let a save that is under way end, whatever else has failed."""
        if error is None:
            self.wait()
        else:
            with suppress(Exception):  # the first error is the one to tell
                self.wait()

    def _write(self, step: int, ranges: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        try:
            together = distributed.SavingRanks()
            run.save(self.out, self.stage, step, ranges, record, self.session, together)
            if distributed.is_main_process():
                run.keep_last(self.out, self.stage, self.keep)
        except Exception as error:  # noqa: BLE001  # raised again where the steps are
            self._error = error
