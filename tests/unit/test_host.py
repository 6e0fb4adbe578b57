"""Memory and cores of the machine, as each system tells it, and how many threads follow from them."""

from __future__ import annotations

import sys
import threading
from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from sampan import host


def linux(monkeypatch, files: dict[str, list[str]]) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=1024000, available=921600))
    monkeypatch.setattr(host, "lines", lambda path: files.get(path.as_posix(), []))


def test_a_container_has_only_its_share_of_memory(monkeypatch):
    files = {
        "/sys/fs/cgroup/memory.max": ["512000"],
        "/sys/fs/cgroup/memory.current": ["300000"],
        "/sys/fs/cgroup/memory.stat": ["anon 100000", "inactive_file 50000"],
    }
    linux(monkeypatch, files)
    assert host.memory_bytes() == (512000, 262000)
    linux(monkeypatch, files | {"/sys/fs/cgroup/memory.max": ["max"]})
    assert host.memory_bytes() == (1024000, 921600)


def test_a_system_that_hides_its_files_tells_nothing(monkeypatch):
    def hidden():
        raise FileNotFoundError("/proc/meminfo")

    linux(monkeypatch, {})
    assert host.memory_bytes() == (1024000, 921600)
    monkeypatch.setattr(psutil, "virtual_memory", hidden)
    assert host.memory_bytes() == (None, None)


def test_the_tightest_group_around_a_process_counts(monkeypatch):
    group = "/sys/fs/cgroup/batch/job-7"
    files = {
        "/proc/self/cgroup": ["0::/batch/job-7/step"],
        f"{group}/memory.max": ["400000"],
        f"{group}/memory.current": ["500000"],
        "/sys/fs/cgroup/batch/memory.max": ["600000"],
        "/sys/fs/cgroup/batch/memory.current": ["1000"],
    }
    linux(monkeypatch, files)
    assert host.memory_bytes() == (400000, 0)  # more is used than allowed for a moment: nothing is free


def test_the_older_kind_of_group_is_read_too(monkeypatch):
    files = {
        "/proc/self/cgroup": ["9:cpu,cpuacct:/", "4:memory:/docker/abc"],
        "/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": ["700000"],
        "/sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes": ["100000"],
    }
    linux(monkeypatch, files)
    assert host.memory_bytes() == (700000, 600000)


@pytest.mark.skipif(sys.platform not in ("linux", "darwin", "win32"), reason="no amounts are known there")
def test_this_machine_has_memory_and_this_process_takes_some_of_it():
    total, free = host.memory_bytes()
    assert total and free and 0 < free <= total
    before = host.peak_memory_bytes()
    block = np.ones(64 * 2**20, np.uint8)
    after = host.peak_memory_bytes()
    assert before and after and before <= after <= total
    assert after >= block.nbytes


@pytest.mark.skipif(sys.platform != "linux", reason="threads have other numbers there")
def test_every_thread_of_this_process_has_its_number():
    numbers, leave = [], threading.Event()
    thread = threading.Thread(target=lambda: (numbers.append(threading.get_native_id()), leave.wait()))
    thread.start()
    try:
        while not numbers:
            pass
        assert {threading.get_native_id(), *numbers} <= set(host.thread_ids())
    finally:
        leave.set()
        thread.join()


@pytest.mark.parametrize(
    ("said", "cores"),
    [
        ({}, 8),
        ({"/sys/fs/cgroup/cpu.max": ["max 100000"]}, 8),
        ({"/sys/fs/cgroup/cpu.max": ["150000 100000"]}, 2),
        ({"/sys/fs/cgroup/cpu.max": ["50000 100000"]}, 1),
        ({"/proc/self/cgroup": ["0::/job"], "/sys/fs/cgroup/job/cpu.max": ["300000 100000"]}, 3),
        (
            {
                "/proc/self/cgroup": ["4:cpu,cpuacct:/docker/abc"],
                "/sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us": ["400000"],
                "/sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us": ["100000"],
            },
            4,
        ),
        (
            {
                "/proc/self/cgroup": ["4:cpu:/"], "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": ["-1"],
                "/sys/fs/cgroup/cpu/cpu.cfs_period_us": ["100000"],
            },
            8,
        ),
        ({"/sys/fs/cgroup/cpu.max": ["1600000 100000"]}, 8),
    ],
)  # fmt: skip
def test_a_quota_of_processor_time_counts_as_cores(said: dict[str, list[str]], cores: int, monkeypatch):
    monkeypatch.setattr(host.os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(host, "lines", lambda path: said.get(path.as_posix(), []))
    assert host.usable_cores() == cores


class Load:
    """Other programs that keep so many cores busy; None: the system does not tell."""

    def __init__(self, busy: float | None):
        self.busy = busy

    def busy_cores(self) -> float | None:
        return self.busy


@pytest.mark.parametrize(
    ("cores", "busy", "num_values", "count"),
    [
        (2, 0.0, 7_800_000, 2),  # nano on a quiet machine: as ever
        (2, 0.1, 7_800_000, 2),
        (2, 1.0, 7_800_000, 1),
        (2, 1.9, 7_800_000, 1),
        (2, 0.0, 1_000_000, 1),  # too small for two
        (16, 0.0, 7_800_000, 2),
        (16, 0.0, 4 * 7_800_000, 8),
        (16, 0.0, 7 * 10**9, 16),
        (16, 5.2, 7 * 10**9, 11),
        (16, 16.0, 7 * 10**9, 4),  # a quarter, however much others do
        (16, None, 7 * 10**9, 16),
        (1, 3.0, 7 * 10**9, 1),
    ],
)
def test_threads_follow_from_cores_load_and_model(cores, busy, num_values, count, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(host, "usable_cores", lambda: cores)
    load: Any = Load(busy)
    assert host.choose_threads(num_values, load).count == count


def test_a_choice_says_why(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(host, "usable_cores", lambda: 4)
    load: Any = Load(1.26)
    monkeypatch.setenv("OMP_NUM_THREADS", "7,2")
    assert host.choose_threads(10**9, load) == host.ThreadChoice(7, "OMP_NUM_THREADS says so")
    for nonsense in ("", "0", "many", "9" * 30):
        monkeypatch.setenv("OMP_NUM_THREADS", nonsense)
        assert host.choose_threads(10**9, load) == host.ThreadChoice(3, "4 cores, of which others keep 1.3 busy")
    assert host.choose_threads(5, load).why == "4 cores, of which others keep 1.3 busy; the model is too small for more"


@pytest.mark.skipif(sys.platform != "linux", reason="the tests know how busy a core is there")
def test_the_work_of_others_is_seen_and_the_own_is_not(monkeypatch: pytest.MonkeyPatch):
    times = iter([{"user": 10.0, "idle": 90.0, "guest": 4.0}, {"user": 11.5, "idle": 90.5, "guest": 5.0}])
    kinds = namedtuple("times", ["user", "idle", "guest"])
    clock, own = iter([100.0, 101.0, 102.0]), iter([3.0, 3.4])
    monkeypatch.setattr(host.os, "sched_getaffinity", lambda process: {1}, raising=False)
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: [kinds(0, 0, 0), kinds(**next(times))])
    monkeypatch.setattr(host.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(host.time, "process_time", lambda: next(own))
    load = host.CpuLoad()
    # 1.5 s more of user, which has the 1 s of guests in it already, in 2 s, and 0.4 s of it our own
    assert load.busy_cores() == pytest.approx((1.5 - 0.4) / 2)


def test_a_system_that_hides_its_times_tells_no_load(monkeypatch: pytest.MonkeyPatch):
    def hidden(percpu: bool) -> None:
        raise FileNotFoundError("/proc/stat")

    monkeypatch.setattr(psutil, "cpu_times", hidden)
    assert host.CpuLoad().busy_cores() is None


def test_threads_sleep_while_they_wait_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch):
    environment: dict[str, str] = {}
    monkeypatch.setattr(host.os, "environ", environment)
    assert host.waiting() == "they sleep (OMP_WAIT_POLICY=PASSIVE)"
    host.wait_passively()
    assert environment == {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
    environment = {"OMP_WAIT_POLICY": "ACTIVE"}
    monkeypatch.setattr(host.os, "environ", environment)
    host.wait_passively()
    assert environment == {"OMP_WAIT_POLICY": "ACTIVE"} and host.waiting() == "OMP_WAIT_POLICY=ACTIVE"
