"""The options of `sampan bench`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sampan.bench.backends import MODES, PARTS
from sampan.options import (
    VerbArguments,
    argument,
    device_option,
    dtype_option,
    flag,
    number,
    option,
    overrides,
    seed,
    share,
    whole,
    words,
)

ROUNDS = 9
BUDGET_S = 600.0
LOCKSTEP_STEPS, LOCKSTEP_TOLERANCE = 3, 1e-3


@dataclass(frozen=True, kw_only=True)
class BenchArguments(VerbArguments):
    """The options of `sampan bench`."""

    examples: ClassVar = (
        "sampan bench --frameworks torch,mindspore --html bench.html",
        "sampan bench job.toml --modes eager --parts decoder",
        "sampan bench --kit",
        "sampan bench --diverge torch mindspore --steps 5",
    )
    job: Path | None = argument("measure this job's model and micro-batches; default: built in", "JOB", default=None)
    frameworks: tuple[str, ...] | None = option("separated by commas; default: all that are installed", "LIST", words)
    modes: tuple[str, ...] | None = option(f"of {','.join(MODES)}; default: both", "LIST", words)
    parts: tuple[str, ...] | None = option(f"of {','.join(PARTS)}; default: both", "LIST", words)
    rounds: int | None = option(f"rounds that count; default: {ROUNDS}", "N", whole(1))
    seed: int = seed("of weights and batches")
    overrides: tuple[str, ...] = overrides()
    device: str | None = device_option(None, group="where it is measured; a job says it too")
    dtype: str | None = dtype_option(None)
    threads: int | None = option("CPU threads of every side; default: one for each core", "N", whole(1))
    kit: bool = flag(
        "time one block of each part with random weights",
        group="single blocks of the released size, for a row from your device",
    )
    tokens: int | None = option("default: those of a picture of 1024 px", "N", whole(1))
    budget: float | None = option(f"seconds in all; default: {BUDGET_S:g}", "S", number(1))
    diverge: tuple[str, str] | None = option(
        "run two in lockstep, each FRAMEWORK or FRAMEWORK:MODE, and name the first operation that differs",
        ("A", "B"),
        group="where two frameworks part",
    )
    steps: int | None = option(f"how many; default: {LOCKSTEP_STEPS}", "N", whole(1))
    tolerance: float | None = option(f"of a tensor's largest value; default: {LOCKSTEP_TOLERANCE:g}", "T", share)
    json: Path | None = option("default: a new file in results/", "FILE", Path, group="what is written")
    html: Path | None = option("also write a page with bars", "FILE", Path)
