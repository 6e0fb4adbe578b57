"""Words in pictures, read by Tesseract, which is called as a program; and how many of them are right.

A picture is read several times: whole, and each of its colours alone (planes.py). The reading that the others agree with
most is taken. What should stand in the picture is never looked at, and true pictures are read as generated ones are.

Word accuracy and normalised edit distance are those of CVTG-2K: words of the prompt and of the picture in small letters,
split at spaces; a word is right if it is among the words read; the distance is one minus the Levenshtein distance over the
longer length, to the most similar word read. Accents count: "ola" is not "olá".
Source: Du et al. 2025, "TextCrafter: Accurately Rendering Multiple Texts in Complex Visual Scenes" (arXiv:2503.23461), and
the evaluation program published with it (unified_metrics_eval.py), which reads with PaddleOCR.
"""

from __future__ import annotations

import csv
import difflib
import io
import os
import re
import shutil
import subprocess
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from sampan.errors import DeviceError
from sampan.metrics.planes import planes

LANGUAGES = ("eng", "por")  # those installed of these are read
_FULL_PX = 256  # smaller pictures are enlarged by the whole number that comes nearest to this side
_PAGE_MODE = "6"  # one block of text
_INSTALL = (
    "Debian or Ubuntu: sudo apt install tesseract-ocr tesseract-ocr-por; macOS: brew install tesseract tesseract-lang; "
    "Windows: winget install UB-Mannheim.TesseractOCR"
)
_TINY = 1e-5  # in the published definition, against a division by nothing


@dataclass(frozen=True)
class Reading:
    """What was read in a picture.

    Args:
        words: As they are written, without marks at their ends.
        confidence: Mean of the words', in [0, 1]; 0 without words.
    """

    words: tuple[str, ...]
    confidence: float

    @property
    def text(self) -> str:
        """The words in one line."""
        return " ".join(self.words)


@dataclass(frozen=True)
class TextReader:
    """Tesseract, as it is installed.

    Args:
        program: Its path.
        version: As it says.
        languages: Of LANGUAGES, those that are installed.
        method: How pictures are read; readings of another method are not compared with these.
    """

    program: str
    version: str
    languages: tuple[str, ...]
    method: str = "grey and colours alone, 256 px, psm 6, most agreed"

    def read(
        self, images: Sequence[Image.Image], workers: int = 1, progress: Callable[[int], None] | None = None
    ) -> list[Reading]:
        """Return what stands in each picture.

        Args:
            images: Of any size and mode.
            workers: Processes at a time.
            progress: Called with the number of pictures read.
        """
        size = min(64, max(1, -(-len(images) // workers)))
        chunks = [images[first : first + size] for first in range(0, len(images), size)]
        readings: list[Reading] = []
        with ThreadPoolExecutor(workers) as pool:
            for chunk in pool.map(self._read_chunk, chunks):
                readings += chunk
                if progress:
                    progress(len(readings))
        return readings

    def _read_chunk(self, images: Sequence[Image.Image]) -> list[Reading]:
        variants = [variants_of(image) for image in images]
        with tempfile.TemporaryDirectory() as name:
            folder, paths = Path(name), []
            for image in (variant for group in variants for variant in group):
                paths.append(folder / f"{len(paths):06}.png")
                image.save(paths[-1], compress_level=1)
            listed = folder / "pictures.txt"
            listed.write_text("".join(f"{path}\n" for path in paths), encoding="utf-8")
            words = self._run(listed, len(paths))
        readings, first = [], 0
        for group in variants:
            readings.append(choose_reading(words[first : first + len(group)]))
            first += len(group)
        return readings

    def _run(self, listed: Path, count: int) -> list[list[tuple[str, float]]]:
        """Return the words and their confidences in each picture of a list, by one process."""
        command = [self.program, str(listed), "stdout", "--psm", _PAGE_MODE, "--dpi", "300"]
        command += ["-l", "+".join(self.languages), "tsv"]
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", env=os.environ | {"OMP_THREAD_LIMIT": "1"}, check=False
        )
        if done.returncode:
            raise DeviceError(
                "`tesseract` failed", (done.stderr.strip() or f"status {done.returncode}")[-500:], _INSTALL
            )
        pages: list[list[tuple[str, float]]] = [[] for _ in range(count)]
        for row in csv.DictReader(io.StringIO(done.stdout), delimiter="\t", quoting=csv.QUOTE_NONE):
            word = without_marks(row["text"] or "") if row["level"] == "5" else ""
            if word:
                pages[int(row["page_num"]) - 1].append((word, max(0.0, float(row["conf"])) / 100))
        return pages


def find_reader() -> TextReader:
    """Return the installed Tesseract.

    Raises:
        DeviceError: It is not installed, or has no language of LANGUAGES; the hint says how to install it.
    """
    program = shutil.which("tesseract")
    if program is None:
        raise DeviceError("words in pictures cannot be read", "the program `tesseract` is not on the path", _INSTALL)
    version = subprocess.run([program, "--version"], capture_output=True, encoding="utf-8", check=True)
    listed = subprocess.run([program, "--list-langs"], capture_output=True, encoding="utf-8", check=True)
    languages = tuple(name for name in LANGUAGES if name in listed.stdout.split())
    if not languages:
        raise DeviceError(
            "words in pictures cannot be read", f"tesseract has none of the languages {', '.join(LANGUAGES)}", _INSTALL
        )
    return TextReader(
        program, (version.stdout or version.stderr).split("\n")[0].removeprefix("tesseract ").strip(), languages
    )


def variants_of(image: Image.Image) -> list[Image.Image]:
    """Return the pictures that are read of one: itself in grey, then its colours alone."""
    image = image.convert("RGB")
    factor = max(1, round(_FULL_PX / max(image.size)))
    grey = image.convert("L").resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)
    return [grey, *planes(image, factor)]


def choose_reading(readings: Sequence[Sequence[tuple[str, float]]]) -> Reading:
    """Return the reading that says most of what the others say: words weigh by length and confidence."""
    support: dict[str, float] = {}
    for reading in readings:
        for word, confidence in reading:
            support[word.lower()] = support.get(word.lower(), 0.0) + confidence**2

    def weight(reading: Sequence[tuple[str, float]]) -> float:
        total = sum(support[word.lower()] * len(word) * confidence for word, confidence in reading)
        return total / max(1, len(reading)) ** 0.5

    best = max(readings, key=weight, default=())
    mean = sum(confidence for _, confidence in best) / len(best) if best else 0.0
    return Reading(tuple(word for word, _ in best), mean)


def without_marks(word: str) -> str:
    """Return a word without what is neither letter nor digit at its ends: edges of plates are read as bars."""
    return re.sub(r"^[\W_]+|[\W_]+$", "", unicodedata.normalize("NFC", word))


def words_of(texts: Iterable[str]) -> list[str]:
    """Return the words of texts as they are compared: small letters, composed, split at spaces, no marks at their ends."""
    words = (without_marks(word.lower()) for text in texts for word in text.split())
    return [word for word in words if word]


@dataclass(frozen=True)
class WordScore:
    """How a picture's words are right.

    Args:
        right: Words of the prompt that were read exactly.
        total: Words of the prompt.
        similarity: Sum over them of one minus the normalised distance to the most similar word read.
    """

    right: int
    total: int
    similarity: float


def score_words(wanted: Iterable[str], read: Iterable[str]) -> WordScore:
    """Return how many words of the prompt are among those read, and how near the others come."""
    words, read_words = words_of(wanted), words_of(read) or [""]
    near = [difflib.get_close_matches(word, read_words, n=1, cutoff=0)[0] for word in words]
    return WordScore(
        sum(word in read_words for word in words),
        len(words),
        sum(likeness(word, nearest) for word, nearest in zip(words, near, strict=True)),
    )


def likeness(one: str, other: str) -> float:
    """Return one minus the Levenshtein distance over the longer length."""
    return 1 - levenshtein(one, other) / (max(len(one), len(other)) + _TINY)


def levenshtein(one: str, other: str) -> int:
    """Return the fewest letters to insert, remove or replace to make one text the other."""
    before = list(range(len(other) + 1))
    for row, letter in enumerate(one, start=1):
        here = [row]
        for column, across in enumerate(other, start=1):
            here.append(min(before[column] + 1, here[-1] + 1, before[column - 1] + (letter != across)))
        before = here
    return before[-1]
