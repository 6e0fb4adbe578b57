"""What is painted and read already, so that a measurement that was interrupted goes on where it was.

    FOLDER/<generator>/<digest of question and settings>.png   a picture; how long it took is in its metadata
    FOLDER/readings-<digest of the reader>.jsonl             what was read in which pixels

Pictures of other weights, prompts, seeds or settings have other names; nothing is ever taken for what it is not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sampan import __version__, documents, files
from sampan.evaluate.case import EvalCase
from sampan.metrics.ocr import Reading, TextReader
from sampan.pipeline.png import save_png


def digest(value: Any) -> str:
    """Return 24 hex digits that name a value of JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:24]


def pixels_digest(image: Image.Image) -> str:
    """Return 24 hex digits that name a picture by its pixels."""
    head = f"{image.mode} {image.width} {image.height} ".encode()
    return hashlib.sha256(head + image.tobytes()).hexdigest()[:24]


class ResultCache:
    """The pictures of one generator with one set of settings.

    Args:
        generator: Names who paints, the weights included.
        settings: Everything that a picture depends on beside the question.
        tell: Is called once where a picture cannot be kept, which ends nothing: it is measured all the same.

    Raises:
        OSError: The folder cannot be made.
    """

    def __init__(
        self,
        folder: Path,
        generator: str,
        settings: Mapping[str, Any],
        tell: Callable[[str], object] = lambda words: None,
    ):
        self.folder, self.settings, self._tell = folder / generator, dict(settings), tell
        self.folder.mkdir(parents=True, exist_ok=True)
        self._is_told = False

    def path(self, case: EvalCase) -> Path:
        """Return the file of a question's picture, whether it is there or not."""
        references = [pixels_digest(image) for image in case.references]
        truth = pixels_digest(case.truth) if case.truth is not None and self.settings.get("ablate") else None
        return self.folder / f"{digest([case.prompt, case.seed, references, truth, self.settings])}.png"

    def get(self, case: EvalCase) -> tuple[Image.Image, float] | None:
        """Return a question's picture and the seconds it took, or None where it is not painted or cannot be read."""
        try:
            with Image.open(self.path(case)) as image:
                image.load()
                facts = documents.parse_json(image.info["sampan"])
                return image.convert("RGB"), float(facts["seconds"])
        except (OSError, KeyError, TypeError, ValueError, SyntaxError, Image.DecompressionBombError):
            return None  # painted again

    def put(self, case: EvalCase, image: Image.Image, seconds: float) -> None:
        """Keep a question's picture."""
        facts = {"version": __version__, "seed": case.seed, "prompt": case.prompt, "seconds": round(seconds, 4)}
        try:
            save_png(self.path(case), np.asarray(image.convert("RGB")), facts)
        except OSError as error:
            if not self._is_told:
                self._tell(f"pictures cannot be kept in `{self.folder}` ({error}): a second call paints them again")
            self._is_told = True


class ReadingCache:
    """What one reader read, by the pixels it read it in."""

    def __init__(self, folder: Path, reader: TextReader, tell: Callable[[str], object] = lambda words: None):
        folder.mkdir(parents=True, exist_ok=True)
        self.reader, self._tell, self._is_told = reader, tell, False
        self._path = folder / f"readings-{digest([reader.version, reader.languages, reader.method])}.jsonl"
        self._known: dict[str, Reading] = {}
        if self._path.is_file():
            for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    name, words, confidence = documents.parse_json(line)
                    self._known[name] = Reading(tuple(map(str, words)), float(confidence))
                except (ValueError, TypeError):
                    continue  # cut short by a kill, or another's: read again

    def read(self, images: list[Image.Image], workers: int, progress: Any) -> list[Reading]:
        """Return what stands in pictures; what is not known is read and kept."""
        names = [pixels_digest(image) for image in images]
        missing = {name: image for name, image in zip(names, images, strict=True) if name not in self._known}
        todo = list(missing.items())
        step = 64 * workers
        for first in range(0, len(todo), step):
            some = todo[first : first + step]
            found = self.reader.read([image for _, image in some], workers)
            lines = []
            for (name, _), reading in zip(some, found, strict=True):
                self._known[name] = reading
                lines.append(json.dumps([name, reading.words, round(reading.confidence, 4)], ensure_ascii=False) + "\n")
            try:
                files.append_bytes(self._path, "".join(lines).encode())
            except OSError as error:
                if not self._is_told:
                    self._tell(f"`{self._path}` cannot be written ({error}): a second call reads the pictures again")
                self._is_told = True
            progress("reading words", len(names) - len(todo) + min(first + step, len(todo)), len(names))
        return [self._known[name] for name in names]
