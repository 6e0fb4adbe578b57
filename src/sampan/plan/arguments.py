"""The options of `sampan plan`."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from sampan.options import VerbArguments, argument, flag, number, option, overrides, repeated, several, words

MAX_CHIPS = 65536
SORTS = ("money", "time", "energy", "carbon")


def chip_counts(word: str) -> tuple[int, int]:
    """Read N or MIN..MAX, both ends within."""
    ends = re.fullmatch(r"([+-]?\d{1,9})(?:\.\.([+-]?\d{1,9}))?", word, re.ASCII)
    if not ends:
        raise ArgumentTypeError(f"`{word}` is not a number of chips or MIN..MAX, as in 8 or 8..64")
    low = int(ends[1])
    high = low if ends[2] is None else int(ends[2])
    for end in (low, high):
        if not 1 <= end <= MAX_CHIPS:
            raise ArgumentTypeError(f"a number of chips is from 1 to {MAX_CHIPS}, got {end}")
    if high < low:
        raise ArgumentTypeError(f"`{word}` runs downward; did you mean {high}..{low}?")
    return low, high


def above_zero(word: str) -> float:
    """Read a finite number above 0."""
    amount = number(0)(word)
    if not amount:
        raise ArgumentTypeError(f"must be more than 0, got {word}")
    return amount


def owned_chips(word: str) -> tuple[str, int, str]:
    """Read CHIP=N@SITE."""
    parts = re.fullmatch(r"([^=@]+)=(\d{1,9})@([^=@]+)", word, re.ASCII)
    if not parts or not 1 <= int(parts[2]) <= MAX_CHIPS:
        raise ArgumentTypeError(f"`{word}` is not CHIP=N@SITE with N from 1 to {MAX_CHIPS}, as in h100_sxm=8@sg")
    return parts[1].strip(), int(parts[2]), parts[3].strip()


@dataclass(frozen=True, kw_only=True)
class PlanArguments(VerbArguments):
    """The options of `sampan plan`."""

    examples: ClassVar = (
        "sampan plan job.toml --html plan.html",
        "sampan plan job.toml --chips h100_sxm,ascend_910b2 --count 8..64 --sites my_johor,sg --deadline 7",
        "sampan plan job.toml --owned h20=16@cn_beijing --measured results/*.json",
        "sampan plan --validate runs.csv",
        "sampan plan --compare ascend_910b2 a100_80",
    )
    job: Path | None = argument("job file; `sampan init` writes one", "JOB", default=None)
    overrides: tuple[str, ...] = overrides()
    chips: tuple[str, ...] | None = option(
        "separated by commas; default: all of which enough is known", "LIST", words,
        group="what is compared; a job's [plan] says it too",
    )  # fmt: skip
    count: tuple[int, int] | None = option(
        "chips, or MIN..MAX for powers of two and three times these between; default: powers of two up to 64 "
        "that are worth it",
        "N",
        chip_counts,
    )
    sites: tuple[str, ...] | None = option("separated by commas", "LIST", words)
    frameworks: tuple[str, ...] | None = option("separated by commas; default: the job's", "LIST", words)
    stages: tuple[str, ...] | None = option("of the job's and preparation; default: all", "LIST", words)
    deadline: float | None = option("rows that take longer come last", "DAYS", above_zero, group="what matters")
    budget: float | None = option("rows that cost more come last", "USD", above_zero)
    owned: tuple[tuple[str, int, str], ...] = repeated(
        "chips that are there already cost their electricity", "CHIP=N@SITE", owned_chips
    )
    measured: tuple[Path, ...] = several(
        "results of `sampan bench` or run folders of `sampan train` on your own chips: predictions there move toward them "
        "and get surer",
        "FILE|RUN",
        Path,
    )
    all: bool = flag("also plan layouts that `sampan train` cannot run; a column says which those are")
    sort: Literal["money", "time", "energy", "carbon"] | None = option("%(choices)s; default: money", choices=SORTS)
    hide_restricted: bool = flag("leave out rows that a rule restricts, for the job's [actor]")
    validate: Path | None = option(
        "predict the published runs of a CSV file, and say how wrong it is", "RUNS", Path, group="instead of a job"
    )
    compare: tuple[str, str] | None = option("two chips, by what was measured and predicted", ("A", "B"))
    framework_a: str | None = option("of the first chip, for --compare", "F")
    framework_b: str | None = option("of the second chip, for --compare", "F")
    model: str | None = option("a model of the catalogue, for --compare; default: several", "M")
    json: Path | None = option("every number, with its sources", "FILE", Path, group="what is written")
    html: Path | None = option("a page with drawings", "FILE", Path)
