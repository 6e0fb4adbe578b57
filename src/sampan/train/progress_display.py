"""Where a stage is while it trains: a live line on a terminal, a plain line now and then in a file or a log of a service."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Self

from sampan.units import format_bytes, format_seconds

EVERY_S = 30.0  # between two plain lines
_SMOOTHING = 0.95  # of the loss that is shown
_WARM_UP_STEPS = 3  # whose time says nothing: code is compiled, memory taken, files read for the first time
_WINDOW_STEPS = 200  # the speed of the latest steps counts


class TimeLeft:
    """Estimates how long a stage still takes, by its latest steps and without those of the warm-up."""

    def __init__(self, first: int, total: int):
        self.first, self.total = first, total
        self._seen: deque[tuple[int, float]] = deque(maxlen=_WINDOW_STEPS + 1)

    def at(self, step: int, now_s: float) -> float | None:
        """Return the seconds left after `step`, taken at `now_s`; None while nothing can be said."""
        if step - self.first >= _WARM_UP_STEPS:
            self._seen.append((step, now_s))
        if step >= self.total:
            return 0.0
        if len(self._seen) < 2:
            return None
        (before, then_s), (last, last_s) = self._seen[0], self._seen[-1]
        return max(0.0, (last_s - then_s) / (last - before) * (self.total - last))


class SmoothedMean:
    """A mean that forgets, over finite values alone."""

    def __init__(self) -> None:
        self._sum = self._weight = 0.0

    def add(self, value: float) -> float:
        """Take a value and return the mean so far; NaN before the first finite one."""
        if math.isfinite(value):
            self._sum = _SMOOTHING * self._sum + (1 - _SMOOTHING) * value
            self._weight = _SMOOTHING * self._weight + (1 - _SMOOTHING)
        return self._sum / self._weight if self._weight else math.nan


class ProgressDisplay:
    """A context manager that shows how far a stage is, when it is called after a step.

    Args:
        console: A rich console. On a terminal a line is kept up to date; elsewhere a line is printed about every half
            minute, and for the last step.
        first, total: Steps taken before, and in all.
        clock: Seconds from any start.
    """

    def __init__(
        self, console: Any, stage: str, first: int, total: int, *, clock: Callable[[], float] = time.perf_counter
    ):
        self.console, self.stage, self.total, self.clock = console, stage, total, clock
        self._left, self._mean = TimeLeft(first, total), SmoothedMean()
        self._live: Any = None
        self._printed_s = clock()
        if console.is_terminal and not console.is_dumb_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            self._live = Progress(
                TextColumn("{task.description:<9}", markup=False),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TextColumn("{task.fields[words]}", markup=False),
                console=console,
            )
            self._task = self._live.add_task(stage, total=total, completed=first, words="")

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.stop()

    def __call__(
        self,
        step: int,
        *,
        loss: float,
        images_per_s: float,
        mfu: float | None = None,
        memory_bytes: float | None = None,
        skipped: int = 0,
    ) -> None:
        """Show a step.

        Args:
            step: Steps taken so far.
            loss: Of this step; what is shown is smoothed.
            mfu: Useful FLOP/s over the device's peak; None is shown as N/A.
            memory_bytes: The most memory taken on the device; None is left out.
            skipped: Steps of this process that changed nothing.
        """
        smooth, seconds = self._mean.add(loss), self._left.at(step, self.clock())
        words = "  ".join(
            [
                f"loss {'N/A' if math.isnan(smooth) else format(smooth, '.4f')}",
                f"{images_per_s:.1f} pictures/s",
                f"MFU {'N/A' if mfu is None else format(mfu, '.1%')}",
                *([] if memory_bytes is None else [f"peak {format_bytes(memory_bytes)}"]),
                *([f"{format_seconds(seconds)} left"] if seconds else []),
                *([f"{skipped} skipped"] if skipped else []),
            ]
        )
        if self._live:
            self._live.update(self._task, completed=step, words=words)
        elif step >= self.total or self.clock() - self._printed_s >= EVERY_S:
            self._printed_s = self.clock()
            line = f"{self.stage}  {step}/{self.total}  {words}"
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)
