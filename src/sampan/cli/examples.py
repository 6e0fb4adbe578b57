"""`sampan generate --examples`: prompts that work with a model, on stdout."""

from __future__ import annotations

import json
from pathlib import Path

from sampan.cli import output
from sampan.cli.arguments import GenerateArguments
from sampan.errors import RequestError


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
