"""What verbs have in common: data on stdout, what is said on stderr, bars, models that are fetched first, fresh seeds."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sampan.job import MAX_SEED
from sampan.options import VerbArguments


def put(data: object) -> None:
    """Write a line on stdout."""
    sys.stdout.write(f"{data}\n")


def console(options: VerbArguments) -> Any:
    """Return the console for what is said on stderr; with --quiet it says nothing."""
    from rich.console import Console

    return Console(stderr=True, quiet=options.quiet)


def report_console() -> Any:
    """Return the console for a report on stdout."""
    from rich.console import Console

    return Console()


def fetch(model: Path | str, options: Any) -> None:
    """See to it that a model of the Hub is here, before anything is loaded."""
    from sampan.checkpoint.hub import fetch

    fetch(model, allowed=options.download, console=console(options))


@contextmanager
def bar(what: str, options: VerbArguments) -> Iterator[tuple[Any, Callable[[int, int], None]]]:
    """Yield the console, and a function (done, total) that draws a bar on it."""
    from sampan.progress import bars

    said_on = console(options)
    with bars(said_on) as progress:
        yield said_on, lambda done, total: progress(what, done, total)


def written(summary: Any) -> str:
    """Say whether a picture set was written."""
    return "written" if summary.written else "there already"


def seed(seed: int | None) -> int:
    """Return a fresh seed where none was given, so that a second call does not repeat the first."""
    return secrets.randbelow(MAX_SEED + 1) if seed is None else seed


def print_report(report: dict[str, Any], show: Callable[[dict[str, Any], Any], None], as_json: bool) -> None:
    """Print a report on stdout, for people or as JSON."""
    if as_json:
        put(json.dumps(report, indent=2))
    else:
        show(report, report_console())
