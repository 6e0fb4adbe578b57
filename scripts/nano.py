"""A `nano` that is to spell, trained from nothing: pictures, every stage in its turn, the folder in the released layout.

Calls the `sampan` command as a person would and leaves all in runs/nano. A second call goes on where the first one
stopped. `make nano` calls it; without make: `python scripts/nano.py` in the set-up environment.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NANO = Path("runs/nano")
PLAIN = ("--layouts", "placard", "--fonts", "jetbrains-mono", "--letters", "3..8", "--lines", "1")
# What each folder of pictures is made with; tests keep to the other side of every split.
KINDS = {
    "plain": ("signs", "--count", "9000", *PLAIN, "--edits"),
    "emoji": ("emoji", "--count", "96", "--languages", "en,pt", "--edits", "5"),
    "pairs": ("pairs", "--count", "3000", "--emoji", "96"),
}
# How often the rows of a folder are listed: the emoji are few, and each has to be seen some hundred times.
TIMES = {"emoji": 6}
SET = NANO / "set"
RUN = NANO / "run"
MODEL = NANO / "model"


def sampan(*arguments: str | Path) -> None:
    """Run one sampan command from the project's root, its output in view; end with its status where it fails."""
    words = [str(argument) for argument in arguments]
    print(f"\n$ sampan {' '.join(words)}", flush=True)
    if status := subprocess.run([sys.executable, "-m", "sampan", *words], cwd=ROOT, check=False).returncode:
        raise SystemExit(status)


def join() -> None:
    """Write one list of all rows, mixed, beside the folders that hold the pictures."""
    rows = []
    for part in KINDS:
        lines = (ROOT / SET / part / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
        for line in lines * TIMES.get(part, 1):
            row = json.loads(line)
            row["file_name"] = f"{part}/{row['file_name']}"
            if "references" in row:
                row["references"] = [f"{part}/{name}" for name in row["references"]]
            rows.append(row)
    random.Random(0).shuffle(rows)
    beside = ROOT / SET / "metadata.jsonl.part"
    beside.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    beside.replace(ROOT / SET / "metadata.jsonl")


def main() -> int:
    """Do what is not done yet and return 0."""
    for name, (kind, *options) in KINDS.items():
        sampan("data", kind, SET / name, *options)
    if not (ROOT / SET / "metadata.jsonl").is_file():
        join()
    sampan("train", "jobs/nano.toml", *(["--resume"] if (ROOT / RUN).is_dir() else []))
    if not (ROOT / MODEL).is_dir():
        sampan("checkpoint", "export", RUN, MODEL, "--dtype", "bf16")
    print(f"\nthe model: {MODEL}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
