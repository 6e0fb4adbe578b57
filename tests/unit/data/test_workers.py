"""Worker processes: results in order, errors said, and nobody left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sampan.data.workers import map_in_order
from sampan.errors import DataError
from unit.data import worker_jobs

TESTS = Path(__file__).parents[2]


@pytest.mark.parametrize("workers", [0, 2])
def test_results_come_in_the_order_of_jobs(workers: int):
    assert list(map_in_order(worker_jobs.double, range(7), workers, 3)) == [0, 2, 4, 6, 8, 10, 12]
    assert list(map_in_order(worker_jobs.double, [], workers, 3)) == []


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_job_raises_comes_when_its_turn_does(workers: int):
    results = map_in_order(worker_jobs.refuse, range(5), workers, 4)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(KeyError):
        next(results)


def test_no_more_jobs_are_taken_than_asked_for():
    taken: list[int] = []

    def jobs() -> Any:
        for number in range(100):
            taken.append(number)
            yield number

    with closing(map_in_order(worker_jobs.refuse, jobs(), 1, 5)) as results:
        next(results)
        assert taken == [0, 1, 2, 3, 4]


def test_a_worker_that_ends_by_itself_is_said():
    with pytest.raises(DataError) as caught:
        list(map_in_order(worker_jobs.end, range(5), 1, 4))
    assert str(caught.value) == (
        "error: a worker process ended before its work was done\n"
        "  because too little memory is one reason; a script of one's own without `if __name__ == '__main__':` is "
        "another\n\n"
        "hint: set data.workers = 0 to work without them"
    )


def waiting(**environment: str) -> tuple[subprocess.Popen[str], list[int]]:
    """Start the program that waits for two workers; return it and the workers' numbers."""
    child = subprocess.Popen(
        [sys.executable, "-m", "unit.data.worker_jobs"],
        cwd=TESTS,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    assert child.stdout is not None
    return child, [int(child.stdout.readline()) for _ in range(2)]


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_workers_end_with_a_killed_parent():
    child, workers = waiting()
    assert all(map(is_running, workers))
    child.kill()
    child.communicate()
    deadline = time.monotonic() + 10
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(is_running, workers))


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C of a terminal is a signal to a group of processes")
def test_an_interrupt_ends_the_parent_alone_and_the_workers_after_their_job():
    child, workers = waiting(BRIEFLY="1")
    os.killpg(child.pid, signal.SIGINT)
    _, said = child.communicate(timeout=20)
    assert said.count("Traceback") == 1 and said.strip().endswith("KeyboardInterrupt")
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
