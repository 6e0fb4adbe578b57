"""Progress bars for long calls, drawn by rich on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def bars(console: Any) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function (what, done, total) that draws one bar per `what`; a finished one that took no time is hidden.

    Where stderr is no terminal nothing is drawn: bars in a file or a pipe are lines that nobody reads.
    """
    if not console.is_terminal or console.quiet:
        yield lambda what, done, total: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    tasks: dict[str, Any] = {}
    with Progress(*columns, console=console, transient=False) as progress:

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks or (progress.tasks[tasks[what]].finished and done < total):
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total)

        yield show
