"""What each verb does with its parsed arguments: one call into the program, and its result on stdout.

Whatever loads numpy or a framework is imported here, inside the verb, so that help and wrong usage answer at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sampan.job import MAX_SEED


def init(arguments: argparse.Namespace) -> None:
    """Write a job file; its path on stdout."""
    from sampan.init import write

    _put(write(arguments.path, arguments.preset, arguments.force))


def doctor(arguments: argparse.Namespace) -> None:
    """Report on this machine, on stdout."""
    from sampan.doctor import report, show

    _print_report(report(arguments.model), show, arguments.json)


def data_emoji(arguments: argparse.Namespace) -> None:
    """Write a picture set; its folder on stdout."""
    from sampan.progress import bars
    from sampan.synthetic.emoji import write

    console = _console()
    with bars(console) as progress:
        summary = write(
            arguments.directory,
            count=arguments.count,
            size_px=arguments.size,
            languages=arguments.languages,
            edits=arguments.edits,
            font=arguments.font,
            seed=arguments.seed,
            progress=lambda done, total: progress("pictures", done, total),
        )
    state = "written" if summary.written else "there already"
    console.print(f"{summary.num_pictures} pictures of {summary.num_emoji} emoji, {summary.num_rows} rows, {state}")
    if summary.num_left_out:
        console.print(f"{summary.num_left_out} emoji are left out: the font has no picture of them")
    _put(arguments.directory)


def data_signs(arguments: argparse.Namespace) -> None:
    """Write a set of signs; its folder on stdout."""
    from sampan.progress import bars
    from sampan.synthetic.signs import SignFilter, write

    console = _console()
    with bars(console) as progress:
        summary = write(
            arguments.directory,
            count=arguments.count,
            size_px=arguments.size,
            edits=arguments.edits,
            split=arguments.split,
            seed=arguments.seed,
            choice=SignFilter(
                arguments.layouts, arguments.fonts, arguments.letters, arguments.lines, arguments.plates, arguments.inks
            ),
            progress=lambda done, total: progress("signs", done, total),
        )
    state = "written" if summary.written else "there already"
    console.print(f"{summary.num_pictures} pictures of {summary.num_signs} signs, {summary.num_rows} rows, {state}")
    _put(arguments.directory)


def data_pairs(arguments: argparse.Namespace) -> None:
    """Write pictures of an emoji over a word; their folder on stdout."""
    from sampan.progress import bars
    from sampan.synthetic.pairs import write

    console = _console()
    with bars(console) as progress:
        summary = write(
            arguments.directory,
            count=arguments.count,
            num_emoji=arguments.emoji,
            size_px=arguments.size,
            split=arguments.split,
            seed=arguments.seed,
            progress=lambda done, total: progress("pictures", done, total),
        )
    console.print(f"{summary.num_pictures} pictures, {'written' if summary.written else 'there already'}")
    _put(arguments.directory)


def data_prepare(arguments: argparse.Namespace) -> None:
    """Examine and encode a job's pictures; the folder of what was found out on stdout."""
    from sampan import frameworks
    from sampan.job import read

    job = read(arguments.job, arguments.overrides)
    frameworks.use(job.place.framework)
    from sampan.train.run_state import prepare

    _put(prepare(job, console=_console()))


def train(arguments: argparse.Namespace) -> None:
    """Train as the job says; the finished model's folder on stdout."""
    from sampan import frameworks
    from sampan.checkpoint.run_metadata import read_record
    from sampan.job import read

    path: Path | None = arguments.job
    run_folder = arguments.resume if isinstance(arguments.resume, Path) else None
    if path is None and run_folder is not None and run_folder.is_file():
        path, run_folder = run_folder, None  # `train --resume JOB`: what follows the option is the job
    if path is None:
        raise arguments.verb.fail("the following arguments are required: JOB")
    overrides = list(arguments.overrides)
    if arguments.framework:
        overrides.append(f"place.framework={arguments.framework}")
    job = read(path, overrides)
    if run_folder is not None:
        read_record(run_folder)  # going on needs something to go on with
        job = dataclasses.replace(job, out=run_folder)
    frameworks.use(job.place.framework)  # before anything is imported that computes
    from sampan.train.loop import train  # after the job is read: what is wrong there is said at once

    _put(train(job, resume=arguments.resume is not False, console=_console()))


def generate(arguments: argparse.Namespace) -> None:
    """Paint; the pictures' file names, or with --json a record each, on stdout."""
    from sampan import frameworks

    if arguments.framework:
        frameworks.use(arguments.framework)  # before anything is imported that computes
    from sampan.pipeline.pipeline import generate
    from sampan.pipeline.request import ImageRequest

    width_px, height_px = arguments.size or (None, None)
    request = ImageRequest(
        prompt=arguments.prompt,
        references=tuple(arguments.references),
        width_px=width_px,
        height_px=height_px,
        count=arguments.count,
        # a fresh one each time, so that a second call does not write over the first one's picture
        seed=secrets.randbelow(MAX_SEED + 1) if arguments.seed is None else arguments.seed,
        num_inference_steps=arguments.steps,
        guidance_scale=arguments.guidance,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        top_k=arguments.top_k,
        inject=arguments.inject,
        prompt_metadata=not arguments.no_prompt_metadata,
    )
    pictures = generate(
        request,
        model=arguments.model,
        device=arguments.device,
        dtype=arguments.dtype,
        offload=arguments.offload,
        compiled=arguments.compile,
        out=arguments.out,
        console=_console(),
        loras=arguments.loras,
    )
    if arguments.json:
        _put(json.dumps({"pictures": pictures}, indent=2))
    else:
        for picture in pictures:
            _put(picture["file"])


def serve(arguments: argparse.Namespace) -> None:
    """Serve until told to end; or change keys, with what is to be read on stdout."""
    from sampan.cli import serve_options
    from sampan.errors import RequestError

    if arguments.add_key or arguments.remove_key or arguments.list_keys:
        from sampan.serve import keys

        keys.change(arguments.data, add=arguments.add_key, remove=arguments.remove_key, put=_put)
        return
    from sampan import frameworks

    if arguments.framework:
        frameworks.use(arguments.framework)  # before anything is imported that computes
    try:
        from sampan.serve import verb
    except ModuleNotFoundError as error:
        missing = f"the package `{error.name}` is missing"
        raise RequestError("the server cannot start", missing, "pip install 'sampan[serve]'") from error
    pipeline = verb.open_pipeline(
        arguments.model, device=arguments.device, dtype=arguments.dtype, loras=arguments.loras
    )
    verb.serve(pipeline, serve_options.settings(arguments), _console())


def checkpoint_export(arguments: argparse.Namespace) -> None:
    """Export a run; the written folder on stdout."""
    from sampan.checkpoint.export import export

    _put(export(arguments.run_folder, arguments.directory, arguments.dtype))


def checkpoint_merge(arguments: argparse.Namespace) -> None:
    """Merge LoRAs into a model; the written folder on stdout."""
    from sampan.checkpoint.merge import merge
    from sampan.progress import bars

    with bars(_console()) as progress:
        folder = merge(
            arguments.model,
            arguments.directory,
            arguments.loras,
            subtract=arguments.subtract,
            dtype=arguments.dtype,
            progress=lambda done, total: progress("writing weights", done, total),
        )
    _put(folder)


def checkpoint_inspect(arguments: argparse.Namespace) -> None:
    """Report on a model folder, on stdout."""
    from sampan.checkpoint.inspect import inspect, show

    _print_report(inspect(arguments.directory), show, arguments.json)


def checkpoint_verify(arguments: argparse.Namespace) -> None:
    """Check a run's files, and take some of its steps again; the report on stdout, an error where something differs."""
    from sampan import frameworks
    from sampan.checkpoint.run_metadata import read_record

    record = read_record(arguments.run_folder)
    frameworks.use(arguments.framework or record["framework"])
    from sampan.train.verify import refuse, show, verify

    report = verify(
        arguments.run_folder,
        replay=arguments.replay,
        seed=secrets.randbelow(MAX_SEED + 1) if arguments.seed is None else arguments.seed,
        device=arguments.device,
        dtype=arguments.dtype,
        tolerances=dict(arguments.tolerances),
        console=_console(),
    )
    _print_report(report, show, arguments.json)
    refuse(report)


def bench(arguments: argparse.Namespace) -> None:
    """Measure; the names of the files with what was found on stdout."""
    from sampan.job import read

    job = read(arguments.job, arguments.overrides) if arguments.job else None
    from sampan.bench.verb import from_arguments, measure

    for path in measure(job, from_arguments(arguments), _console()):
        _put(path)


def evaluate(arguments: argparse.Namespace) -> None:
    """Measure a model's pictures; the names of the files with what was found on stdout."""
    from sampan import frameworks

    if arguments.framework:
        frameworks.use(arguments.framework)  # before anything is imported that computes
    from sampan.evaluate.verb import evaluate, from_arguments

    evaluate(from_arguments(arguments), _console())
    for path in filter(None, (arguments.json, arguments.html)):
        _put(path)


def plan(arguments: argparse.Namespace) -> None:
    """Plan a job, or answer another question about chips; the report on stdout, files where they were asked for."""
    from sampan import frameworks
    from sampan.plan import verb

    frameworks.use_shapes()  # it computes nothing: models are counted on shapes
    options = verb.from_arguments(arguments)
    if options.validate is None and options.compare is None:
        from sampan.job import read

        if arguments.job is None:
            raise arguments.verb.fail("the following arguments are required: JOB")
        verb.planned(read(arguments.job, arguments.overrides), options, _console(data=True), name=str(arguments.job))
    else:
        verb.answered(options, _put)


def screen(arguments: argparse.Namespace) -> None:
    """Say which rules bear on a question; the answer on stdout, files where they were asked for."""
    from sampan.cli import screen_options
    from sampan.screen import verb

    verb.screened(arguments, screen_options.facts(arguments), _put)


def _put(data: object) -> None:
    sys.stdout.write(f"{data}\n")


def _console(*, data: bool = False) -> Any:
    from rich.console import Console

    return Console(stderr=not data)


def _print_report(report: dict[str, Any], show: Callable[[dict[str, Any], Any], None], as_json: bool) -> None:
    if as_json:
        _put(json.dumps(report, indent=2))
    else:
        show(report, _console(data=True))
