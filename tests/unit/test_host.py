"""Memory of the machine, as each system tells it."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace

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
