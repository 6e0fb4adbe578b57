"""`sampan eval`: a suite's questions painted, read and scored, with the upper bound and chance beside every number."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from sampan import files
from sampan.checkpoint import lora
from sampan.errors import RequestError, did_you_mean
from sampan.evaluate import cvtg, recover, suites
from sampan.evaluate.arguments import SUITES, EvalArguments
from sampan.evaluate.case import Suite
from sampan.evaluate.endpoint import EndpointGenerator
from sampan.evaluate.generators import ABLATIONS, ImageGenerator, ModelGenerator
from sampan.evaluate.measures import KEYS, measures, mismatched_cases
from sampan.evaluate.page import ReportImage, page
from sampan.evaluate.report import facts, tables
from sampan.evaluate.result_cache import ReadingCache, ResultCache
from sampan.evaluate.scorer import Scorer
from sampan.frameworks import device as dev
from sampan.host import usable_cores
from sampan.metrics import nearest
from sampan.metrics.ocr import Reading, find_reader
from sampan.pipeline.options import PipelineOptions
from sampan.pipeline.pipeline import open_pipeline
from sampan.progress import bars
from sampan.report import results
from sampan.synthetic.signs import SignFilter

KEY_VARIABLE = "OPENAI_API_KEY"


def evaluate(options: EvalArguments, console: Any) -> dict[str, Any]:
    """Measure, print the tables on the console, write the files that were asked for, and return the record.

    Raises:
        RequestError: Options that do not go together, or a server that does not answer.
        DeviceError: Words are to be read and Tesseract is not installed.
        SampanError: The model cannot be used.
    """
    _check(options)
    for path in filter(None, (options.json, options.html)):
        if not path.parent.is_dir():
            raise RequestError(f"cannot write `{path}`", f"there is no folder `{path.parent}`", "make it first")
        try:
            files.try_place(path.parent)
        except OSError as error:
            hint = "give a name in a folder that can be written, on a disk with room"
            raise RequestError(f"cannot write `{path}`", str(error), hint) from error
    reader = find_reader()  # every suite has words; said before anything is loaded
    if options.suite == "cvtg":  # what is wrong with its files is said before too
        cvtg.questions(options.data or Path(), options.count, options.seed)
    generator = _generator(options)
    for note in lora.notes(generator.pipeline.loras) if isinstance(generator, ModelGenerator) else ():
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    suite = questions(options, generator.size_px)
    main = [case for case in suite.cases if case.slice == suite.main]

    def tell(words: str) -> None:
        console.print(words, markup=False, highlight=False, soft_wrap=True)

    try:
        cache = ResultCache(options.keep, generator.name, generator.settings(), tell)
        readings = ReadingCache(options.keep, reader, tell)
        files.try_place(options.keep)
    except OSError as error:
        hint = "give --keep a folder that can be written, on a disk with room"
        raise RequestError(f"pictures cannot be kept in `{options.keep}`", str(error), hint) from error
    with bars(console) as progress:
        # before any batch, so that the memory is that of one picture at a time
        alone = generator.alone(main, progress) if isinstance(generator, ModelGenerator) else None
        painted = _paint(suite, generator, cache, progress, options.fresh)
        workers = usable_cores() or 1

        def read(images: list[Image.Image]) -> list[Reading]:
            return readings.read(images, workers, progress)

        record, shown = _score(suite, [image for image, _, _ in painted], read)
        record["seconds_per_picture"] = round(sum(seconds for _, seconds, _ in painted) / len(painted), 4)
        if isinstance(generator, ModelGenerator):
            assert alone is not None, "measured above"
            record["seconds_per_picture"] = alone["seconds"]["whole"]
            record["peak_memory_bytes"] = alone["peak_memory_bytes"]
            record["speed"] = {"alone": alone["seconds"]}
            if batches := generator.in_batches():
                record["speed"]["in_batches"] = batches
                record["peak_memory_bytes_in_batches"] = dev.peak_memory_bytes(generator.pipeline.device)
            if not options.ablate and options.suite != "cvtg":
                record["reconstruction"] = recover.reconstruction(
                    generator.pipeline, main, generator.num_steps, generator.guidance_scale, read, progress
                )
    record |= {
        "seed": options.seed,
        "painter": generator.facts(),
        "settings": generator.settings(),
        "reader": {"version": reader.version, "languages": list(reader.languages), "method": reader.method},
        "features": nearest.NAME if suite.emoji else None,
        "notes": list(suite.notes),
        "pictures_taken_from_before": sum(taken for _, _, taken in painted),
        "load_average": results.load_average(),
        "date": results.today(),
        "machine": results.machine(),
    }
    if options.ablate:
        record["ablated"] = {name: ABLATIONS[name] for name in options.ablate}
    _print(record, console)
    unwritten = []
    for path, write in (
        (options.json, lambda path: results.put(path, record)),
        (options.html, lambda path: files.write_text(path, page(record, shown))),
    ):
        try:
            if path:
                write(path)
        except OSError as error:
            unwritten.append((path, error))
    if unwritten:
        raise RequestError(
            f"{' and '.join(f'`{path}`' for path, _ in unwritten)} cannot be written",
            [str(error) for _, error in unwritten],
            f"what was measured stands above; call again for the files: pictures that are in `{options.keep}` "
            "are not painted twice",
        )
    return record


def _check(options: EvalArguments) -> None:
    suite, ablate = options.suite, options.ablate
    unknown = [name for name in ablate if name not in ABLATIONS]
    is_narrowed = options.layouts or options.fonts or options.letters
    for is_wrong, what, because, hint in (
        (suite not in SUITES, f"`{suite}` is not a suite", (), did_you_mean(suite, SUITES)),
        (options.count < 1, f"{options.count} questions are none", (), "--count takes at least 1"),
        (suite != "signs" and is_narrowed,
         f"--layouts, --fonts and --letters are for the suite `signs`, and this is `{suite}`", (), "leave them out"),
        (suite == "cvtg" and options.data is None,
         "the suite `cvtg` needs the prompts of CVTG-2K", (), "fetch them and pass --data FOLDER; see docs/eval.md"),
        (options.data is not None and suite != "cvtg",
         f"--data is for the suite `cvtg`, and this is `{suite}`", (), "leave it out"),
        (unknown, f"there is no part `{''.join(unknown[:1])}` to leave out", (),
         did_you_mean("".join(unknown[:1]), ABLATIONS)),
        (options.endpoint and ablate,
         "parts of a model behind a server cannot be left out", (), "pass --model FOLDER"),
        (options.endpoint and (options.loras or options.offload or options.no_verify),
         "--lora, --offload and --no-verify are for a model of this machine", (), "leave them out"),
        (options.offload and "decoder" in ablate,
         "`decoder` cannot be left out with --offload", "its weights would be read anew", "leave --offload out"),
        (suite == "cvtg" and "prior" in ablate, "`prior` cannot be left out here",
         "CVTG-2K has no true pictures to take tokens from", "leave out another part"),
    ):  # fmt: skip
        if is_wrong:
            raise RequestError(what, because, hint)


def questions(options: EvalArguments, size_px: int) -> Suite:
    """Return the questions that are asked for; true pictures are of the size of the painted ones."""
    if options.suite == "cvtg":
        return cvtg.questions(options.data or Path(), options.count, options.seed)
    if options.suite != "signs":
        return suites.SUITES[options.suite](options.count, options.seed, size_px)
    plain = suites.MAIN
    choice = SignFilter(
        options.layouts or plain.layouts, options.fonts or plain.fonts, options.letters or plain.letters, 1
    )
    return suites.signs(options.count, options.seed, size_px, choice)


def _generator(options: EvalArguments) -> ModelGenerator | EndpointGenerator:
    if options.endpoint:
        given = {"num_inference_steps": options.steps, "guidance_scale": options.guidance}
        more = {name: value for name, value in given.items() if value is not None}
        return EndpointGenerator(
            options.endpoint, options.model, key=os.environ.get(KEY_VARIABLE), size_px=options.size or suites.SIZE_PX,
            more=more, batch=options.batch,
        )  # fmt: skip
    how = PipelineOptions(
        model=options.model,
        device=options.device,
        dtype=options.dtype,
        offload=options.offload,
        loras=options.loras,
        verified=not options.no_verify,
        threads=options.threads,
    )
    pipeline = open_pipeline(how, together=options.batch)
    return ModelGenerator(
        pipeline, size_px=options.size or pipeline.config.geometry.default_px,
        num_steps=options.steps or pipeline.config.painting.num_inference_steps,
        guidance_scale=pipeline.config.painting.guidance_scale if options.guidance is None else options.guidance,
        ablate=frozenset(options.ablate), batch=options.batch,
    )  # fmt: skip


def _paint(
    suite: Suite, generator: ImageGenerator, cache: ResultCache, progress: Any, fresh: bool
) -> list[tuple[Image.Image, float, bool]]:
    """Return every question's picture, the seconds it took, and whether it was painted before.

    Those that are kept are not painted again, new ones are kept at once.
    """
    known = () if fresh else enumerate(suite.cases)
    painted = {index: (*kept, True) for index, case in known if (kept := cache.get(case)) is not None}
    missing = [index for index in range(len(suite.cases)) if index not in painted]
    progress("pictures", len(painted), len(suite.cases))
    for first in range(0, len(missing), generator.chunk):
        some = missing[first : first + generator.chunk]
        before = len(painted)

        def tell(what: str, done: int, total: int, before: int = before, size: int = len(some)) -> None:
            share = 1.0 if what == "asking" else 0.5  # writing tokens is about one half of the way, painting the other
            half = 0.5 if what == "painting" else 0.0
            progress("pictures", before + int(size * (half + share * done / total)), len(suite.cases))

        made = generator.paint([suite.cases[index] for index in some], tell)
        for index, (image, seconds) in zip(some, made, strict=True):
            cache.put(suite.cases[index], image, seconds)
            painted[index] = (image.convert("RGB"), seconds, False)
        progress("pictures", len(painted), len(suite.cases))
    return [painted[index] for index in range(len(suite.cases))]


def _score(suite: Suite, images: Sequence[Image.Image], read: Any) -> tuple[dict[str, Any], list[ReportImage]]:
    """Return the record's measures, and the pictures with what is said of them."""
    scorer, cases = Scorer(suite.emoji), suite.cases
    worded = [index for index, case in enumerate(cases) if case.words]
    readings = dict(zip(worded, read([images[index] for index in worded]), strict=True))
    scores = [scorer.score(case, images[index], readings.get(index)) for index, case in enumerate(cases)]
    truths = {index: case.truth for index, case in enumerate(cases) if case.truth is not None}
    true_words = [index for index in truths if cases[index].words]
    true_readings = dict(zip(true_words, read([truths[index] for index in true_words]), strict=True))
    upper_bounds = {
        index: scorer.score(cases[index], truth, true_readings.get(index)) for index, truth in truths.items()
    }
    by_chance = {
        index: scorer.score(cases[other], images[index], readings.get(index))
        for index, other in enumerate(mismatched_cases(cases, 0))
        if other is not None
    }

    def beside(members: Sequence[int]) -> dict[str, Any]:
        return {
            "painted": measures([scores[index] for index in members]),
            "ceiling": measures([upper_bounds[index] for index in members if index in upper_bounds]),
            "floor": measures([by_chance[index] for index in members if index in by_chance]),
        }

    slices: dict[str, Any] = {}
    for name in dict.fromkeys((suite.main, *(case.slice for case in cases))):
        slices[name] = beside([index for index, case in enumerate(cases) if case.slice == name])
    groups: dict[str, dict[str, list[int]]] = {}
    for index, case in enumerate(cases):
        for kind, name in case.groups:
            groups.setdefault(kind, {}).setdefault(name, []).append(index)
    first = slices[suite.main]
    record: dict[str, Any] = {"suite": suite.name, "main": suite.main, **first["painted"]}
    for who in ("ceiling", "floor"):
        record[who] = {key: value for key, value in first[who].items() if key in KEYS or key == "count"}
    record["strata"] = slices
    record["by"] = {
        kind: {name: beside(members[name]) for name in sorted(members, key=_sort_key)}
        for kind, members in groups.items()
    }
    shown = [
        ReportImage(case, images[index], scores[index], readings[index].text if index in readings else None)
        for index, case in enumerate(cases)
    ]
    return record, shown


def _sort_key(name: str) -> tuple[int, str]:
    return (int(name) if name.isdigit() else 0), name  # 10 behind 9


def _print(record: dict[str, Any], console: Any) -> None:
    from rich.table import Table

    for line in facts(record):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for heading, (head, *rows) in tables(record):
        table = Table(*head, title=heading, title_justify="left")
        for row in rows:
            table.add_row(*row)
        console.print(table)
