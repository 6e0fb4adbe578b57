"""One small picture while another program keeps every core busy, and alone: this checkout beside another one.

python benchmarks/busy_machine.py OTHER_CHECKOUT [--rounds N] [--steps N]

Every round runs `sampan generate` of both checkouts in turn, alone and beside a program that keeps all cores busy, as a
process of its own with no OpenMP variable set. What counts are medians of the rounds' ratios: the machine may be used by
others meanwhile, who then disturb both sides. The seconds of the picture are those of its own record, weights read and
nothing imported; the processor's are those of the whole process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sampan.host import usable_cores
from sampan.report import results

ROOT = Path(__file__).resolve().parent.parent
PROMPT = 'a red sign with "BOAT"'
LIMIT_S = 300
SPIN = "while True: pass"


@contextmanager
def busy(cores: int) -> Iterator[None]:
    """Keep so many cores busy while the block runs."""
    others = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(cores)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def picture(checkout: Path, steps: int, folder: Path) -> dict[str, float | None]:
    """Return the seconds of a picture, of its process, and of the processor; None: longer than the limit."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "KMP_", "GOMP_"))}
    environment["PYTHONPATH"] = str(checkout / "src")
    command = [
        sys.executable, "-m", "sampan", "generate", PROMPT, "--model", "nano", "--device", "cpu", "--dtype", "fp32",
        "--framework", "torch", "--steps", str(steps), "--seed", "1", "--json", "--out", str(folder / "picture.png"),
    ]  # fmt: skip
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=True)
    except subprocess.TimeoutExpired:
        return {"picture_s": None, "process_s": None, "processor_s": None}
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "picture_s": json.loads(done.stdout)["pictures"][0]["seconds"],
        "process_s": round(time.perf_counter() - begun, 3),
        "processor_s": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 3),
    }


def ratio(rounds: list[dict[str, Any]], key: str, one: str, other: str) -> dict[str, Any]:
    """Return the median over the rounds of one side over the other; a side beyond the limit counts as the limit."""
    each = [
        round((entry[one][key] or LIMIT_S) / (entry[other][key] or LIMIT_S), 3)
        for entry in rounds
    ]  # fmt: skip
    return {"median": statistics.median(each), "each": each}


def main() -> None:
    """Measure rounds in turn, print medians and keep them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="checkout to compare with")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--steps", type=int, default=20, help="default: 20")
    arguments = parser.parse_args()
    cores, load_before, rounds = usable_cores() or 1, results.load_average(), []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            sides = {"before": arguments.other, "after": ROOT}
            if number % 2:
                sides = dict(reversed(sides.items()))
            entry: dict[str, Any] = {"load_average": results.load_average()}
            for name, checkout in sides.items():
                entry[f"{name}_alone"] = picture(checkout, arguments.steps, Path(folder))
            with busy(cores):
                for name, checkout in sides.items():
                    entry[f"{name}_busy"] = picture(checkout, arguments.steps, Path(folder))
            rounds.append(entry)
            print(json.dumps(entry), flush=True)
    compared = {
        "alone, after over before": ("after_alone", "before_alone"),
        "busy, after over before": ("after_busy", "before_busy"),
        "before, busy over alone": ("before_busy", "before_alone"),
        "after, busy over alone": ("after_busy", "after_alone"),
    }
    record = {
        "what": "generate: one picture of nano alone, and beside a program that keeps every core busy",
        "compared_with": results.commit(arguments.other.resolve() / "src/sampan"),
        "steps": arguments.steps,
        "limit_s": LIMIT_S,
        **results.conditions(load_before),
        "rounds": rounds,
        "ratios": {
            name: {key: ratio(rounds, key, *sides) for key in ("picture_s", "processor_s")}
            for name, sides in compared.items()
        },
    }
    for name, values in record["ratios"].items():
        print(f"{name}: " + ", ".join(f"{key} {value['median']:.2f}" for key, value in values.items()))
    print(results.add("busy-machine", record, ROOT / "results"))


if __name__ == "__main__":
    main()
