"""Processes that work beside this one: they start afresh, ignore Ctrl-C, and end when this one does.

What they run must be importable without a framework: a worker that loaded one would take a second and a gigabyte.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from sampan.errors import DataError

Job = TypeVar("Job")
Result = TypeVar("Result")


def map_in_order(
    function: Callable[[Job], Result], jobs: Iterable[Job], workers: int, ahead: int
) -> Generator[Result, None, None]:
    """Yield the results of jobs in their order. Closing the generator ends the processes.

    Args:
        function: At the top of a module. What it raises is raised here, when its turn comes.
        workers: Processes; 0 runs every job in this one, when its result is asked for.
        ahead: Jobs that are under way or done and not asked for yet, at most.

    Raises:
        DataError: A process ended by itself, for lack of memory for example, or none can be started.
    """
    if not workers:
        yield from map(function, jobs)
        return
    executor = pool(workers)
    waiting: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            waiting.append(executor.submit(function, job))
            if len(waiting) >= max(1, ahead):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process ended before its work was done",
            "too little memory is one reason; a script of one's own without `if __name__ == '__main__':` is another",
            "set data.workers = 0 to work without them",
        ) from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def pool(workers: int) -> ProcessPoolExecutor:
    """Return an executor whose processes start afresh, ignore Ctrl-C and end when this one does."""
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin)


def _begin() -> None:
    if hasattr(signal, "SIGUSR1"):  # a queue sends it to all processes of a job
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the first one decides
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # a killed parent ends no worker, and a worker would wait for work for ever
