"""The machine below the frameworks: its memory, its cores, this process's share of them, and how its own files and programs
are asked.

psutil tells what every system has; what a container may use of it, and the names of chips, are asked here. An amount that
the system does not tell is None.
"""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_LOOKED_AT_S = 0.1
_VALUES_PER_THREAD = 4_000_000  # nano's decoder has 7.8 million, and two threads still paint it faster than one
_MAX_STATED = 1024


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
    """Return the cores this process may run on, which a container or a job scheduler can limit.

    A quota of processor time counts as the cores that would use it up, rounded up.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _core_quota()
    return cores if cores is None or quota is None else max(1, min(cores, math.ceil(quota)))


class CpuLoad:
    """How many cores other programs keep busy, from the making of this object on."""

    def __init__(self) -> None:
        self._before = self._now()

    def busy_cores(self) -> float | None:
        """Return how many of the cores this process may run on were busy with other programs; None: the system does not tell.

        Waits until a tenth of a second has been looked at, as the system counts in hundredths.
        """
        if self._before is None:
            return None
        time.sleep(max(0.0, _LOOKED_AT_S - (time.monotonic() - self._before[0])))
        now = self._now()
        if now is None:
            return None
        elapsed_s, busy_s, own_s = (after - before for after, before in zip(now, self._before, strict=True))
        return max(0.0, (busy_s - own_s) / elapsed_s)

    def _now(self) -> tuple[float, float, float] | None:
        """Return a clock, the time that this process's cores have been busy, and what of it was its own."""
        import psutil

        try:
            times = psutil.cpu_times(percpu=True)
        except (OSError, RuntimeError):  # a system that hides its /proc
            return None
        if hasattr(os, "sched_getaffinity"):
            allowed = [times[number] for number in os.sched_getaffinity(0) if number < len(times)]
            times = allowed or times
        idle = ("idle", "iowait", "guest", "guest_nice")  # a guest's time is in the user's too
        busy_s = sum(sum(core) - sum(getattr(core, name, 0.0) for name in idle) for core in times)
        return time.monotonic(), busy_s, time.process_time()


@dataclass(frozen=True)
class ThreadChoice:
    """How many CPU threads to compute on, and from which facts that follows."""

    count: int
    why: str


def choose_threads(num_values: int, load: CpuLoad) -> ThreadChoice:
    """Return on how many CPU threads a model is best run here and now, where nobody says it.

    One thread for each core that other programs leave free, but at least a quarter of the cores: with barriers after every
    product, a thread that has to wait for its core holds up all others. A small model has too little for many threads.

    Args:
        num_values: Values of the model's largest part, times the pictures that are made together.
        load: Of some time before.
    """
    cores = usable_cores() or 1
    stated = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if stated.isdecimal() and 0 < int(stated) <= _MAX_STATED:
        return ThreadChoice(int(stated), "OMP_NUM_THREADS says so")
    busy = load.busy_cores()
    free = cores if busy is None else max(1, cores // 4, round(cores - busy))
    useful = max(1, math.ceil(num_values / _VALUES_PER_THREAD))
    why = f"{cores} cores" if busy is None else f"{cores} cores, of which others keep {busy:.1f} busy"
    if useful < free:
        return ThreadChoice(useful, f"{why}; the model is too small for more")
    return ThreadChoice(free, why)


def wait_passively() -> None:
    """Let threads that wait for others sleep, not spin: spinning takes the cores from whoever has work.

    OpenMP's libraries read this when they are loaded, so it is called before a framework is imported. What the user has
    set stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # GNU's, which comes with PyTorch on Linux, and LLVM's
        os.environ.setdefault("KMP_BLOCKTIME", "0")  # Intel's and LLVM's wait 200 ms all the same


def waiting() -> str:
    """Return in words how threads wait for each other: as the user said, or as `wait_passively` does."""
    stated = os.environ.get("OMP_WAIT_POLICY")
    return f"OMP_WAIT_POLICY={stated}" if stated else "they sleep (OMP_WAIT_POLICY=PASSIVE)"


def _core_quota() -> float | None:
    """Return how many cores' time the tightest Linux control group around this process allows, or None."""
    quotas = []
    for folder in _group_folders("cpu"):
        words = " ".join(lines(folder / "cpu.max")).split()  # version 2: "200000 100000", or "max 100000"
        if not words:
            words = [*lines(folder / "cpu.cfs_quota_us"), *lines(folder / "cpu.cfs_period_us")]
        if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]):
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


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
    limits = []
    for folder in _group_folders("memory"):
        limit = lines(folder / "memory.max") or lines(folder / "memory.limit_in_bytes")
        used = lines(folder / "memory.current") or lines(folder / "memory.usage_in_bytes")
        if limit and used and limit[0].isdecimal():
            # files that were read lately count as used there, but make room when room is needed
            stat = dict(line.split() for line in lines(folder / "memory.stat"))
            limits.append((int(limit[0]), int(limit[0]) - int(used[0]) + int(stat.get("inactive_file", 0))))
    return limits


def _group_folders(controller: str) -> list[Path]:
    """Return the folders of the Linux control groups around this process, of both versions, that limit one thing."""
    places = [_GROUPS]
    for line in lines(Path("/proc/self/cgroup")):
        _, controllers, inside = line.split(":", maxsplit=2)
        if controllers and controller not in controllers.split(","):
            continue
        root = _GROUPS / controller if controllers else _GROUPS
        group = root / inside.lstrip("/")
        places += [folder for folder in (group, *group.parents) if folder.is_relative_to(root)]
    return list(dict.fromkeys(places))
