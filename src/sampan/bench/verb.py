"""What `sampan bench` does with its options: one of three measurements, written as JSON and, where asked for, as HTML."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from sampan.bench import backends, device_probe, report, shapes
from sampan.bench.arguments import BUDGET_S, LOCKSTEP_STEPS, LOCKSTEP_TOLERANCE, ROUNDS, BenchArguments
from sampan.bench.first_difference import find_first_difference
from sampan.bench.page import page
from sampan.bench.process import ComputeTarget
from sampan.bench.timing import Say, time_steps
from sampan.errors import RequestError
from sampan.files import write_text
from sampan.job import Job
from sampan.report import results

_ONLY_WITH = {"tokens": "kit", "budget": "kit", "steps": "diverge", "tolerance": "diverge"}
_NOT_WITH = {"rounds": ("kit", "diverge"), "frameworks": ("diverge",), "modes": ("diverge",)}


def measure(job: Job | None, options: BenchArguments, console: Any) -> list[Path]:
    """Measure, print the report on the console, and return the files that were written.

    Raises:
        RequestError: Options that do not go together, or unknown names.
        SampanError: What is measured cannot be run, or a backend gives a wrong answer.
    """
    _check(job, options)

    def say(words: str) -> None:
        console.print(words, markup=False, highlight=False, soft_wrap=True)

    stem, record = _measure(job, options, say)
    if job:
        record["job"] = {"text": job.text, "overrides": list(job.overrides)}
    say("")
    for line in report.lines(record):
        say(line)
    path = options.json
    written = [results.put(path, record) if path else results.add(f"{stem}_{device_probe.device_slug(record)}", record)]
    if options.kit:
        say("")
        say(device_probe.HAND_IN.format(path=written[0]))
    if options.html:
        options.html.parent.mkdir(parents=True, exist_ok=True)
        write_text(options.html, page(record))
        written.append(options.html)
    return written


def _measure(job: Job | None, options: BenchArguments, say: Say) -> tuple[str, dict[str, Any]]:
    """Return the beginning of the record's file name, and the record."""
    parts = options.parts or backends.PARTS
    target = ComputeTarget(
        options.device or (job.place.device if job else "auto"),
        options.dtype or (job.place.dtype if job else "auto"),
        options.threads or (job.place.threads if job else None),
    )
    if options.diverge:
        first, second = (backends.parse_backend(word) for word in options.diverge)
        if first == second:
            hint = "name two frameworks, or two modes: torch torch:compiled"
            raise RequestError(f"--diverge: both sides are {first.label}", (), hint)
        return "diverge", find_first_difference(
            (first, second), parts, shapes.of_job(job) if job else shapes.SMALL, steps=options.steps or LOCKSTEP_STEPS,
            tolerance=options.tolerance or LOCKSTEP_TOLERANCE, target=target, seed=options.seed, say=say,
        )  # fmt: skip
    chosen, notes = backends.choose(options.frameworks, options.modes or backends.MODES)
    for note in notes:
        say(f"note: {note}")
    if options.kit:
        return "kit", device_probe.probe_device(
            chosen, parts, tokens=options.tokens, budget_s=options.budget or BUDGET_S, target=target,
            seed=options.seed, say=say, notes=notes,
        )  # fmt: skip
    return "bench", time_steps(
        chosen, parts, shapes.of_job(job) if job else shapes.BUILT_IN, rounds=options.rounds or ROUNDS,
        target=target, seed=options.seed, say=say, notes=notes,
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
