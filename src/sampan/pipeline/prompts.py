"""Many prompts with one start of the model: a text file of them, a line each, and an image file of its own for each line."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sampan.checkpoint import lora
from sampan.errors import DataError, RequestError
from sampan.pipeline.batch import IMAGES_AT_ONCE
from sampan.pipeline.options import PipelineOptions
from sampan.pipeline.output import check_target
from sampan.pipeline.pipeline import open_pipeline, prompt_notes, write_images
from sampan.pipeline.request import ImageRequest
from sampan.progress import bars

MAX_BYTES = 16 * 2**20
_REASONS_SHOWN = 10


def read_prompts(path: Path) -> list[tuple[int, str]]:
    """Return the prompts of a UTF-8 file with the numbers of their lines, from 1; lines of nothing are left out.

    Args:
        path: `-` reads stdin.

    Raises:
        RequestError: It cannot be read, or holds no prompt.
    """
    name = "stdin" if str(path) == "-" else f"`{path}`"
    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(MAX_BYTES + 1)
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"the prompts in {name} cannot be read", str(error), "a prompt a line, in UTF-8") from error
    if len(data) > MAX_BYTES:
        raise RequestError(f"the prompts in {name} cannot be read", f"they have more than {MAX_BYTES:,} bytes")
    prompts = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not prompts:
        raise RequestError(f"there is no prompt in {name}", (), "a prompt a line")
    return prompts


def generate_each(
    prompts: Sequence[tuple[int, str]],
    request: ImageRequest,
    options: PipelineOptions,
    *,
    out: Path | None,
    stop_on_error: bool,
    put: Callable[[dict[str, Any]], None],
    console: Any,
) -> None:
    """Generate the images of every prompt and write them as soon as they are made, named by the prompt's line.

    Each has the request's seed, so that any one of them can be asked for alone.

    Args:
        prompts: Line numbers and prompts.
        request: All but the prompt.
        out: `birds.png` makes `birds-1.png`, `birds-2.png`; None makes `sampan-SEED-1.png`.
        stop_on_error: Go on with no further line after one that failed.
        put: Takes the record of each image that is written.
        console: A rich console for progress, hints and the lines that failed.

    Raises:
        RequestError: Prompts failed; the images of the others are written.
        SampanError: Something failed that every prompt needs.
    """
    target, _ = check_target(request, out)
    failures: list[tuple[int, str]] = []

    def say(words: str) -> None:
        console.print(words, markup=False, highlight=False, soft_wrap=True)

    with bars(console) as progress:
        pipeline = open_pipeline(options, progress=progress, together=min(request.count, IMAGES_AT_ONCE))
        for note in lora.notes(pipeline.loras):
            say(note)
        for number, (line, prompt) in enumerate(prompts):
            asked, file = dataclasses.replace(request, prompt=prompt), target.with_stem(f"{target.stem}-{line}")
            progress("prompts", number, len(prompts))
            for words in prompt_notes(pipeline, asked, options.model):
                say(f"line {line}: {words}")
            try:
                for record in write_images(pipeline, asked, file, time.perf_counter()):
                    put({"line": line, **record})
            except (RequestError, DataError) as error:
                failures.append((line, ": ".join([error.what, *error.because[:1]])))
                say(f"line {line}: {failures[-1][1]}")
                if stop_on_error:
                    break
        progress("prompts", len(prompts), len(prompts))
    if failures:
        tried = next(place for place, (line, _) in enumerate(prompts, start=1) if line == failures[-1][0])
        left = f", and {len(prompts) - tried} after it were not tried" if stop_on_error and tried < len(prompts) else ""
        more = len(failures) - _REASONS_SHOWN
        raise RequestError(
            f"{len(failures)} of {len(prompts)} prompts could not be painted{left}",
            [f"line {line}: {reason}" for line, reason in failures[:_REASONS_SHOWN]]
            + ([f"{more} more failed too"] if more > 0 else []),
            "the pictures of the others are written",
        )
