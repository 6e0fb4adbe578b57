"""The machine below the frameworks: its memory, this process's share of it, and how its own files and programs are asked.

An amount that the system does not tell is None.
"""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any


def memory_bytes() -> tuple[int | None, int | None]:
    """Return the memory of this machine and what of it is free, or the container's share where that is less."""
    if sys.platform == "linux":
        return _linux_memory()
    if sys.platform == "darwin":
        return _macos_memory()
    if sys.platform == "win32":
        return _windows_memory()
    return None, None


def peak_memory_bytes() -> int | None:
    """Return the most memory this process has had in RAM at a time: weights and everything else, the program included."""
    if sys.platform == "win32":
        return _windows_peak()
    for line in lines(Path("/proc/self/status")):
        if line.startswith("VmHWM:"):  # unlike getrusage's, it does not begin with that of the parent process
            return int(line.split()[1]) * 1024
    import resource  # there on all other systems

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def cpu_name() -> str | None:
    """Return what the processor calls itself."""
    for line in lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        return answer(["sysctl", "-n", "machdep.cpu.brand_string"])
    return platform.processor() or platform.machine() or None


def usable_cores() -> int | None:
    """Return the cores this process may run on, which a container or a job scheduler can limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def lines(path: Path) -> list[str]:
    """Return the lines of one of the system's own files; none where it is not there."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def answer(command: list[str]) -> str | None:
    """Return what one of the system's programs prints, or None where it is not there or fails."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None


def _linux_memory() -> tuple[int | None, int | None]:
    kib = {line.partition(":")[0]: line.split()[1] for line in lines(Path("/proc/meminfo")) if len(line.split()) > 1}
    if not {"MemTotal", "MemAvailable"} <= kib.keys():
        return None, None
    total, free = (int(kib[key]) * 1024 for key in ("MemTotal", "MemAvailable"))
    for limit, share in _group_limits():
        total, free = min(total, limit), min(free, share)
    return total, max(0, free)


def _group_limits() -> list[tuple[int, int]]:
    """Return the limit, and what is left of it, of every control group this process is in that has one."""
    groups = [("memory.max", "memory.current", Path("/sys/fs/cgroup"))]
    for line in lines(Path("/proc/self/cgroup")):
        _, controllers, inside = line.split(":", maxsplit=2)
        if not controllers:
            names, root = ("memory.max", "memory.current"), Path("/sys/fs/cgroup")
        elif "memory" in controllers.split(","):
            names, root = ("memory.limit_in_bytes", "memory.usage_in_bytes"), Path("/sys/fs/cgroup/memory")
        else:
            continue
        own = root / inside.lstrip("/")
        groups += [(*names, folder) for folder in (own, *own.parents) if folder.is_relative_to(root)]
    found = []
    for limit_name, used_name, folder in dict.fromkeys(groups):
        limit, used = lines(folder / limit_name), lines(folder / used_name)
        if limit and used and limit[0].isdecimal():
            # files that were read lately count as used there, but make room when room is needed
            stat = dict(line.split() for line in lines(folder / "memory.stat"))
            found.append((int(limit[0]), int(limit[0]) - int(used[0]) + int(stat.get("inactive_file", 0))))
    return found


def _macos_memory() -> tuple[int | None, int | None]:
    total, pages = answer(["sysctl", "-n", "hw.memsize"]), answer(["vm_stat"])
    if not total or not pages:
        return None, None
    page_bytes = int("".join(c for c in pages.splitlines()[0] if c.isdigit()))
    counts = {line.partition(":")[0]: line.partition(":")[2].strip(" .") for line in pages.splitlines()[1:]}
    free_pages = sum(int(counts.get(f"Pages {kind}", "0")) for kind in ("free", "inactive", "purgeable", "speculative"))
    return int(total), free_pages * page_bytes


class _WindowsMemory(ctypes.Structure):
    """MEMORYSTATUSEX, as GlobalMemoryStatusEx fills it in."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load_percent", ctypes.c_uint32),
        *((name, ctypes.c_uint64) for name in ("total", "available", "a", "b", "c", "d", "e")),
    )


class _WindowsCounters(ctypes.Structure):
    """PROCESS_MEMORY_COUNTERS, as GetProcessMemoryInfo fills it in."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("page_faults", ctypes.c_uint32),
        *((name, ctypes.c_size_t) for name in ("peak", "now", "a", "b", "c", "d", "e", "f")),
    )


def _windows_memory() -> tuple[int | None, int | None]:
    status = _WindowsMemory(length=ctypes.sizeof(_WindowsMemory))
    if not _windows().kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None, None
    return int(status.total), int(status.available)


def _windows_peak() -> int | None:
    counters = _WindowsCounters(length=ctypes.sizeof(_WindowsCounters))
    kernel = _windows().kernel32
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    process = ctypes.c_void_p(kernel.GetCurrentProcess())
    if not kernel.K32GetProcessMemoryInfo(process, ctypes.byref(counters), counters.length):
        return None
    return int(counters.peak)


def _windows() -> Any:
    return getattr(ctypes, "windll")  # noqa: B009  # there only on Windows, and type checkers know it
