"""How a verb's options are declared: once, as the fields of a frozen dataclass.

    @dataclass(frozen=True, kw_only=True)
    class EmojiArguments(VerbArguments):
        examples: ClassVar = ("sampan data emoji pictures",)
        directory: Path = argument("folder to write", "DIR")
        count: int | None = option("number of emoji; default: all that the font has", "N", whole(1))
        size: int = option("side of a picture", "PX", whole(1), 128)
        force: bool = flag("replace what is there")

From it `sampan.cli` builds the parser, the help and docs/cli.md, and into it a command line is parsed. A default that is a
value is added to the help text; one that has to be explained stands in the text. Loads nothing heavy.

The readers below turn one word of the command line into a checked value, or into a sentence that says what is wrong.
"""

from __future__ import annotations

import dataclasses
import math
import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, Literal

from sampan.job import DEVICES, DTYPES, MAX_SEED, NUMBERED_DEVICE, address_problem


def path(word: str) -> Path:
    """Read the path of a file or a folder of this machine."""
    if problem := address_problem(word):
        raise ArgumentTypeError(f"`{word}` {problem}")
    return Path(word)


def model_path(word: str) -> str:
    """Read a model: a folder, a run, the name of one that comes with sampan or of one on the Hub."""
    if problem := address_problem(word):
        raise ArgumentTypeError(f"`{word}` {problem}; a model of the Hub is named owner/name")
    return word


@dataclass(frozen=True, kw_only=True)
class Option:
    """How one field of a verb's arguments stands on the command line.

    Args:
        name: The option as it is typed; None makes it of the field's name, "" is a positional argument.
        metavar: What stands for the value in the help; several for an option that takes so many values.
        read: Reads one word.
        choices: The words that are taken; None takes all that `read` takes.
        const: The value of an option that is given without one; None refuses that.
        action, nargs: As argparse has them.
        group: Heading in the help under which this option and those after it stand.
        is_exclusive: Excludes the other options of its group that are exclusive.
        is_common: Every verb has it.
    """

    help: str
    name: str | None = None
    metavar: str | tuple[str, ...] | None = None
    read: Callable[[str], Any] = str
    choices: tuple[str, ...] | None = None
    const: Any = None
    action: Literal["store", "store_true", "append", "extend"] = "store"
    nargs: int | str | None = None
    group: str | None = None
    is_exclusive: bool = False
    is_common: bool = False


def option(
    meaning: str,
    metavar: str | tuple[str, ...] | None = None,
    read: Callable[[str], Any] = str,
    default: Any = None,
    *,
    name: str | None = None,
    choices: tuple[str, ...] | None = None,
    const: Any = None,
    group: str | None = None,
    is_exclusive: bool = False,
) -> Any:
    """Return the field of an option with a value; a default of MISSING requires it. See Option."""
    nargs = len(metavar) if isinstance(metavar, tuple) else None if const is None else "?"
    is_value = all(default is not nothing for nothing in (None, MISSING, False, ()))
    shown = f"default: {_shown(default)}" if is_value and "default: " not in meaning else ""
    text = "; ".join(filter(None, (meaning, shown)))
    return _field(
        default,
        Option(
            help=text,
            name=name,
            metavar=metavar,
            read=read,
            choices=choices,
            const=const,
            nargs=nargs,
            group=group,
            is_exclusive=is_exclusive,
        ),
    )


def flag(meaning: str, *, name: str | None = None, group: str | None = None, is_exclusive: bool = False) -> Any:
    """Return the field of an option without a value."""
    declared = Option(help=meaning, name=name, action="store_true", group=group, is_exclusive=is_exclusive)
    return _field(False, declared)


def repeated(
    meaning: str, metavar: str, read: Callable[[str], Any], *, name: str | None = None, group: str | None = None
) -> Any:
    """Return the field of an option that may be given several times: a tuple of all its values."""
    text = f"{meaning}; may be repeated"
    return _field((), Option(help=text, name=name, metavar=metavar, read=read, action="append", group=group))


def several(meaning: str, metavar: str, read: Callable[[str], Any], *, name: str | None = None) -> Any:
    """Return the field of an option that takes one value or more: a tuple of all its values."""
    return _field((), Option(help=meaning, name=name, metavar=metavar, read=read, action="extend", nargs="+"))


def argument(
    meaning: str,
    metavar: str,
    read: Callable[[str], Any] = path,
    default: Any = MISSING,
    *,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """Return the field of a positional argument, which may be left out if it has a default."""
    text = meaning or f"default: {default}"
    nargs = None if default is MISSING else "?"
    return _field(default, Option(help=text, name="", metavar=metavar, read=read, choices=choices, nargs=nargs))


def _field(default: Any, declared: Option) -> Any:
    if declared.read is Path:
        declared = dataclasses.replace(declared, read=path)
    return field(default=default, metadata={"option": declared})


@dataclass(frozen=True, kw_only=True)
class VerbArguments:
    """What every verb takes; the dataclasses of verbs extend it."""

    quiet: bool = _field(False, Option(help="say nothing on stderr but errors", action="store_true", is_common=True))


def overrides() -> Any:
    """Return the field of --set, which changes settings of a job."""
    text = "put a setting over the file's, as in stage.ar.lr=1e-4"
    return repeated(text, "KEY=VALUE", assignment, name="--set")


def loras(meaning: str = "put this LoRA beside the weights, its scale multiplied by SCALE") -> Any:
    """Return the field of --lora: pairs of a file and a scale."""
    return repeated(meaning, "FILE[:SCALE]", lora, name="--lora")


def download() -> Any:
    """Return the field of --download, for verbs that take a model by its name on the Hub."""
    return flag("fetch a model of the Hub (owner/name) that is not here, without asking")


def no_verify() -> Any:
    """Return the field of --no-verify."""
    return flag("load files that are not those that sampan wrote, and do not hash them")


def seed(meaning: str, default: int | None = 0) -> Any:
    """Return the field of --seed."""
    return option(meaning, "S", whole(0, MAX_SEED), default)


def device_option(default: str | None = "auto", *, otherwise: str = "auto", group: str | None = None) -> Any:
    """Return the field of --device; `otherwise` says what is taken where None is the default."""
    return option(f"{', '.join(DEVICES)}; default: {default or otherwise}", "D", device, default, group=group)


def threads_option() -> Any:
    """Return the field of --threads."""
    return option(
        "CPU threads; default: as many as the model's size and other programs leave use for", "N", whole(1, 1024)
    )


def dtype_option(default: str | None = "auto", *, otherwise: str = "auto", choices: tuple[str, ...] = DTYPES) -> Any:
    """Return the field of --dtype; `otherwise` says what is taken where None is the default."""
    return option(f"%(choices)s; default: {default or otherwise}", "T", default=default, choices=choices)


def options_of(arguments: type) -> list[tuple[str, Any, Option]]:
    """Return name, default (MISSING where one must be given) and declaration of every field of a verb's arguments.

    Those that all verbs have stand last.
    """
    common = {found.name for found in dataclasses.fields(VerbArguments)}
    fields = sorted(dataclasses.fields(arguments), key=lambda found: found.name in common)
    return [(found.name, found.default, found.metadata["option"]) for found in fields]


def _shown(default: Any) -> str:
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return f"{default:g}" if isinstance(default, float) else str(default)


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


def served_name(word: str) -> str:
    """Read a name by which clients ask for a model."""
    if not re.fullmatch(r"[!-~]{1,200}", word):
        raise ArgumentTypeError(f"`{word}` is not a name: up to 200 visible ASCII characters, no spaces")
    return word


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
    if problem := address_problem(word):
        raise ArgumentTypeError(f"`{word}` {problem}")
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


def assignment(word: str) -> str:
    """Read KEY=VALUE; what it sets is for the job to check."""
    if not word.partition("=")[1]:
        raise ArgumentTypeError(f"`{word}` is not KEY=VALUE, as in stage.ar.lr=1e-4")
    return word
