"""The machine below the frameworks: its memory, this process's share of it, and how its own files and programs are asked.

psutil tells what every system has; what a container may use of it, and the names of chips, are asked here. An amount that
the system does not tell is None.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")


def memory_bytes() -> tuple[int | None, int | None]:
    """Return the memory of this machine and what of it is free, or the container's share where that is less."""
    import psutil

    try:
        memory = psutil.virtual_memory()
    except OSError:  # a system that hides its /proc
        return None, None
    limits = [(memory.total, memory.available), *_group_limits()]
    return min(total for total, _ in limits), max(0, min(free for _, free in limits))


def peak_memory_bytes() -> int | None:
    """Return the most memory this process has had in RAM at a time: weights and everything else, the program included."""
    for line in lines(Path("/proc/self/status")):
        if line.startswith("VmHWM:"):  # psutil has no peak on Linux, and getrusage's begins with the parent process's
            return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    import resource  # there on all other systems

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def thread_ids() -> list[int]:
    """Return the system's numbers of this process's threads."""
    import psutil

    return [thread.id for thread in psutil.Process().threads()]


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


def _group_limits() -> list[tuple[int, int]]:
    """Return the limit, and what is left of it, of every Linux control group this process is in that has one."""
    version_2, version_1 = ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")
    places = [(_GROUPS, version_2)]
    for line in lines(Path("/proc/self/cgroup")):
        _, controllers, inside = line.split(":", maxsplit=2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, names = (_GROUPS / "memory", version_1) if controllers else (_GROUPS, version_2)
        group = root / inside.lstrip("/")
        places += [(folder, names) for folder in (group, *group.parents) if folder.is_relative_to(root)]
    limits = []
    for folder, (limit_name, used_name) in dict.fromkeys(places):
        limit, used = lines(folder / limit_name), lines(folder / used_name)
        if limit and used and limit[0].isdecimal():
            # files that were read lately count as used there, but make room when room is needed
            stat = dict(line.split() for line in lines(folder / "memory.stat"))
            limits.append((int(limit[0]), int(limit[0]) - int(used[0]) + int(stat.get("inactive_file", 0))))
    return limits
