"""The table of verbs: what each takes, and what it runs; and the words of every help page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sampan import __version__
from sampan.bench.arguments import BenchArguments
from sampan.cli import arguments, run
from sampan.cli.parsing import Parser
from sampan.evaluate.arguments import EvalArguments
from sampan.launch.arguments import LaunchArguments
from sampan.plan.arguments import PlanArguments
from sampan.screen.arguments import ScreenArguments
from sampan.serve.arguments import ServeArguments

VERBS: Mapping[str, tuple[Any, Callable[[Any], None]]] = {
    "init": (arguments.InitArguments, run.init),
    "doctor": (arguments.DoctorArguments, run.doctor),
    "data prepare": (arguments.PrepareArguments, run.data_prepare),
    "data emoji": (arguments.EmojiArguments, run.data_emoji),
    "data signs": (arguments.SignsArguments, run.data_signs),
    "data pairs": (arguments.PairsArguments, run.data_pairs),
    "plan": (PlanArguments, run.plan),
    "screen": (ScreenArguments, run.screen),
    "train": (arguments.TrainArguments, run.train),
    "launch": (LaunchArguments, run.launch),
    "generate": (arguments.GenerateArguments, run.generate),
    "eval": (EvalArguments, run.evaluate),
    "serve": (ServeArguments, run.serve),
    "checkpoint export": (arguments.ExportArguments, run.checkpoint_export),
    "checkpoint inspect": (arguments.InspectArguments, run.checkpoint_inspect),
    "checkpoint merge": (arguments.MergeArguments, run.checkpoint_merge),
    "checkpoint verify": (arguments.VerifyArguments, run.checkpoint_verify),
    "bench": (BenchArguments, run.bench),
    "completion": (arguments.CompletionArguments, run.completion),
}
"""By name: the dataclass of its options, whose docstring describes it, and the function that is given one."""
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


def parser() -> Parser:
    """Return the parser of all verbs."""
    top = Parser(
        prog="sampan",
        usage="sampan VERB ...",
        description=f"{_ABOUT}\n\n{_listing('')}",
        epilog=f"{_examples(_EXAMPLES)}\n\n`sampan VERB --help` says more about one.",
    )
    top.add_argument("--version", action="version", version=f"sampan {__version__}", help="print the version")
    below = {"": top.below()}
    for name, (options, runs) in VERBS.items():
        group, _, verb = name.rpartition(" ")
        if group not in below:
            words = f"{GROUPS[group]}\n\n{_listing(f'{group} ')}"
            below[group] = below[""].add_parser(group, usage=f"sampan {group} VERB ...", description=words).below()
        parser = below[group].add_parser(verb, description=options.__doc__, epilog=_examples(options.examples))
        parser.takes(options, runs)
    return top


def _listing(prefix: str) -> str:
    names = [name for name in VERBS if name.startswith(prefix)]
    width = max(map(len, names)) + 2
    lines = [(name, (VERBS[name][0].__doc__ or "").rstrip(".")) for name in names]
    return "\n".join(["verbs:", *(f"  {name:<{width}}{words[0].lower()}{words[1:]}" for name, words in lines)])


def _examples(lines: tuple[str, ...]) -> str:
    return "\n".join(["examples:" if len(lines) > 1 else "example:", *(f"  {line}" for line in lines)])
