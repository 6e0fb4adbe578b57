"""How long `sampan plan` takes on one core: 20 chips at 10 sites, every layout on up to 1,024 chips, imports included.

    python benchmarks/plan_speed.py [--repeats 5]

The job is the glm-image preset with 1,024 samples in an update of each stage, so that every count up to 1,024 has layouts.
Each repeat is a new process, held to one core where the system can; its JSON and its tables go to a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sampan.init import write
from sampan.report import results
from sampan.units import format_seconds

CHIPS = (
    "a100_80", "a800", "ascend_910b1", "ascend_910b2", "ascend_910b3", "ascend_910b4", "ascend_910c", "b200", "gaudi2",
    "gaudi3", "h100_pcie", "h100_sxm", "h20", "h200", "h800", "kunlun_p800", "l40s", "mi300x", "mlu590", "tpu_v5p",
)  # fmt: skip
SITES = ("ae", "br_ceara", "br_sp", "cl", "cn_beijing", "cn_inner_mongolia", "de", "my_johor", "sg", "us_va")
COUNTS = "1..1024"
PASSES = {
    "vae": 128,
    "tokenizer": 64,
    "glyph": 16,
    "ar": 64,
    "decoder": 64,
}  # times the preset's micro-batch: 1,024 each
BAR_S = 5.0


def main() -> None:
    """Time it, print the median and add a record to results/."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    before = results.load_average()
    with tempfile.TemporaryDirectory() as folder:
        taken = [_run(Path(folder), repeat) for repeat in range(repeats)]
    record: dict[str, Any] = {
        "what": "sampan plan, whole process",
        **results.conditions(before),
        "preset": "glm-image",
        "chips": CHIPS,
        "sites": SITES,
        "counts": COUNTS,
        "global_batch_size": 1024,
        "repeats": repeats,
        "wall_s": {"median": statistics.median(taken), "low": min(taken), "high": max(taken), "each": taken},
        "bar_s": BAR_S,
    }
    path = results.add("plan-speed", record)
    print(
        f"{format_seconds(record['wall_s']['median'])} in the median of {repeats}, of {format_seconds(BAR_S)}: {path}"
    )


def _run(folder: Path, repeat: int) -> float:
    job = folder / f"job{repeat}.toml"
    write(job, "glm-image", False)
    overrides = [f"--set=stage.{stage}.grad_accum_steps={passes}" for stage, passes in PASSES.items()]
    words = ["--chips", ",".join(CHIPS), "--sites", ",".join(SITES), "--count", COUNTS]
    command = [
        sys.executable,
        "-m",
        "sampan",
        "plan",
        str(job),
        *words,
        *overrides,
        "--json",
        str(folder / "plan.json"),
    ]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, preexec_fn=_one_core)
    return time.perf_counter() - started


def _one_core() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


if __name__ == "__main__":
    main()
