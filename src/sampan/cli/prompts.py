"""`sampan generate` and many prompts: `--examples` prints those that work with a model, `--prompts` paints a file's."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sampan.cli import output
from sampan.cli.arguments import GenerateArguments
from sampan.errors import RequestError

if TYPE_CHECKING:  # reading it would load a model's mathematics
    from sampan.pipeline.options import PipelineOptions
    from sampan.pipeline.request import ImageRequest


def print_examples(options: GenerateArguments) -> None:
    """Print prompts that work with a model, a line each, or with --json everything that it says it knows.

    Raises:
        CheckpointError: It cannot be used.
        RequestError: It says of no prompt that it works.
    """
    from sampan.checkpoint.folder import open_with_lora

    knows = open_with_lora(Path(options.model))[0].knows
    if options.json:
        output.put(json.dumps(knows.to_json(), indent=2, ensure_ascii=False))
        return
    if not knows.examples:
        raise RequestError(
            f"`{options.model}` says of no prompt that it works",
            "its sampan.json has no `knows.examples`",
            "ask whoever trained it, or write some there",
        )
    for prompt in knows.examples:
        output.put(prompt)
    if knows.subjects:
        some = ", ".join(knows.subjects[:8])
        more = f"and {len(knows.subjects)} such names in all (--json lists them): {some}, …"
        output.console(options).print(more, markup=False, highlight=False, soft_wrap=True)


def generate_all(options: GenerateArguments, request: ImageRequest, pipeline: PipelineOptions) -> None:
    """Paint the prompts of a file; each picture's name on stdout when it is written, or all records at the end."""
    from sampan.pipeline.prompts import generate_each, read_prompts

    assert options.prompts is not None, "the caller sees to it"
    prompts = read_prompts(options.prompts)
    pictures: list[dict[str, Any]] = []

    def put(picture: dict[str, Any]) -> None:
        pictures.append(picture)
        if not options.json:
            output.put(picture["file"])
            sys.stdout.flush()  # a reader of the names may begin with each

    try:
        generate_each(
            prompts,
            request,
            pipeline,
            out=options.out,
            console=output.console(options),
            stop_on_error=options.stop_on_error,
            put=put,
        )
    finally:
        if options.json:
            output.put(json.dumps({"pictures": pictures}, indent=2))
