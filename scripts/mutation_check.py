"""Change one constant of the recipe at a time and see which quick test notices.

    python scripts/mutation_check.py                 all of them, about a quarter of an hour; writes docs/mutations.md
    python scripts/mutation_check.py --only NAME …   some, and writes nothing

The list is scripts/mutations.toml. Each change is made in a copy of src/ below a temporary folder; the tests are those of
this checkout, without their slow ones. A mutation names the files whose tests should notice, so that the whole suite does not
run for each; what they catch the quick suite catches. Exit status 1 where a change went unnoticed, 2 where a constant has
moved and the list has to follow.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "mutations.md"
QUICK = "not slow and not gpu and not npu and not network"
LIST = ROOT / "scripts" / "mutations.toml"


@dataclass(frozen=True)
class Mutation:
    """One changed constant.

    Args:
        name: What is changed, in the field's words.
        file: Below src/sampan.
        before, after: Text that stands in the file exactly once, and what takes its place.
        tests: Files that should notice, or `FILE -k WORD` for the tests of a file whose names have that word.
    """

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]


def mutations() -> list[Mutation]:
    """Return the list."""
    rows = tomllib.loads(LIST.read_text(encoding="utf-8"))["mutation"]
    return [Mutation(**{**row, "tests": tuple(row["tests"])}) for row in rows]


def problem(mutation: Mutation) -> str | None:
    """Return why a mutation cannot be made, or None."""
    path = ROOT / "src/sampan" / mutation.file
    if not path.is_file():
        return f"there is no {mutation.file}"
    count = path.read_text(encoding="utf-8").count(mutation.before)
    return None if count == 1 else f"`{mutation.before}` stands {count} times in {mutation.file}"


def noticed_by(mutation: Mutation, copy: Path) -> str | None:
    """Make the change in a copy of src/, run the tests that should notice, and return the first one that failed."""
    path = copy / "sampan" / mutation.file
    right = path.read_text(encoding="utf-8")
    path.write_text(right.replace(mutation.before, mutation.after), encoding="utf-8")
    try:
        for test in mutation.tests:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", QUICK, *test.split()],
                cwd=ROOT, env={**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"},
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode not in (0, 1, 2):
                raise SystemExit(f"{mutation.name}: pytest ended with {done.returncode}\n{done.stdout[-2000:]}")
            failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
            if failed:
                return failed.group(1).partition("[")[0]
        return None
    finally:
        path.write_text(right, encoding="utf-8")


def page(rows: Sequence[tuple[Mutation, str | None]]) -> str:
    """Return the table in Markdown."""
    caught = sum(test is not None for _, test in rows)
    lines = [
        "# Mutations of the recipe",
        "",
        "One constant is changed at a time, and the quick tests run; written by `python scripts/mutation_check.py`.",
        f"{caught} of {len(rows)} changes are caught.",
        "",
        "| constant | file | from | to | caught by |",
        "|---|---|---|---|---|",
    ]
    for mutation, test in rows:
        before, after = (_changed(text).replace("|", "\\|") for text in _difference(mutation.before, mutation.after))
        lines.append(
            f"| {mutation.name} | `{mutation.file}` | `{before}` | `{after}` | {f'`{test}`' if test else '**nothing**'} |"
        )
    return "\n".join(lines) + "\n"


def _difference(before: str, after: str) -> tuple[str, str]:
    """Return the two texts from the last quotation mark or line's begin before their first difference."""
    same = next((place for place, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(before))
    begin = max(before.rfind(sign, 0, same) for sign in '"\n') + 1
    return before[begin:], after[begin:]


def _changed(text: str) -> str:
    return " ".join(text.strip(" ,\n").split())


def main() -> int:
    """Run the check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="mutations whose names contain one of these")
    options = parser.parse_args()
    chosen = [m for m in mutations() if not options.only or any(word in m.name for word in options.only)]
    moved = [f"{m.name}: {why}" for m in chosen if (why := problem(m))]
    if moved:
        print("\n".join(["constants have moved:", *moved]), file=sys.stderr)
        return 2
    rows: list[tuple[Mutation, str | None]] = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "src"
        shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
        for number, mutation in enumerate(chosen, 1):
            began = time.perf_counter()
            rows.append((mutation, noticed_by(mutation, copy)))
            result = rows[-1][1] or "NOT CAUGHT"
            print(
                f"{number:2}/{len(chosen)} {mutation.name}: {result} ({time.perf_counter() - began:.0f} s)", flush=True
            )
    if not options.only:
        PAGE.write_text(page(rows), encoding="utf-8")
        print(f"wrote {PAGE.relative_to(ROOT)}")
    return 0 if all(test for _, test in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
