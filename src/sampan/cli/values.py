"""Option values: from a word on the command line to a checked value, or to a sentence that says what is wrong."""

from __future__ import annotations

import math
import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path

from sampan.checkpoint.tolerance import TOLERANCES
from sampan.job import DEVICES, NUMBERED_DEVICE


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return a reader of whole numbers within limits."""

    def read(word: str) -> int:
        limits = f"at least {least}" if most is None else f"from {least} to {most}"
        if not re.fullmatch(r"[+-]?\d+", word, re.ASCII) or len(word) > 30:
            raise ArgumentTypeError(f"`{word}` is not a whole number, {limits}")
        if int(word) < least or (most is not None and int(word) > most):
            raise ArgumentTypeError(f"must be {limits}, got {word}")
        return int(word)

    return read


def number(least: float) -> Callable[[str], float]:
    """Return a reader of finite numbers of at least `least`."""

    def read(word: str) -> float:
        number = _finite(word)
        if number < least:
            raise ArgumentTypeError(f"must be at least {least}, got {word}")
        return number

    return read


def share(word: str) -> float:
    """Read a number above 0 and up to 1."""
    number = _finite(word)
    if not 0 < number <= 1:
        raise ArgumentTypeError(f"must be more than 0 and at most 1, got {word}")
    return number


def _finite(word: str) -> float:
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ArgumentTypeError(f"`{word}` is not a number")
    return number


def size(word: str) -> tuple[int, int]:
    """Read WIDTHxHEIGHT in pixels; whether a model can paint it is for the model to say."""
    sides = re.fullmatch(r"([1-9]\d{0,8})[xX×]([1-9]\d{0,8})", word, re.ASCII)
    if not sides:
        raise ArgumentTypeError(f"`{word}` is not a size: width x height in pixels, as in 1024x768")
    return int(sides[1]), int(sides[2])


def device(word: str) -> str:
    """Read the name of a device; whether it is there is for the framework to say."""
    if word not in DEVICES and not re.fullmatch(NUMBERED_DEVICE, word):
        raise ArgumentTypeError(f"`{word}` is not one of {', '.join(DEVICES)}")
    return word


def span(word: str) -> tuple[int, int]:
    """Read two whole numbers of at least 1, as in 3..8; one alone is both."""
    ends = re.fullmatch(r"(\d{1,9})(?:\.\.(\d{1,9}))?", word, re.ASCII)
    least, most = (int(ends[1]), int(ends[2] or ends[1])) if ends else (0, 0)
    if not 1 <= least <= most:
        raise ArgumentTypeError(f"`{word}` is not a number, or two in order, as in 3..8")
    return least, most


def words(word: str) -> tuple[str, ...]:
    """Read words separated by commas."""
    words = tuple(part.strip() for part in word.split(","))
    if not all(words):
        raise ArgumentTypeError(f"`{word}` is not a list of words separated by commas, as in en,pt")
    return words


def lora(word: str) -> tuple[Path, float]:
    """Read FILE or FILE:SCALE. A colon may be part of the name: the drive's, or of a file that is there."""
    name, colon, scale = word.rpartition(":")
    try:
        number = float(scale)
    except ValueError:
        return Path(word), 1.0
    if not colon or not name or Path(word).exists():
        return Path(word), 1.0
    if not math.isfinite(number):
        raise ArgumentTypeError(f"`{scale}` in `{word}` is not a number to scale with, as in `{name}:0.8`")
    return Path(name), number


def tolerance(word: str) -> tuple[str, float]:
    """Read WHAT=NUMBER."""
    name, equals, most = word.partition("=")
    if not equals or name not in TOLERANCES:
        raise ArgumentTypeError(f"`{word}` is not WHAT=X with one of {', '.join(TOLERANCES)}, as in loss=0.001")
    return name, number(0)(most)


def assignment(word: str) -> str:
    """Read KEY=VALUE; what it sets is for the job to check."""
    if not word.partition("=")[1]:
        raise ArgumentTypeError(f"`{word}` is not KEY=VALUE, as in stage.ar.lr=1e-4")
    return word
