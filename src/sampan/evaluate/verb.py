"""`sampan eval`: a suite's questions painted, read and judged, with the ceiling and the floor beside every number."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from PIL import Image

from sampan.errors import RequestError, did_you_mean
from sampan.evaluate import cvtg, recover, suites
from sampan.evaluate.case import EvalCase, Suite
from sampan.evaluate.endpoint import EndpointGenerator
from sampan.evaluate.generators import ABLATIONS, ImageGenerator, ModelGenerator
from sampan.evaluate.measures import KEYS, measures, others
from sampan.evaluate.page import ReportImage, facts, page, tables
from sampan.evaluate.result_cache import ReadingCache, ResultCache
from sampan.evaluate.scorer import Scorer
from sampan.files import write_text
from sampan.frameworks import device as dev
from sampan.host import usable_cores
from sampan.metrics import nearest
from sampan.metrics.ocr import Reading, find_reader
from sampan.pipeline.pipeline import open_pipeline
from sampan.progress import bars
from sampan.report import results
from sampan.synthetic.signs import SignFilter

SUITES = (*suites.SUITES, "cvtg")
DEFAULT_STEPS = 20
_TOKENS_AT_MOST = 100  # pictures painted from true tokens alone
KEY_VARIABLE = "OPENAI_API_KEY"


@dataclass(frozen=True, kw_only=True)
class EvalArguments:
    """The options as they were given.

    Args:
        suite: One of SUITES.
        count: Questions of the main group.
        layouts, fonts, letters: Of the main group of `signs`; None leaves a plain placard's.
        model: A model folder, a run, or a shipped model's name.
        endpoint: Address of a server that is asked instead; `model` is then its name for it.
        data: The folder of CVTG-2K.
        ablate: Names in generators.ABLATIONS.
        size: Side of the pictures in pixels; None is the model's own.
        batch: Questions under way together.
        keep: Folder of pictures that are painted already; `fresh` paints those of this measurement again.
    """

    suite: str
    count: int
    seed: int = 0
    model: str = "nano"
    endpoint: str | None = None
    data: Path | None = None
    layouts: tuple[str, ...] | None = None
    fonts: tuple[str, ...] | None = None
    letters: tuple[int, int] | None = None
    steps: int = DEFAULT_STEPS
    guidance: float | None = None
    ablate: tuple[str, ...] = ()
    size: int | None = None
    device: str = "auto"
    dtype: str = "auto"
    batch: int = 64
    offload: bool = False
    loras: Sequence[tuple[Path, float]] = ()
    keep: Path = Path("eval-data")
    fresh: bool = False
    json: Path | None = None
    html: Path | None = None


def from_arguments(arguments: Any) -> EvalArguments:
    """Return the options of a parsed command line."""
    return EvalArguments(**{field.name: getattr(arguments, field.name) for field in fields(EvalArguments)})


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
    reader = find_reader()  # every suite has words; said before anything is loaded
    if options.suite == "cvtg":  # what is wrong with its files is said before too
        cvtg.questions(options.data or Path(), options.count, options.seed)
    painter = _painter(options)
    suite = questions(options, painter.size_px)
    main = [case for case in suite.cases if case.stratum == suite.main]
    pictures, readings = ResultCache(options.keep, painter.name, painter.settings()), ReadingCache(options.keep, reader)
    with bars(console) as progress:
        # before any batch, so that the memory is that of one picture at a time
        alone = painter.alone(main, progress) if isinstance(painter, ModelGenerator) else None
        painted = _painted(suite, painter, pictures, progress, options.fresh)
        workers = usable_cores() or 1

        def read(images: list[Image.Image]) -> list[Reading]:
            return readings.read(images, workers, progress)

        record, shown = _judged(suite, [image for image, _, _ in painted], read)
        record["seconds_per_picture"] = round(sum(seconds for _, seconds, _ in painted) / len(painted), 4)
        if isinstance(painter, ModelGenerator):
            assert alone is not None, "measured above"
            record["seconds_per_picture"] = alone["seconds"]["whole"]
            record["peak_memory_bytes"] = alone["peak_memory_bytes"]
            record["speed"] = {"alone": alone["seconds"]}
            if batches := painter.in_batches():
                record["speed"]["in_batches"] = batches
                record["peak_memory_bytes_in_batches"] = dev.peak_memory_bytes(painter.pipeline.device)
            if not options.ablate and options.suite != "cvtg":
                record["reconstruction"] = _recovered(painter, main, read, progress)
    record |= {
        "seed": options.seed,
        "painter": painter.facts(),
        "settings": painter.settings(),
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
    if options.json:
        results.put(options.json, record)
    if options.html:
        write_text(options.html, page(record, shown))
    _print(record, console)
    return record


def _check(options: EvalArguments) -> None:
    if options.suite not in SUITES:
        raise RequestError(f"`{options.suite}` is not a suite", (), did_you_mean(options.suite, SUITES))
    if options.count < 1:
        raise RequestError(f"{options.count} questions are none", (), "--count takes at least 1")
    if options.suite != "signs" and (options.layouts or options.fonts or options.letters):
        raise RequestError(
            f"--layouts, --fonts and --letters are for the suite `signs`, and this is `{options.suite}`",
            (),
            "leave them out",
        )
    if options.suite == "cvtg" and options.data is None:
        raise RequestError(
            "the suite `cvtg` needs the prompts of CVTG-2K", (), "fetch them and pass --data FOLDER; see docs/eval.md"
        )
    if options.data is not None and options.suite != "cvtg":
        raise RequestError(f"--data is for the suite `cvtg`, and this is `{options.suite}`", (), "leave it out")
    if unknown := [name for name in options.ablate if name not in ABLATIONS]:
        raise RequestError(
            f"there is no part `{unknown[0]}` to leave out",
            (),
            did_you_mean(unknown[0], ABLATIONS),
        )
    if options.endpoint and options.ablate:
        raise RequestError("parts of a model behind a server cannot be left out", (), "pass --model FOLDER")
    if options.endpoint and (options.loras or options.offload):
        raise RequestError("--lora and --offload are for a model of this machine", (), "leave them out")
    if options.offload and "decoder" in options.ablate:
        raise RequestError(
            "`decoder` cannot be left out with --offload", "its weights would be read anew", "leave --offload out"
        )
    if "prior" in options.ablate and options.suite == "cvtg":
        raise RequestError(
            "`prior` cannot be left out here",
            "CVTG-2K has no true pictures to take tokens from",
            "leave out another part",
        )


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


def _painter(options: EvalArguments) -> ModelGenerator | EndpointGenerator:
    if options.endpoint:
        more: dict[str, Any] = {"num_inference_steps": options.steps}
        if options.guidance is not None:
            more["guidance_scale"] = options.guidance
        return EndpointGenerator(
            options.endpoint, options.model, key=os.environ.get(KEY_VARIABLE), size_px=options.size or suites.SIZE_PX,
            more=more, batch=options.batch,
        )  # fmt: skip
    pipeline = open_pipeline(
        options.model, device=options.device, dtype=options.dtype, offload=options.offload, loras=options.loras
    )
    return ModelGenerator(
        pipeline, size_px=options.size or pipeline.config.geometry.default_px, num_steps=options.steps,
        guidance_scale=pipeline.config.painting.guidance_scale if options.guidance is None else options.guidance,
        ablate=frozenset(options.ablate), batch=options.batch,
    )  # fmt: skip


def _painted(
    suite: Suite, painter: ImageGenerator, pictures: ResultCache, progress: Any, fresh: bool
) -> list[tuple[Image.Image, float, bool]]:
    """Return every question's picture, the seconds it took, and whether it was painted before.

    Those that are kept are not painted again, new ones are kept at once.
    """
    known = () if fresh else enumerate(suite.cases)
    found = {index: (*kept, True) for index, case in known if (kept := pictures.get(case)) is not None}
    missing = [index for index in range(len(suite.cases)) if index not in found]
    progress("pictures", len(found), len(suite.cases))
    for first in range(0, len(missing), painter.chunk):
        some = missing[first : first + painter.chunk]
        before = len(found)

        def tell(what: str, done: int, total: int, before: int = before, size: int = len(some)) -> None:
            share = 1.0 if what == "asking" else 0.5  # writing tokens is about one half of the way, painting the other
            half = 0.5 if what == "painting" else 0.0
            progress("pictures", before + int(size * (half + share * done / total)), len(suite.cases))

        made = painter.paint([suite.cases[index] for index in some], tell)
        for index, (image, seconds) in zip(some, made, strict=True):
            pictures.put(suite.cases[index], image, seconds)
            found[index] = (image.convert("RGB"), seconds, False)
        progress("pictures", len(found), len(suite.cases))
    return [found[index] for index in range(len(suite.cases))]


def _judged(suite: Suite, images: Sequence[Image.Image], read: Any) -> tuple[dict[str, Any], list[ReportImage]]:
    """Return the record's measures, and the pictures with what is said of them."""
    judge, cases = Scorer(suite.emoji), suite.cases
    worded = [index for index, case in enumerate(cases) if case.words]
    readings = dict(zip(worded, read([images[index] for index in worded]), strict=True))
    judged = [judge.judge(case, images[index], readings.get(index)) for index, case in enumerate(cases)]
    truths = {index: case.truth for index, case in enumerate(cases) if case.truth is not None}
    true_words = [index for index in truths if cases[index].words]
    true_readings = dict(zip(true_words, read([truths[index] for index in true_words]), strict=True))
    ceiling = {index: judge.judge(cases[index], truth, true_readings.get(index)) for index, truth in truths.items()}
    floor = {
        index: judge.judge(cases[other], images[index], readings.get(index))
        for index, other in enumerate(others(cases, 0))
        if other is not None
    }

    def beside(members: Sequence[int]) -> dict[str, Any]:
        return {
            "painted": measures([judged[index] for index in members]),
            "ceiling": measures([ceiling[index] for index in members if index in ceiling]),
            "floor": measures([floor[index] for index in members if index in floor]),
        }

    strata: dict[str, Any] = {}
    for name in dict.fromkeys((suite.main, *(case.stratum for case in cases))):
        strata[name] = beside([index for index, case in enumerate(cases) if case.stratum == name])
    groups: dict[str, dict[str, list[int]]] = {}
    for index, case in enumerate(cases):
        for kind, name in case.groups:
            groups.setdefault(kind, {}).setdefault(name, []).append(index)
    first = strata[suite.main]
    record: dict[str, Any] = {"suite": suite.name, "main": suite.main, **first["painted"]}
    for who in ("ceiling", "floor"):
        record[who] = {key: value for key, value in first[who].items() if key in KEYS or key == "count"}
    record["strata"] = strata
    record["by"] = {
        kind: {name: beside(found[name]) for name in sorted(found, key=_in_turn)} for kind, found in groups.items()
    }
    shown = [
        ReportImage(case, images[index], judged[index], readings[index].text if index in readings else None)
        for index, case in enumerate(cases)
    ]
    return record, shown


def _in_turn(name: str) -> tuple[int, str]:
    return (int(name) if name.isdigit() else 0), name  # 10 behind 9


def _recovered(painter: ModelGenerator, main: Sequence[EvalCase], read: Any, progress: Any) -> dict[str, Any]:
    cases = [case for case in main if case.truth is not None][: recover.AT_MOST]
    truths = [case.truth for case in cases if case.truth is not None]
    found = {"vae": recover.recovered(cases, recover.through_vae(painter.pipeline, truths), read)}
    few = cases[:_TOKENS_AT_MOST]
    again: list[Image.Image] = []
    for first in range(0, len(few), recover.BATCH):
        progress("from tokens alone", first, len(few))
        some = truths[first : min(len(few), first + recover.BATCH)]
        again += recover.through_tokens(painter.pipeline, some, painter.num_steps, painter.guidance_scale)
    progress("from tokens alone", len(few), len(few))
    return found | {"tokens alone": recover.recovered(few, again, read)}


def _print(record: dict[str, Any], console: Any) -> None:
    from rich.table import Table

    for line in facts(record):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for heading, (head, *rows) in tables(record):
        table = Table(*head, title=heading, title_justify="left")
        for row in rows:
            table.add_row(*row)
        console.print(table)
