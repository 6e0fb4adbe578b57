"""The options of `sampan plan`."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

from sampan.cli import values

MAX_CHIPS = 65536
SORTS = ("money", "time", "energy", "carbon")


def add(verb: Any) -> None:
    """Add them to the verb's parser. Which of them go together is for the verb to say."""
    verb.add_argument("job", metavar="JOB", nargs="?", type=Path, help="job file; `sampan init` writes one")
    compared = verb.add_argument_group("what is compared; a job's [plan] says it too")
    compared.add_argument(
        "--chips", metavar="LIST", type=values.words, help="separated by commas; default: all of which enough is known"
    )
    compared.add_argument(
        "--count",
        metavar="N",
        type=counts,
        help="chips, or MIN..MAX for powers of two and three times these between; default: powers of two up to 64 "
        "that are worth it",
    )
    compared.add_argument("--sites", metavar="LIST", type=values.words, help="separated by commas")
    compared.add_argument(
        "--frameworks", metavar="LIST", type=values.words, help="separated by commas; default: the job's"
    )
    compared.add_argument(
        "--stages", metavar="LIST", type=values.words, help="of the job's and preparation; default: all"
    )
    limits = verb.add_argument_group("what matters")
    limits.add_argument("--deadline", metavar="DAYS", type=above_zero, help="rows that take longer come last")
    limits.add_argument("--budget", metavar="USD", type=above_zero, help="rows that cost more come last")
    limits.add_argument(
        "--owned",
        metavar="CHIP=N@SITE",
        action="append",
        type=owned,
        default=[],
        help="chips that are there already cost their electricity; may be repeated",
    )
    limits.add_argument(
        "--measured",
        metavar="FILE",
        nargs="+",
        action="extend",
        type=Path,
        default=[],
        help="results of `sampan bench` on your own chips: predictions there move toward them and get surer",
    )
    limits.add_argument("--sort", choices=SORTS, help="%(choices)s; default: money")
    limits.add_argument(
        "--hide-restricted", action="store_true", help="leave out rows that a rule restricts, for the job's [actor]"
    )
    other = verb.add_argument_group("instead of a job")
    other.add_argument(
        "--validate",
        metavar="RUNS",
        type=Path,
        help="predict the published runs of a CSV file, and say how wrong it is",
    )
    other.add_argument("--compare", metavar=("A", "B"), nargs=2, help="two chips, by what was measured and predicted")
    other.add_argument("--framework-a", metavar="F", help="of the first chip, for --compare")
    other.add_argument("--framework-b", metavar="F", help="of the second chip, for --compare")
    other.add_argument("--model", metavar="M", help="a model of the catalogue, for --compare; default: several")
    written = verb.add_argument_group("what is written")
    written.add_argument("--json", metavar="FILE", type=Path, help="every number, with its sources")
    written.add_argument("--html", metavar="FILE", type=Path, help="a page with drawings")


def counts(word: str) -> tuple[int, int]:
    """Read N or MIN..MAX, both ends within."""
    found = re.fullmatch(r"([+-]?\d{1,9})(?:\.\.([+-]?\d{1,9}))?", word, re.ASCII)
    if not found:
        raise ArgumentTypeError(f"`{word}` is not a number of chips or MIN..MAX, as in 8 or 8..64")
    low = int(found[1])
    high = low if found[2] is None else int(found[2])
    for end in (low, high):
        if not 1 <= end <= MAX_CHIPS:
            raise ArgumentTypeError(f"a number of chips is from 1 to {MAX_CHIPS}, got {end}")
    if high < low:
        raise ArgumentTypeError(f"`{word}` runs downward; did you mean {high}..{low}?")
    return low, high


def above_zero(word: str) -> float:
    """Read a finite number above 0."""
    number = values.number(0)(word)
    if not number:
        raise ArgumentTypeError(f"must be more than 0, got {word}")
    return number


def owned(word: str) -> tuple[str, int, str]:
    """Read CHIP=N@SITE."""
    found = re.fullmatch(r"([^=@]+)=(\d{1,9})@([^=@]+)", word, re.ASCII)
    if not found or not 1 <= int(found[2]) <= MAX_CHIPS:
        raise ArgumentTypeError(f"`{word}` is not CHIP=N@SITE with N from 1 to {MAX_CHIPS}, as in h100_sxm=8@sg")
    return found[1].strip(), int(found[2]), found[3].strip()
