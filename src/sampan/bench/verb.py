"""What `sampan bench` does with its options: one of three measurements, written as JSON and, where asked for, as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from sampan.bench import backends, device_probe, first_difference, report, shapes
from sampan.bench.arguments import BenchArguments
from sampan.bench.page import page
from sampan.bench.process import ComputeTarget
from sampan.bench.timing import race
from sampan.errors import RequestError
from sampan.files import write_text
from sampan.job import Job
from sampan.report import results

ROUNDS = 9


_ONLY_WITH = {"tokens": "kit", "budget": "kit", "steps": "diverge", "tolerance": "diverge"}
_NOT_WITH = {"rounds": ("kit", "diverge"), "frameworks": ("diverge",), "modes": ("diverge",)}


def measure(job: Job | None, options: BenchArguments, console: Any) -> list[Path]:
    """Measure, print the report on the console, and return the files that were written.

    Raises:
        RequestError: Options that do not go together, or unknown names.
        SampanError: What is measured cannot be run, or a side gives a wrong answer.
    """
    _check(job, options)
    parts = options.parts or backends.PARTS
    place = ComputeTarget(
        options.device or (job.place.device if job else "auto"),
        options.dtype or (job.place.dtype if job else "auto"),
        options.threads or (job.place.threads if job else None),
    )

    def say(words: str) -> None:
        console.print(words, markup=False, highlight=False, soft_wrap=True)

    if options.diverge:
        stem, record = "diverge", _diverge(job, options, parts, place, say)
    else:
        chosen, notes = backends.choose(options.frameworks, options.modes or backends.MODES)
        for note in notes:
            say(f"note: {note}")
        if options.kit:
            stem, record = "kit", device_probe.kit(
                chosen, parts, tokens=options.tokens, budget_s=options.budget or device_probe.BUDGET_S, place=place,
                seed=options.seed, say=say, notes=notes,
            )  # fmt: skip
        else:
            stem, record = "bench", race(
                chosen, parts, shapes.of_job(job) if job else shapes.BUILT_IN, rounds=options.rounds or ROUNDS,
                place=place, seed=options.seed, say=say, notes=notes,
            )  # fmt: skip
    if job:
        record["job"] = {"text": job.text, "overrides": list(job.overrides)}
    say("")
    for line in report.lines(record):
        say(line)
    written = [
        results.put(options.json, record)
        if options.json
        else results.add(f"{stem}_{device_probe.device_of(record)}", record)
    ]
    if options.kit:
        say("")
        say(device_probe.HAND_IN.format(path=written[0]))
    if options.html:
        options.html.parent.mkdir(parents=True, exist_ok=True)
        write_text(options.html, page(record))
        written.append(options.html)
    return written


def _diverge(
    job: Job | None, options: BenchArguments, parts: Sequence[str], place: ComputeTarget, say: Any
) -> dict[str, Any]:
    assert options.diverge, "it was asked for"
    first, second = (backends.parse(word) for word in options.diverge)
    if first == second:
        raise RequestError(
            f"--diverge: both sides are {first.label}", (), "name two frameworks, or two modes: torch torch:compiled"
        )
    return first_difference.diverge(
        (first, second), parts, shapes.of_job(job) if job else shapes.SMALL,
        steps=options.steps or first_difference.NUM_STEPS, tolerance=options.tolerance or first_difference.TOLERANCE,
        place=place, seed=options.seed, say=say,
    )  # fmt: skip


def _check(job: Job | None, options: BenchArguments) -> None:
    given = {field.name for field in fields(options) if getattr(options, field.name) not in (None, False)}
    if options.overrides and job is None:
        raise RequestError("--set changes a job, and none is given", (), "name a job file, or leave --set out")
    if options.kit and options.diverge:
        raise RequestError("--kit and --diverge are two measurements", (), "ask for one at a time")
    if options.kit and job:
        raise RequestError("--kit takes no job", "it measures blocks of the released size", "leave JOB out, or --kit")
    for name, needed in _ONLY_WITH.items():
        if name in given and needed not in given:
            raise RequestError(f"--{name} is for --{needed}", (), f"add --{needed}, or leave --{name} out")
    for name, others in _NOT_WITH.items():
        for other in others:
            if name in given and other in given:
                raise RequestError(f"--{name} is not for --{other}", (), f"leave --{name} out")
    backends.check_names("--parts", options.parts or (), backends.PARTS)
