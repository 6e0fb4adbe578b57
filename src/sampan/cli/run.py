"""What each verb does with its parsed arguments: one call into the program, and its result on stdout.

Whatever loads numpy or a framework is imported here, inside the verb, so that help and wrong usage answer at once.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sampan import extras
from sampan.cli import output
from sampan.errors import RequestError, UsageError

if TYPE_CHECKING:  # reading them would load what one verb takes for all others, and a model's mathematics
    from sampan.bench.arguments import BenchArguments
    from sampan.cli import arguments
    from sampan.evaluate.arguments import EvalArguments
    from sampan.launch.arguments import LaunchArguments
    from sampan.pipeline.pipeline import Pipeline
    from sampan.plan.arguments import PlanArguments
    from sampan.screen.arguments import ScreenArguments
    from sampan.serve.arguments import ServeArguments

_SWITCH = "--framework {}"  # of the verbs that have it; what errors suggest


def init(options: arguments.InitArguments) -> None:
    """Write a job file; its path on stdout."""
    from sampan import frameworks
    from sampan.init import write

    path = write(options.path, options.preset, options.force)
    if frameworks.default() is None:
        install = " or ".join(frameworks.FRAMEWORKS.values())
        note = f"note: no framework is installed, and the file names the usual one; to train: {install}"
        output.console(options).print(note, markup=False, highlight=False, soft_wrap=True)
    output.put(path)


def doctor(options: arguments.DoctorArguments) -> None:
    """Report on this machine, on stdout."""
    from sampan.doctor import report, show

    if options.model is not None:
        output.fetch(options.model, options)
    output.print_report(report(options.model), show, options.json)


def data_emoji(options: arguments.EmojiArguments) -> None:
    """Write a picture set; its folder on stdout."""
    from sampan.synthetic.emoji import write

    with output.bar("pictures", options) as (console, progress):
        summary = write(
            options.directory,
            count=options.count,
            size_px=options.size,
            languages=options.languages,
            edits=options.edits,
            font=options.font,
            seed=options.seed,
            progress=progress,
        )
    counts = summary.counts
    console.print(
        f"{counts['num_pictures']} pictures of {counts['num_emoji']} emoji, {counts['num_rows']} rows, "
        f"{output.written(summary)}"
    )
    if counts["num_left_out"]:
        console.print(f"{counts['num_left_out']} emoji are left out: the font has no picture of them")
    output.put(options.directory)


def data_signs(options: arguments.SignsArguments) -> None:
    """Write a set of signs; its folder on stdout."""
    from sampan.synthetic.signs import SignFilter, write

    choice = SignFilter(options.layouts, options.fonts, options.letters, options.lines, options.plates, options.inks)
    with output.bar("signs", options) as (console, progress):
        summary = write(
            options.directory,
            count=options.count,
            size_px=options.size,
            edits=options.edits,
            split=options.split,
            seed=options.seed,
            choice=choice,
            progress=progress,
        )
    counts = summary.counts
    console.print(
        f"{counts['num_pictures']} pictures of {counts['num_signs']} signs, {counts['num_rows']} rows, "
        f"{output.written(summary)}"
    )
    output.put(options.directory)


def data_pairs(options: arguments.PairsArguments) -> None:
    """Write pictures of an emoji over a word; their folder on stdout."""
    from sampan.synthetic.pairs import write

    with output.bar("pictures", options) as (console, progress):
        summary = write(
            options.directory,
            count=options.count,
            num_emoji=options.emoji,
            size_px=options.size,
            split=options.split,
            seed=options.seed,
            progress=progress,
        )
    console.print(f"{summary.counts['num_pictures']} pictures, {output.written(summary)}")
    output.put(options.directory)


def data_prepare(options: arguments.PrepareArguments) -> None:
    """Examine and encode a job's pictures; the folder of what was found out on stdout."""
    from sampan import frameworks
    from sampan.job import read

    job = read(options.job, options.overrides)
    frameworks.use(job.place.framework, switch="--set place.framework={}")
    from sampan.train.run_state import prepare

    output.put(prepare(job, console=output.console(options)))


def train(options: arguments.TrainArguments) -> None:
    """Train as the job says; the finished model's folder on stdout."""
    from sampan import frameworks
    from sampan.checkpoint.run_metadata import read_record
    from sampan.job import read

    path: Path | None = options.job
    run_folder = options.resume if isinstance(options.resume, Path) else None
    if path is None and run_folder is not None and run_folder.is_file():
        path, run_folder = run_folder, None  # `train --resume JOB`: what follows the option is the job
    if path is None:
        raise UsageError("the following arguments are required: JOB")
    given = {"--ranks": options.ranks, "--nodes": options.nodes, "--chip": options.chip, "--json": options.json or None}
    alone = [name for name, value in given.items() if value is not None]
    if alone and not options.dry_run:
        raise UsageError(f"{alone[0]} is of --dry-run", (), "a run has the ranks that its launcher starts")
    overrides = list(options.overrides)
    if options.framework:
        overrides.append(f"place.framework={options.framework}")
    job = read(path, overrides)
    if run_folder is not None:
        read_record(run_folder)  # going on needs something to go on with
        job = dataclasses.replace(job, out=run_folder)
    frameworks.use(job.place.framework, switch=_SWITCH)  # before anything is imported that computes
    if options.dry_run:
        from sampan.train.dry_run import dry_run

        dry_run(
            job,
            ranks=options.ranks or 1,
            nodes=options.nodes or 1,
            chip=options.chip,
            resume=options.resume is not False,
            console=output.console(options),
            put=lambda report, show: output.print_report(report, show, options.json),
        )
        return
    from sampan.train.loop import train  # after the job is read: what is wrong there is said at once

    folder = train(job, resume=options.resume is not False, console=output.console(options))
    if folder is not None:  # of several ranks one says it
        output.put(folder)


def generate(options: arguments.GenerateArguments) -> None:
    """Paint; the pictures' file names, or with --json a record each, on stdout."""
    from sampan import frameworks, host

    if not options.list_examples and options.prompt is None and options.prompts is None:
        raise UsageError("the following arguments are required: PROMPT")
    if options.prompt is not None and options.prompts is not None:
        raise UsageError("PROMPT and --prompts exclude each other")
    host.wait_passively()  # before a framework is imported
    if options.framework:
        frameworks.use(options.framework, switch=_SWITCH)  # before anything is imported that computes
    output.fetch(options.model, options)
    if options.list_examples:
        from sampan.cli.prompts import print_examples

        print_examples(options)
        return
    from sampan.pipeline.options import PipelineOptions
    from sampan.pipeline.request import ImageRequest

    width_px, height_px = options.size or (None, None)
    request = ImageRequest(
        prompt=options.prompt or "",
        references=options.references,
        width_px=width_px,
        height_px=height_px,
        count=options.count,
        seed=output.seed(options.seed),
        num_inference_steps=options.steps,
        guidance_scale=options.guidance,
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        inject=options.inject,
        prompt_metadata=not options.no_prompt_metadata,
    )
    pipeline = PipelineOptions(
        model=options.model,
        device=options.device,
        dtype=options.dtype,
        offload=options.offload,
        loras=options.loras,
        compiled=options.compile,
        verified=not options.no_verify,
        threads=options.threads,
    )
    if options.prompts is not None:
        from sampan.cli.prompts import generate_all

        generate_all(options, request, pipeline)
        return
    from sampan.pipeline.pipeline import generate

    pictures = generate(request, pipeline, out=options.out, console=output.console(options))
    if options.json:
        output.put(json.dumps({"pictures": pictures}, indent=2))
    else:
        for picture in pictures:
            output.put(picture["file"])


def serve(options: ServeArguments) -> None:
    """Serve until told to end; or change keys, with what is to be read on stdout."""
    if options.add_key or options.remove_key or options.list_keys:
        from sampan.serve import keys

        keys.change(options.data, add=options.add_key, remove=options.remove_key, put=output.put)
        return
    from sampan import frameworks, host

    host.wait_passively()  # before a framework is imported
    if options.framework:
        frameworks.use(options.framework, switch=_SWITCH)  # before anything is imported that computes
    extras.require("serve", *extras.EXTRAS["serve"], failed="the server cannot start", error=RequestError)
    from sampan.serve import verb

    def load() -> Pipeline:
        from sampan.pipeline.options import PipelineOptions
        from sampan.pipeline.pipeline import open_pipeline  # loads what computes

        output.fetch(options.model, options)
        how = PipelineOptions(
            model=options.model,
            device=options.device,
            dtype=options.dtype,
            loras=options.loras,
            verified=not options.no_verify,
            threads=options.threads,
        )
        return open_pipeline(how, together=options.batch)

    verb.serve(load, options.settings(), output.console(options))


def completion(options: arguments.CompletionArguments) -> None:
    """Print a shell's completion script on stdout."""
    from sampan.cli.completion import script
    from sampan.cli.verbs import GROUPS, VERBS

    about = GROUPS | {name: verb.summary for name, verb in VERBS.items()}
    about = {name: words.rstrip(".") for name, words in about.items()}
    sys.stdout.write(script(options.shell, {name: verb.arguments for name, verb in VERBS.items()}, about))


def checkpoint_export(options: arguments.ExportArguments) -> None:
    """Export a run; the written folder on stdout."""
    from sampan.checkpoint.export import export

    output.put(export(options.run_folder, options.directory, options.dtype, dict(options.steps)))


def checkpoint_merge(options: arguments.MergeArguments) -> None:
    """Merge LoRAs into a model; the written folder on stdout."""
    from sampan.checkpoint.merge import merge

    output.fetch(options.model, options)
    with output.bar("writing weights", options) as (console, progress):
        folder = merge(
            options.model,
            options.directory,
            options.loras,
            subtract=options.subtract,
            dtype=options.dtype,
            progress=progress,
            verified=not options.no_verify,
            say=lambda note: console.print(note, highlight=False, markup=False, soft_wrap=True),
        )
    output.put(folder)


def checkpoint_inspect(options: arguments.InspectArguments) -> None:
    """Report on a model folder, on stdout."""
    from sampan.checkpoint.inspect import inspect, show

    output.fetch(options.directory, options)
    output.print_report(inspect(options.directory), show, options.json)


def checkpoint_verify(options: arguments.VerifyArguments) -> None:
    """Check a run's files, and take some of its steps again; the report on stdout, an error where something differs."""
    from sampan import frameworks
    from sampan.checkpoint.run_metadata import read_record

    record = read_record(options.run_folder)
    frameworks.use(options.framework or record["framework"], switch=_SWITCH)
    from sampan.train.verify import refuse, show, verify

    report = verify(
        options.run_folder,
        replay=options.replay,
        seed=output.seed(options.seed),
        device=options.device,
        dtype=options.dtype,
        tolerances=dict(options.tolerances),
        console=output.console(options),
    )
    output.print_report(report, show, options.json)
    refuse(report)


def bench(options: BenchArguments) -> None:
    """Measure; the names of the files with what was found on stdout."""
    from sampan.job import read

    job = read(options.job, options.overrides) if options.job else None
    from sampan.bench.verb import measure

    for path in measure(job, options, output.console(options)):
        output.put(path)


def evaluate(options: EvalArguments) -> None:
    """Measure a model's pictures; the names of the files with what was found on stdout."""
    from sampan import frameworks, host

    host.wait_passively()  # before a framework is imported
    if options.framework:
        frameworks.use(options.framework, switch=_SWITCH)  # before anything is imported that computes
    if options.endpoint is None:
        output.fetch(options.model, options)
    from sampan.evaluate.verb import evaluate

    evaluate(options, output.console(options))
    for path in filter(None, (options.json, options.html)):
        output.put(path)


def plan(options: PlanArguments) -> None:
    """Plan a job, or answer another question about chips; the report on stdout, files where they were asked for."""
    from sampan import frameworks
    from sampan.plan import verb

    frameworks.use_shapes()  # it computes nothing: models are counted on shapes
    verb.check(options)
    if options.validate is None and options.compare is None:
        from sampan.compliance import column_for
        from sampan.job import read

        if options.job is None:
            raise UsageError("the following arguments are required: JOB")
        job = read(options.job, options.overrides)
        verb.plan_and_show(job, options, output.report_console(), name=str(options.job), column=column_for(job))
    else:
        verb.report_and_show(options, output.put)


def launch(options: LaunchArguments) -> None:
    """Write what launches a job elsewhere, and hand it over if asked; the files on stdout."""
    from sampan.launch import verb

    console = output.console(options)
    for path in verb.launch(options, lambda words: console.print(words, markup=False, highlight=False, soft_wrap=True)):
        output.put(path)


def screen(options: ScreenArguments) -> None:
    """Say which rules bear on a question; the answer on stdout, files where they were asked for."""
    from sampan.screen import verb

    verb.screen(options, options.facts(), output.put)
