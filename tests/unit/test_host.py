"""Memory of the machine, as each system tells it."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from sampan import host


def test_memory_is_read_on_the_other_systems_too(monkeypatch):
    answers = {
        "sysctl": "17179869184",
        "vm_stat": "Mach Virtual Memory Statistics: (page size of 16384 bytes)\n"
        "Pages free:                  1000.\nPages inactive:               500.\nPages wired down:            9000.",
    }
    monkeypatch.setattr(host, "answer", lambda command: answers[command[0]])
    assert host._macos_memory() == (2**34, 1500 * 16384)
    monkeypatch.setattr(host, "answer", lambda command: None)
    assert host._macos_memory() == (None, None)


def linux(monkeypatch, files: dict[str, list[str]]) -> None:
    monkeypatch.setattr(host, "lines", lambda path: files.get(path.as_posix(), []))


MEMINFO = {"/proc/meminfo": ["MemTotal:       1000 kB", "MemAvailable:    900 kB"]}


def test_a_container_has_only_its_share_of_memory(monkeypatch):
    files = {
        **MEMINFO,
        "/sys/fs/cgroup/memory.max": ["512000"],
        "/sys/fs/cgroup/memory.current": ["300000"],
        "/sys/fs/cgroup/memory.stat": ["anon 100000", "inactive_file 50000"],
    }
    linux(monkeypatch, files)
    assert host._linux_memory() == (512000, 262000)
    linux(monkeypatch, files | {"/sys/fs/cgroup/memory.max": ["max"]})
    assert host._linux_memory() == (1024000, 921600)
    linux(monkeypatch, {})
    assert host._linux_memory() == (None, None)


def test_the_tightest_group_around_a_process_counts(monkeypatch):
    group = "/sys/fs/cgroup/batch/job-7"
    files = {
        **MEMINFO,
        "/proc/self/cgroup": ["0::/batch/job-7/step"],
        f"{group}/memory.max": ["400000"],
        f"{group}/memory.current": ["500000"],
        "/sys/fs/cgroup/batch/memory.max": ["600000"],
        "/sys/fs/cgroup/batch/memory.current": ["1000"],
    }
    linux(monkeypatch, files)
    assert host._linux_memory() == (400000, 0)  # more is used than allowed for a moment: nothing is free


def test_the_older_kind_of_group_is_read_too(monkeypatch):
    files = {
        **MEMINFO,
        "/proc/self/cgroup": ["9:cpu,cpuacct:/", "4:memory:/docker/abc"],
        "/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": ["700000"],
        "/sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes": ["100000"],
    }
    linux(monkeypatch, files)
    assert host._linux_memory() == (700000, 600000)


@pytest.mark.skipif(sys.platform not in ("linux", "darwin", "win32"), reason="no amounts are known there")
def test_this_machine_has_memory_and_this_process_takes_some_of_it():
    total, free = host.memory_bytes()
    assert total and free and 0 < free <= total
    before = host.peak_memory_bytes()
    block = np.ones(64 * 2**20, np.uint8)
    after = host.peak_memory_bytes()
    assert before and after and before <= after <= total
    assert after >= block.nbytes
