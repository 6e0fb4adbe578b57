"""What a run writes about itself while it trains: OUT/log.jsonl, OUT/events.jsonl, OUT/samples/, and two services if asked.

log.jsonl has one line a step and is what everything else is drawn from; events.jsonl says who worked when. Each line is
one JSON object that every reader takes: a number that is not finite is null, and `not_finite` says which it was. A line
is in the file when the call returns, so that a process that is killed loses none; steps that are taken again are dropped
first, and so is a last line that was cut off.

Only at the beginning does a place that cannot be written end anything. Later on, when there is work to lose, a full disk
is told once; lines wait in memory and are written when they can be, and the training goes on to its next checkpoint.
"""

from __future__ import annotations

import io
import json
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sampan import documents, files, frameworks
from sampan.checkpoint.provenance import machine, now, versions
from sampan.errors import BadDocumentError, CheckpointError, JobError, SampanError
from sampan.extras import require

if TYPE_CHECKING:
    from PIL.Image import Image

_FILES = ("log.jsonl", "events.jsonl")
_MAX_WAITING = 100_000  # lines that wait for a disk with room


class LogSink(Protocol):
    """Where the log goes beside the run folder."""

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Take a step's numbers; they may be NaN or infinite."""

    def image(self, stage: str, step: int, name: str, png: bytes, width: int, height: int) -> None:
        """Take a picture."""

    def truncate(self, stage: str, step: int) -> None:
        """Expect the steps after `step` once more."""

    def close(self, failed: bool) -> None:
        """Hand over what is left."""


def check_installed(*, tensorboard: bool, wandb: str | None) -> None:
    """Check that what a job asks for is installed, before anything long begins.

    Raises:
        JobError: A package is missing, or cannot be imported.
    """
    if tensorboard:
        require("logs", "tensorboard", failed="`train.tensorboard = true` cannot be done", error=JobError)
    if wandb:
        require("wandb", "wandb", failed=f'`train.wandb = "{wandb}"` cannot be done', error=JobError)


class RunLog:
    """The record of one process's work on a run; a context manager.

    Args:
        out: The run folder; it is there. None in a process that leaves the record to another one: nothing is written.
        tensorboard: Also write event files into OUT/tensorboard, a folder a stage.
        wandb: Also send to this Weights & Biases project ("project" or "entity/project"); None sends nothing.
        facts: The job's settings, for the record.
        tell: Is called with what a person should know of: what cannot be written, and that it can be again.

    Raises:
        JobError: A package is missing, or the service cannot be used.
        CheckpointError: The run folder cannot be written when the work begins.
    """

    def __init__(
        self,
        out: Path | None,
        *,
        tensorboard: bool,
        wandb: str | None,
        facts: Mapping[str, Any],
        tell: Callable[[str], object] = lambda words: None,
    ):
        check_installed(tensorboard=tensorboard, wandb=wandb)
        self.out, self._facts = out, facts
        self._tensorboard, self._wandb = tensorboard, wandb
        self._sinks: list[LogSink] = []
        self._tell = tell
        self._waiting: dict[str, deque[str]] = {name: deque(maxlen=_MAX_WAITING) for name in _FILES}
        self._told: set[str] = set()

    def __enter__(self) -> RunLog:
        if self.out is None:
            return self
        for name in _FILES:
            _rewrite(self.out / name, lambda row: True)
        if self._tensorboard:
            from sampan.train.tensorboard import TensorBoard

            self._sinks.append(TensorBoard(self.out / "tensorboard"))
        if self._wandb:
            from sampan.train.wandb import WeightsAndBiases

            self._sinks.append(WeightsAndBiases(self.out, self._wandb, self._facts))
        for name in _FILES:
            with _naming(self.out / name):
                files.append_bytes(self.out / name, b"")
                files.try_place(self.out)
        self.event("begin", versions=versions(frameworks.chosen()), machine=machine(), job=dict(self._facts))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        with ExitStack() as stack:
            for sink in self._sinks:
                stack.callback(self._sink, sink.close, kind is not None)
            self.event("end", **_outcome(error))
            for name, lines in self._waiting.items():
                if lines and self.out is not None:
                    self._write(name)  # events may have made it where the log did not
                if lines and self.out is not None:
                    self._tell(f"{len(lines)} lines of `{self.out / name}` could not be written and are lost")

    def step(self, stage: str, step: int, values: Mapping[str, float], *, skipped: bool = False) -> None:
        """Append a step's numbers to the log.

        Args:
            step: Steps taken so far, this one included.
            values: Of a training step, loss, lr, grad_norm, images_per_s and what the stage adds. A second line of the same
                step, without a loss, is a measurement.
            skipped: The step changed nothing, because its loss or gradient was not finite.
        """
        numbers = {name: _plain(value) for name, value in values.items()}
        line: dict[str, Any] = {"stage": stage, "step": step}
        line |= {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        if strange := {name: _name_of(value) for name, value in numbers.items() if not math.isfinite(value)}:
            line["not_finite"] = strange
        if skipped:
            line["skipped"] = True
        self._append("log.jsonl", line)
        for sink in self._sinks:
            self._sink(sink.scalars, stage, step, {**numbers, **({"skipped": 1.0} if skipped else {})})

    def truncate(self, stage: str, step: int) -> None:
        """Drop the lines of a stage's steps after `step`, which are about to be taken again."""

        def keep(row: dict[str, Any]) -> bool:
            return row.get("stage") != stage or row.get("step", 0) <= step

        if self.out is not None:
            _rewrite(self.out / "log.jsonl", keep)
        waiting = [line for line in self._waiting["log.jsonl"] if keep(json.loads(line))]
        self._waiting["log.jsonl"] = deque(waiting, _MAX_WAITING)
        for sink in self._sinks:
            self._sink(sink.truncate, stage, step)

    def event(self, kind: str, **facts: Any) -> None:
        """Append what happened to events.jsonl, with the time.

        Args:
            kind: "begin" and "end" (a process, written here), "resume", "save", "skip", "done" …
        """
        self._append("events.jsonl", {"time": now(), "event": kind, **_finite(facts)})

    def image(self, stage: str, step: int, name: str, image: Image) -> None:
        """Write an image to OUT/samples/STAGE-STEP-NAME.png.

        Args:
            image: Its `info["Description"]`, where there is one, goes into the file too.
        """
        from PIL.PngImagePlugin import PngInfo

        if self.out is None:
            return
        text = PngInfo()
        if "Description" in image.info:
            text.add_itxt("Description", image.info["Description"])
        buffer = io.BytesIO()
        image.save(buffer, "PNG", pnginfo=text)
        path = self.out / "samples" / f"{stage}-{step:08d}-{name}.png"
        try:
            path.parent.mkdir(exist_ok=True)
            files.write_bytes(path, buffer.getvalue())
        except OSError as error:
            self._tell_once("samples", f"`{path}` cannot be written ({error}); the training goes on without it")
        for sink in self._sinks:
            self._sink(sink.image, stage, step, name, buffer.getvalue(), *image.size)

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        if self.out is not None:
            self._waiting[name].append(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
            self._write(name)

    def _write(self, name: str) -> None:
        """Write the lines that wait, all or none of them; they go on waiting where they cannot be written."""
        assert self.out is not None, "the caller asks"
        path, waiting = self.out / name, self._waiting[name]
        try:
            files.append_bytes(path, "".join(waiting).encode("utf-8", "backslashreplace"))
        except OSError as error:
            self._tell_once(
                name,
                f"`{path}` cannot be written ({error}); the training goes on, and its lines wait until they can be",
            )
            return
        if name in self._told:
            self._told.discard(name)
            self._tell(f"`{path}` is written again; {len(waiting)} lines had waited")
        waiting.clear()

    def _sink(self, call: Callable[..., None], *given: Any) -> None:
        """Hand something to a service; where its files cannot be written either, that is told once."""
        try:
            call(*given)
        except (CheckpointError, OSError) as error:
            what = "; ".join([error.what, *error.because]) if isinstance(error, CheckpointError) else str(error)
            self._tell_once("sinks", f"{what}; the training goes on")

    def _tell_once(self, about: str, words: str) -> None:
        if about not in self._told:
            self._told.add(about)
            self._tell(words)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Say which file could not be written."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"`{path}` cannot be written", str(error), "go on with --resume when it can be"
        ) from error


def _rewrite(path: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Drop lines of a file that are not wanted, and what is no line: the end of one that was cut off."""
    if not path.is_file():
        return
    content = path.read_bytes().decode("utf-8", errors="replace")
    kept = []
    for line in content.split("\n"):  # not splitlines: a caption may hold other line breaks
        try:
            row = documents.parse_json(line)
        except BadDocumentError:  # written by a process that was killed meanwhile
            continue
        if isinstance(row, dict) and keep(row):
            kept.append(line + "\n")
    if (wanted := "".join(kept)) != content:
        with _naming(path):
            files.write_text(path, wanted)


def _outcome(error: BaseException | None) -> dict[str, Any]:
    if error is None:
        return {"outcome": "finished"}
    if isinstance(error, KeyboardInterrupt):
        return {"outcome": "stopped"}
    what = error.what if isinstance(error, SampanError) else f"{type(error).__name__}: {error}"
    return {"outcome": "failed", "error": what}


def _plain(value: Any) -> float:
    return int(value) if isinstance(value, Integral) else float(value)


def _name_of(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _finite(value: Any) -> Any:
    """Return plain values for JSON; a number that is not finite becomes its word."""
    if isinstance(value, Mapping):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Real):
        number = _plain(value)
        return number if math.isfinite(number) else _name_of(number)
    return str(value)
