"""The log as TensorBoard event files, written with its `tensorboard` package alone: OUT/tensorboard/STAGE/.

A folder a stage, so that stages share their tags and each keeps its own steps. Records go to the file as they come: the
writers of other libraries keep some minutes in memory, and a process that is killed would lose them.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.summary.writer.record_writer import RecordWriter

from sampan.errors import CheckpointError

_VERSION = "brain.Event:2"  # what makes readers heed the start of a session
_RGB = 3  # the image record's word for its colours


class TensorBoard:
    """Event files below a folder.

    Raises:
        CheckpointError: A file cannot be written.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._files: dict[str, Any] = {}

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Write a step's numbers under their own names."""
        entries = [Summary.Value(tag=name, simple_value=float(value)) for name, value in values.items()]
        self._write(stage, Event(step=step, summary=Summary(value=entries)))

    def image(self, stage: str, step: int, name: str, png: bytes, width: int, height: int) -> None:
        """Write a picture under its name."""
        image = Summary.Image(width=width, height=height, colorspace=_RGB, encoded_image_string=png)
        self._write(stage, Event(step=step, summary=Summary(value=[Summary.Value(tag=name, image=image)])))

    def truncate(self, stage: str, step: int) -> None:
        """Say that the stage goes on after `step`: readers drop the steps that an earlier process wrote beyond it."""
        self._write(stage, Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))

    def close(self, failed: bool) -> None:
        """Close every file."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _write(self, stage: str, event: Any) -> None:
        event.wall_time = time.time()
        try:
            file = self._files.get(stage) or self._open(stage)
            file.write(event.SerializeToString())
            file.flush()
        except OSError as error:
            raise CheckpointError(
                f"the event file in `{self.folder / stage}` cannot be written",
                str(error),
                "go on with --resume when it can be, or with --set train.tensorboard=false",
            ) from error

    def _open(self, stage: str) -> Any:
        folder = self.folder / stage
        folder.mkdir(parents=True, exist_ok=True)
        # readers take a folder's files in the order of their names
        name = f"events.out.tfevents.{int(time.time()):010d}.{platform.node() or 'host'}.{os.getpid()}.0"
        self._files[stage] = file = RecordWriter(open(folder / name, "ab"))  # noqa: SIM115  # closed by close()
        file.write(Event(wall_time=time.time(), file_version=_VERSION).SerializeToString())
        return file
