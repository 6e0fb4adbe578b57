"""The table of verbs: what each takes, and what it runs; and the words of every help page."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sampan import __version__
from sampan.cli.parsing import Parser


@dataclass(frozen=True)
class Verb:
    """A verb of the command line. What it takes is loaded when it is asked for: one verb's call pays for no other's.

    Args:
        summary: A sentence on what it does.
        options: The dataclass of its options, as "module:Class".
        function: The name of the function in `sampan.cli.run` that is given one.
    """

    summary: str
    options: str
    function: str

    @property
    def arguments(self) -> Any:
        """Return the dataclass of its options."""
        module, _, name = self.options.partition(":")
        return getattr(importlib.import_module(module), name)

    @property
    def run(self) -> Callable[[Any], None]:
        """Return what it runs."""
        return getattr(importlib.import_module("sampan.cli.run"), self.function)


_OWN = "sampan.cli.arguments:"
VERBS = {
    "init": Verb("Write a job file with every setting explained.", f"{_OWN}InitArguments", "init"),
    "doctor": Verb("Say what this machine has, and what fits on it.", f"{_OWN}DoctorArguments", "doctor"),
    "data prepare": Verb(
        "Examine the pictures of a job, and encode them by the parts that are finished.",
        f"{_OWN}PrepareArguments",
        "data_prepare",
    ),
    "data emoji": Verb(
        "Write the pictures of a colour-emoji font, with their names as captions.",
        f"{_OWN}EmojiArguments",
        "data_emoji",
    ),
    "data signs": Verb(
        "Write rendered signs, with the words in quotes in their captions.", f"{_OWN}SignsArguments", "data_signs"
    ),
    "data pairs": Verb("Write pictures of an emoji over a word.", f"{_OWN}PairsArguments", "data_pairs"),
    "plan": Verb(
        "Say what a job will take on which chip, and how sure that is.", "sampan.plan.arguments:PlanArguments", "plan"
    ),
    "screen": Verb(
        "Say which dated rules of export and procurement bear on a question; not legal advice.",
        "sampan.screen.arguments:ScreenArguments",
        "screen",
    ),
    "train": Verb("Train a model as a job file says.", f"{_OWN}TrainArguments", "train"),
    "launch": Verb(
        "Write the script or manifest that trains a job elsewhere, and hand it over if asked.",
        "sampan.launch.arguments:LaunchArguments",
        "launch",
    ),
    "generate": Verb(
        "Paint pictures from a prompt, and from reference pictures.", f"{_OWN}GenerateArguments", "generate"
    ),
    "eval": Verb(
        "Measure a model's pictures: words read, colours named, emoji recognised, edits done.",
        "sampan.evaluate.arguments:EvalArguments",
        "evaluate",
    ),
    "serve": Verb(
        "Serve pictures over HTTP: the images API that OpenAI's clients speak, and a page.",
        "sampan.serve.arguments:ServeArguments",
        "serve",
    ),
    "checkpoint export": Verb(
        "Write the model of a run as a folder in the released layout.", f"{_OWN}ExportArguments", "checkpoint_export"
    ),
    "checkpoint inspect": Verb(
        "Say what a model folder or a run holds, and what is missing.", f"{_OWN}InspectArguments", "checkpoint_inspect"
    ),
    "checkpoint merge": Verb(
        "Write a model with LoRAs merged into its weights.", f"{_OWN}MergeArguments", "checkpoint_merge"
    ),
    "checkpoint verify": Verb(
        "Check that a run's files are those that were written, and that its steps come out again.",
        f"{_OWN}VerifyArguments",
        "checkpoint_verify",
    ),
    "bench": Verb(
        "Time a training step on several frameworks, after comparing what they compute.",
        "sampan.bench.arguments:BenchArguments",
        "bench",
    ),
    "completion": Verb(
        "Print a script with which a shell completes sampan's verbs, options and files.",
        f"{_OWN}CompletionArguments",
        "completion",
    ),
}
"""By name, in the order in which they are listed."""
GROUPS = {
    "data": "Make a folder of pictures with captions, or prepare one.",
    "checkpoint": "Work on model folders.",
}
_ABOUT = "Plan, train and run GLM-Image-class image models on whatever accelerator is at hand."
_EXAMPLES = (
    "sampan data emoji pictures",
    "sampan init job.toml",
    "sampan train job.toml",
    'sampan generate "a red apple" --model runs/job',
)


def parser(argv: Sequence[str] | None = None) -> Parser:
    """Return the parser of a command line: with the options of the verb that it names, or else of all of them.

    Args:
        argv: The words after the program's name; None for a parser of every verb.
    """
    top = Parser(
        prog="sampan",
        usage="sampan VERB ...",
        description=f"{_ABOUT}\n\n{_listing('')}",
        epilog=f"{_examples(_EXAMPLES)}\n\n`sampan VERB --help` says more about one.",
    )
    top.add_argument("--version", action="version", version=f"sampan {__version__}", help="print the version")
    below = {"": top.below()}
    for name in _named(argv):
        kind = VERBS[name]
        group, _, verb = name.rpartition(" ")
        if group not in below:
            words = f"{GROUPS[group]}\n\n{_listing(f'{group} ')}"
            below[group] = below[""].add_parser(group, usage=f"sampan {group} VERB ...", description=words).below()
        arguments = kind.arguments
        added = below[group].add_parser(verb, description=kind.summary, epilog=_examples(arguments.examples))
        added.takes(arguments, lambda options, kind=kind: kind.run(options))
    return top


def _named(argv: Sequence[str] | None) -> list[str]:
    """Return the verbs whose options a command line can need."""
    if argv is not None and argv[:1] in (["-h"], ["--help"], ["--version"]):
        return []
    for words in (2, 1):
        names = [name for name in VERBS if argv and name.split()[:words] == list(argv[:words])]
        if names:
            return names
    return list(VERBS)


def _listing(prefix: str) -> str:
    names = [name for name in VERBS if name.startswith(prefix)]
    width = max(map(len, names)) + 2
    lines = [(name, VERBS[name].summary.rstrip(".")) for name in names]
    return "\n".join(["verbs:", *(f"  {name:<{width}}{words[0].lower()}{words[1:]}" for name, words in lines)])


def _examples(lines: tuple[str, ...]) -> str:
    return "\n".join(["examples:" if len(lines) > 1 else "example:", *(f"  {line}" for line in lines)])
