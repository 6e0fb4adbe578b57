"""A `nano` that spells, trained from nothing: pictures, three jobs one after another, the folder in the released layout.

Calls the `sampan` command as a person would and leaves all in runs/nano. A second call goes on where the first one
stopped. `make nano` calls it; without make: `python scripts/nano.py` in the set-up environment.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from sampan.checkpoint.knowledge import ModelKnowledge, state_knowledge
from sampan.synthetic.emoji_names import catalogue

ROOT = Path(__file__).resolve().parent.parent
NANO = Path("runs/nano")
LANGUAGES = ("en", "pt")
PLAIN = ("--layouts", "placard", "--fonts", "jetbrains-mono", "--lines", "1")
# What each folder of pictures is made with; tests keep to the other side of every split.
KINDS = {
    "plain": ("signs", "--count", "9000", "--letters", "3..8", *PLAIN, "--edits"),
    "brief": ("signs", "--count", "3000", "--letters", "3..4", "--seed", "12", *PLAIN),
    "short": ("signs", "--count", "5000", "--letters", "1..2", "--seed", "11", *PLAIN),
    "names": ("emoji", "--count", "96", "--languages", ",".join(LANGUAGES)),
    "emoji": ("emoji", "--count", "96", "--languages", "en,pt", "--edits", "5"),
    "pairs": ("pairs", "--count", "3000", "--emoji", "96"),
}
# How often the rows of a folder are listed: the emoji are few, and the generator has to be asked for each by its name some
# hundred times before it knows which tokens are meant; ten of eleven rows of `emoji` have a colour or are edits. From words
# of one letter or two the decoder learns what a byte looks like before it has to find out which byte stands where.
TIMES = {"names": 80, "emoji": 12, "short": 2}
# Black on white, for the second job; words of two and three letters are easier still.
LETTERS = {
    "black": ("signs", "--count", "4000", "--letters", "2..8", "--seed", "21", *PLAIN),
    "brief": ("signs", "--count", "2000", "--letters", "2..3", "--seed", "22", *PLAIN),
}
BLACK_ON_WHITE = ("--plates", "white", "--inks", "black")
SETS = {
    NANO / "set": KINDS,
    NANO / "letters": {name: (*options, *BLACK_ON_WHITE) for name, options in LETTERS.items()},
}
# Each starts from what the one before it left.
JOBS = {
    Path("jobs/nano.toml"): NANO / "run",
    Path("jobs/nano-letters.toml"): NANO / "letters-run",
    Path("jobs/nano-words.toml"): NANO / "words-run",
}
MODEL = NANO / "model"
# Prompts of the kinds that it was shown; each was painted by the packed weights and looked at.
EXAMPLES = (
    'a red sign that says "AHOY"',
    'a blue sign that says "SAMPAN"',
    '"COFFEE" on a brown sign',
    'a yellow sign with "TAXI" in black',
    'a black sign that says "OPEN"',
    "red apple",
    "maçã vermelha",
    "panda",
    "strawberry",
    "foguete sobre um fundo azul",
)


def sampan(*arguments: str | Path) -> None:
    """Run one sampan command from the project's root, its output in view; end with its status where it fails."""
    words = [str(argument) for argument in arguments]
    print(f"\n$ sampan {' '.join(words)}", flush=True)
    if status := subprocess.run([sys.executable, "-m", "sampan", *words], cwd=ROOT, check=False).returncode:
        raise SystemExit(status)


def join(folder: Path, parts: Iterable[str]) -> None:
    """Write one list of all rows, mixed, beside the folders that hold the pictures."""
    rows = []
    for part in parts:
        lines = (ROOT / folder / part / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
        for line in lines * TIMES.get(part, 1):
            row = json.loads(line)
            row["file_name"] = f"{part}/{row['file_name']}"
            if "references" in row:
                row["references"] = [f"{part}/{name}" for name in row["references"]]
            rows.append(row)
    random.Random(0).shuffle(rows)
    beside = ROOT / folder / "metadata.jsonl.part"
    beside.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    beside.replace(ROOT / folder / "metadata.jsonl")


def knowledge() -> ModelKnowledge:
    """Return what a model of this recipe knows: the emoji of `names`, which are its subjects, and prompts that work."""
    count = int(KINDS["names"][KINDS["names"].index("--count") + 1])
    names = [name for emoji in catalogue(LANGUAGES)[:count] for name in emoji.names.values()]
    return ModelKnowledge(tuple(dict.fromkeys(names)), LANGUAGES, EXAMPLES)


def main() -> int:
    """Do what is not done yet and return 0."""
    for folder, kinds in SETS.items():
        for name, (kind, *options) in kinds.items():
            sampan("data", kind, folder / name, *options)
        if not (ROOT / folder / "metadata.jsonl").is_file():
            join(folder, kinds)
    for job, run in JOBS.items():
        sampan("train", job, *(["--resume"] if (ROOT / run).is_dir() else []))
    if not (ROOT / MODEL).is_dir():
        sampan("checkpoint", "export", list(JOBS.values())[-1], MODEL, "--dtype", "bf16")
    state_knowledge(ROOT / MODEL, knowledge())
    print(f"\nthe model: {MODEL}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
