"""Every picture is decoded once, by several processes, and what was found is kept for the next time.

The record is a file of JSON lines that only grows: a line a picture, written and synced after each chunk, so that an
examination that was killed goes on where it was. An entry holds as long as the picture's fingerprint does. A line that a
kill tore is no entry; the next one begins on a line of its own, and several processes may add to one record.

Worker processes import this module and what it needs: Pillow and NumPy, and no framework.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sampan import documents
from sampan.data import pictures
from sampan.data import workers as processes
from sampan.data.image_source import ImageSource
from sampan.data.pictures import ImageFacts
from sampan.errors import DataError, UnusableImageError

_VERSION = 1  # of what an examination finds; entries of another are not used
_CHUNK = 32  # pictures between two syncs
_FEW = 200  # starting processes takes longer than examining so many here
_MAX_WORKERS = 8
_MAX_CRASHES_IN_A_ROW = 8


@dataclass(frozen=True)
class Problem:
    """Why a picture cannot be used.

    Args:
        kind: One of sampan.data.report.KINDS.
        reason: In words.
    """

    kind: str
    reason: str


Found = ImageFacts | Problem


def examine(
    sources: Sequence[ImageSource],
    *,
    record: Path | None,
    max_pixels: int = pictures.MAX_PIXELS,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Found]:
    """Return what is known about each picture, in the order of `sources`; what is not known yet is found out and recorded.

    Args:
        record: The file of what is known; None keeps nothing.
        max_pixels: Most width·height of a picture.
        workers: Processes; 0 works in this one; None takes one for each CPU core, at most 8, and none for few pictures.
        progress: Called with (pictures done, pictures) as the work goes on.

    Raises:
        DataError: The record cannot be read or written, or processes cannot be started or keep ending.
    """
    unique = list(dict.fromkeys(sources))
    known = _recall(record, unique, max_pixels) if record is not None else {}
    to_do = [source for source in unique if source not in known]
    if progress and unique:
        progress(len(known), len(unique))
    if workers is None:
        workers = min(os.cpu_count() or 1, _MAX_WORKERS) if len(to_do) >= _FEW else 0
    chunks = [to_do[start : start + _CHUNK] for start in range(0, len(to_do), _CHUNK)]
    results = _with_workers(chunks, max_pixels, workers) if workers and to_do else _here(chunks, max_pixels)
    with closing(results):  # whatever ends the loop, the processes end too
        for chunk, entries in results:
            known.update(zip(chunk, (entry.found for entry in entries), strict=True))
            if record is not None:
                _remember(record, entries, max_pixels)
            if progress:
                progress(len(known), len(unique))
    return [known[source] for source in sources]


# ------------------------------------------------------------------------------------------------------- one picture


@dataclass(frozen=True)
class _Entry:
    """What was found, and the fingerprint it holds for; None where it may be different the next time."""

    name: str
    fingerprint: str | None
    found: Found


def _examine_chunk(sources: Sequence[ImageSource], max_pixels: int) -> list[_Entry]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow finds odd and reads all the same
        return [_examine_one(source, max_pixels) for source in sources]


def _examine_one(source: ImageSource, max_pixels: int) -> _Entry:
    try:
        fingerprint = source.fingerprint()
        data = source.read()
    except FileNotFoundError:
        return _Entry(source.name, None, Problem("missing", "it is not there"))
    except (OSError, DataError) as error:
        return _Entry(source.name, None, Problem("unreadable", str(error)))
    try:
        return _Entry(source.name, fingerprint, pictures.examine(data, source.name, max_pixels))
    except UnusableImageError as error:
        lasting = fingerprint if error.kind != "unreadable" else None
        return _Entry(source.name, lasting, Problem(error.kind, "; ".join(error.because)))


# --------------------------------------------------------------------------------------------------------- the record


def _recall(record: Path, sources: Sequence[ImageSource], max_pixels: int) -> dict[ImageSource, Found]:
    """Return what the record says of sources that have not changed."""
    try:
        lines = record.read_bytes().split(b"\n") if record.exists() else []
    except OSError as error:
        raise DataError(f"the record of examined pictures `{record}` cannot be read", str(error)) from error
    entries: dict[tuple[str, str], Found] = {}
    for line in lines:
        if entry := _parse(line, max_pixels):
            entries[entry.name, str(entry.fingerprint)] = entry.found
    known: dict[ImageSource, Found] = {}
    for source in sources if entries else ():
        try:
            finding = entries.get((source.name, source.fingerprint()))
        except OSError:
            continue  # the examination will say so
        if finding is not None:
            known[source] = finding
    return known


def _parse(line: bytes, max_pixels: int) -> _Entry | None:
    """Return the entry of a line, or None where it is torn, of another version, or says nothing at this `max_pixels`."""
    try:
        fields = documents.parse_json(line)
        if fields["version"] != _VERSION:
            return None
        if problem := fields.get("problem"):
            if problem["kind"] == "too-large" and fields["max_pixels"] != max_pixels:
                return None
            return _Entry(fields["name"], fields["fingerprint"], Problem(problem["kind"], problem["reason"]))
        facts = fields["facts"]
        picture = ImageFacts(facts["width_px"], facts["height_px"], facts["digest"], tuple(facts["converted"]))
        if picture.width_px * picture.height_px > max_pixels:
            return None
        return _Entry(fields["name"], fields["fingerprint"], picture)
    except (ValueError, KeyError, TypeError):
        return None


def _remember(record: Path, entries: Sequence[_Entry], max_pixels: int) -> None:
    lines: list[str] = []
    for entry in entries:
        if entry.fingerprint is None:
            continue
        fields: dict[str, Any] = {"version": _VERSION, "name": entry.name, "fingerprint": entry.fingerprint}
        if isinstance(entry.found, ImageFacts):
            fields["facts"] = asdict(entry.found)
        else:
            fields |= {"max_pixels": max_pixels, "problem": asdict(entry.found)}
        lines.append(json.dumps(fields) + "\n")
    if not lines:
        return
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        with open(record, "ab+") as file:
            torn = file.tell() and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n"
            file.write((("\n" if torn else "") + "".join(lines)).encode("ascii"))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DataError(f"the record of examined pictures `{record}` cannot be written", str(error)) from error


# ------------------------------------------------------------------------------------------------------ the processes

Chunk = list[ImageSource]
_Results = Generator[tuple[Chunk, list[_Entry]], None, None]


def _here(chunks: Sequence[Chunk], max_pixels: int) -> _Results:
    for chunk in chunks:
        yield chunk, _examine_chunk(chunk, max_pixels)


def _with_workers(chunks: Sequence[Chunk], max_pixels: int, workers: int) -> _Results:
    """Yield chunks as they are done, in any order; a picture that ends its process is found and said to be unreadable."""
    crashes = 0
    left = list(reversed(chunks))
    while left:
        suspects: list[Chunk] = []
        running: dict[Future[list[_Entry]], Chunk] = {}
        with _pool(min(workers, len(left))) as pool:
            while not suspects and (left or running):
                try:
                    while left and len(running) < 2 * workers:
                        future = pool.submit(_examine_chunk, left[-1], max_pixels)
                        running[future] = left.pop()
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        entries = future.result()
                        yield running.pop(future), entries
                except BrokenProcessPool:
                    suspects = list(running.values()) or [left.pop()]
        # one of the pictures under way ended a process, and all work with it; it is found by taking each alone
        for chunk in suspects:
            entries = []
            for entry in _one_by_one(chunk, max_pixels):
                crashes = crashes + 1 if entry.found == _CRASHED else 0
                if crashes > _MAX_CRASHES_IN_A_ROW:
                    raise DataError(
                        "the pictures cannot be examined",
                        f"worker processes ended at {crashes} pictures in a row, the last one `{entry.name}`",
                        "set data.workers = 0 to see what ends them; too little memory is one reason",
                    )
                entries.append(entry)
            yield chunk, entries


_CRASHED = Problem("unreadable", "the process that decoded it ended")


def _one_by_one(chunk: Chunk, max_pixels: int) -> Generator[_Entry, None, None]:
    """Yield the entries of a chunk, each picture examined in a process that nothing else depends on."""
    left = list(chunk)
    while left:
        with _pool(1) as pool:
            while left:
                source = left.pop(0)
                try:
                    yield pool.submit(_examine_chunk, [source], max_pixels).result()[0]
                except BrokenProcessPool:
                    try:
                        fingerprint = source.fingerprint()
                    except OSError:
                        fingerprint = None
                    yield _Entry(source.name, fingerprint, _CRASHED)
                    break


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Give worker processes that have been seen to start."""
    with processes.pool(workers) as executor:
        try:
            executor.submit(os.getpid).result()
        except BrokenProcessPool as error:
            raise DataError(
                "the pictures cannot be examined",
                "worker processes cannot be started",
                "in a script of your own, begin with `if __name__ == '__main__':`; or set data.workers = 0",
            ) from error
        try:
            yield executor
        finally:
            executor.shutdown(cancel_futures=True)
