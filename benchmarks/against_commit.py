"""This checkout beside an earlier commit, through the command line alone: outputs compared first, then time, in turn.

    python benchmarks/against_commit.py COMMIT [--rounds 7] [--only generate]

The earlier commit is checked out below a temporary folder and runs on the same environment. A round runs every command once
on each side, and the side that begins changes from round to round. What counts is the CPU time of the whole process on one
thread (user and system), so that other programs on the machine disturb little; for training also pictures a second of each
stage as the run's own log has them. Ratios are earlier / now: above 1, this checkout is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sampan.report import results

ROOT = Path(__file__).resolve().parents[1]
SIGN = 'a red sign that says "AHOY"'
STAGES = ("vae", "tokenizer", "glyph", "ar", "decoder")


@dataclass(frozen=True)
class Row:
    """One command.

    Args:
        words: After `sampan`; run in a folder of the side's own.
        output: Reads what the command wrote there, to be equal on both sides within 1e-6.
    """

    what: str
    words: tuple[str, ...]
    output: Callable[[Path], Any] = lambda folder: None


def image(folder: Path) -> Any:
    """Return the pixels that were written."""
    return np.asarray(Image.open(folder / "out.png")).astype(np.float64)


def losses(folder: Path) -> Any:
    """Return every loss of a run's log."""
    lines = (folder / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return np.array([row["loss"] for row in map(json.loads, lines) if "loss" in row])


ROWS = (
    Row("start: --help", ("--help",)),
    Row("start: plan of a laptop job", ("plan", str(ROOT / "jobs/lora.toml"))),
    Row("start: checkpoint inspect nano", ("checkpoint", "inspect", "nano")),
    Row("one image, 80 tokens, 2 steps", ("generate", SIGN, "--seed", "1", "--steps", "2", "--out", "out.png"), image),
    Row(
        "one image, 80 tokens, 50 steps", ("generate", SIGN, "--seed", "1", "--steps", "50", "--out", "out.png"), image
    ),
    Row("a training of five stages", ("train", "job.toml"), losses),
)


def prepare(folder: Path) -> None:
    """Write what the commands read: a small job with its pictures."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    text = (ROOT / "jobs/smoke.toml").read_text(encoding="utf-8")
    text = text.replace('"runs/smoke"', '"run"').replace('"runs/smoke-pictures"', '"pictures"')
    (folder / "job.toml").write_text(text, encoding="utf-8")
    make = ("data", "emoji", "pictures", "--count", "8", "--size", "64", "--edits", "1")
    subprocess.run([sys.executable, "-m", "sampan", *make], cwd=folder, check=True, capture_output=True)


def run(source: Path, folder: Path, row: Row) -> tuple[float, dict[str, float]]:
    """Run a command on one side; return its CPU seconds, and pictures a second by stage where it trains."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "sampan", *row.words],
        cwd=folder, env={**os.environ, **threads, "PYTHONPATH": str(source / "src")}, check=True, capture_output=True,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    speeds: dict[str, float] = {}
    if row.words[0] == "train":
        for line in (folder / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if "images_per_s" in entry:
                speeds[entry["stage"]] = entry["images_per_s"]
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, speeds


def quartiles(ratios: list[float]) -> dict[str, float]:
    """Return the median and the quartiles."""
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return {"median": round(middle, 3), "low": round(low, 3), "high": round(high, 3)}


def main() -> None:
    """Compare, print a row a command, and add a record to results/."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("commit")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="commands whose description contains this")
    options = parser.parse_args()
    rows = [row for row in ROWS if options.only in row.what]
    with tempfile.TemporaryDirectory() as place:
        earlier = Path(place) / "earlier"
        subprocess.run(
            ["git", "-C", str(ROOT), "worktree", "add", "--detach", str(earlier), options.commit],
            check=True, capture_output=True,
        )  # fmt: skip
        try:
            record = compare({"earlier": earlier, "now": ROOT}, Path(place), rows, options.rounds)
        finally:
            subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(earlier)], check=False)
    print(f"wrote {results.add('against-commit', {'commit_before': options.commit, **record})}")


def compare(sides: dict[str, Path], place: Path, rows: list[Row], rounds: int) -> dict[str, Any]:
    """Return the record of all rounds."""
    folders = {side: place / f"{side}-files" for side in sides}
    for folder in folders.values():
        prepare(folder)
    load = results.load_average()
    found: list[dict[str, Any]] = []
    for row in rows:
        for side, source in sides.items():  # the warm-up; its outputs are compared
            run(source, folders[side], row)
        outputs = [row.output(folder) for folder in folders.values()]
        apart = 0.0 if outputs[0] is None else float(np.abs(outputs[0] - outputs[1]).max())
        if apart > 1e-6:
            raise SystemExit(f"{row.what}: outputs differ by {apart:g}; nothing is timed")
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        speeds: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        for number in range(rounds):
            for side in list(sides) if number % 2 == 0 else list(reversed(sides)):
                took, by_stage = run(sides[side], folders[side], row)
                seconds[side].append(took)
                speeds[side].append(by_stage)
        ratios = [a / b for a, b in zip(seconds["earlier"], seconds["now"], strict=True)]
        found.append({"what": row.what, "ratio": quartiles(ratios), "cpu_s": seconds, "outputs_differ_by": apart})
        for stage in STAGES if speeds["now"][0] else ():
            pairs = zip(speeds["earlier"], speeds["now"], strict=True)
            ratios = [after[stage] / before[stage] for before, after in pairs]
            found.append({"what": f"training step, {stage}", "ratio": quartiles(ratios)})
        for one in found[-6:] if speeds["now"][0] else found[-1:]:
            ratio = one["ratio"]
            print(f"{one['what']:36} {ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})", flush=True)
    return {
        "what": "this checkout beside an earlier commit: CPU time of whole processes, one thread; earlier / now",
        "date": results.today(),
        "machine": results.machine(),
        "load_average": {"before": load, "after": results.load_average()},
        "rounds": rounds,
        "rows": found,
    }


if __name__ == "__main__":
    main()
