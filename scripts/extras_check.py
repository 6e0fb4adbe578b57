"""Install every extra alone, and the pairs that people install, from the wheel into an empty environment; run its verbs.

The environment of the tests has everything, so that what an extra forgets is there all the same. Here is a user's: the
wheel, what pip chooses for it without constraints.txt, and no checkout on the path. One environment at a time, in a
temporary folder; rows that were done for this very wheel are kept in build/ and not done again.

    python scripts/extras_check.py          all rows, on every Python that is found
    python scripts/extras_check.py --only torch --only mindspore,hub --python 3.12 --python /path/to/python3.13
    python scripts/extras_check.py --write  also write into results/ and docs/extras.md

Needs a package index. PyTorch is the CPU build where scripts/bootstrap.py would take it and finds it, else what pip takes.
Ends with 1 where a row failed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sampan.report import results

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import bootstrap  # noqa: E402
import extras_verbs  # noqa: E402

DONE = ROOT / "build" / "extras-check.jsonl"
PAGE = ROOT / "docs" / "extras.md"
PYTHONS = ("3.11", "3.12", "3.13")
FREE_BYTES = 12e9  # PyTorch with CUDA takes seven, and pip unpacks beside
ALONE = ((), *((name,) for name in ("torch", "mindspore", "tensorflow", "data", "hub", "logs", "wandb", "serve")))
PAIRS = (
    *(("torch", name) for name in ("data", "hub", "logs", "wandb", "serve")),
    *(("mindspore", name) for name in ("data", "hub", "logs", "wandb", "serve")),
    ("torch", "mindspore"),
    ("torch", "tensorflow"),
    ("mindspore", "tensorflow"),
    ("torch", "data", "logs", "serve"),
    ("torch", "mindspore", "tensorflow", "data", "hub", "logs", "serve"),
)
# what the first Python has shown to go together is asked of the others where versions are chosen differently
PAIRS_OF_OTHERS = (("torch", "hub"), ("mindspore", "hub"), ("mindspore", "serve"))
Extras = tuple[str, ...]
Row = dict[str, Any]


def rows_for(version: str, only: Sequence[Extras], *, first: bool) -> list[Extras]:
    """Return the extras of each row for a Python.

    Args:
        version: As in "3.12".
        only: Rows that were asked for; empty takes all that are meant for it.
        first: It is the first Python of several; the others get fewer pairs.
    """
    if only:
        return list(only)
    pairs = PAIRS if first else PAIRS_OF_OTHERS
    # there is no MindSpore for it: alone it shows what is said then
    return [row for row in (*ALONE, *pairs) if not (version == "3.13" and "mindspore" in row and len(row) > 1)]


def find_python(word: str) -> Path | None:
    """Return the interpreter that a path or a version names, or None: `python3.12` on the path, or one of pyenv's."""
    if not word.replace(".", "").isdecimal():
        return Path(word) if shutil.which(word) else None
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    here = [Path(path) for path in (shutil.which(f"python{word}"),) if path]
    for path in [*here, *sorted(pyenv.glob(f"{word}*/bin/python"))]:
        if version_of(path).startswith(f"{word}."):
            return path
    return None


def version_of(python: Path) -> str:
    """Return an interpreter's version, as in "3.12.1"; "" where it is none."""
    code = "import platform; print(platform.python_version())"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def build_wheel(folder: Path) -> Path:
    """Return the wheel of this checkout; what builds it comes from the index unless it is installed."""
    here = subprocess.run([sys.executable, "-c", "import hatchling, editables"], capture_output=True, check=False)
    isolated = [] if here.returncode else ["--no-build-isolation"]
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", *isolated, "-w", folder, ROOT]
    subprocess.run(command, check=True)
    return next(folder.glob("sampan-*.whl"))


def install(python: Path, folder: Path, wheel: Path, extras: Extras) -> Path:
    """Make an environment, install the wheel with extras as a user would, and return its interpreter.

    Raises:
        SystemExit: pip could not; says what it said.
    """
    subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True)
    inside = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    packed = [inside, bootstrap.PIP_WHEEL / "pip", *pip[3:], "--no-index", bootstrap.PIP_WHEEL]
    quietly = {"capture_output": True, "text": True, "env": extras_verbs.environment(folder)}
    subprocess.run(packed, check=True, env=extras_verbs.environment(folder))
    if "torch" in extras:
        nvidia = bootstrap.has_nvidia_driver()
        for attempt in bootstrap.torch_attempts(
            bootstrap.DEFAULT_TORCH_VERSION, bootstrap.DEFAULT_TORCH_INDEX, platform.system(), nvidia
        ):
            if (
                "+cpu" in attempt[0]
                and subprocess.run([*pip, "--no-deps", *attempt], check=False, **quietly).returncode == 0
            ):
                break
    done = subprocess.run([*pip, f"{wheel}[{','.join(extras)}]" if extras else str(wheel)], check=False, **quietly)
    if done.returncode:
        raise extras_verbs.CheckFailed(f"pip: {done.stderr.strip()[-800:]}")
    return inside


def check_row(python: Path, wheel: Path, extras: Extras) -> Row:
    """Install and try one row; a failure of it is part of what is returned."""
    begun_s = time.monotonic()
    row: Row = {"extras": list(extras), "python": version_of(python), "checks": [], "failed": None, "versions": {}}
    with tempfile.TemporaryDirectory(prefix="sampan-extras-") as folder:
        try:
            inside = install(python, Path(folder) / "venv", wheel, extras)
            row["install_s"] = round(time.monotonic() - begun_s)
            tried = extras_verbs.Installed(inside, Path(folder) / "work", extras, row["python"])
            row["versions"] = tried.versions()
            for name, check in extras_verbs.checks(extras, row["python"]).items():
                print(f"    {name}", file=sys.stderr, flush=True)
                check(tried)
                row["checks"].append(name)
        except (extras_verbs.CheckFailed, subprocess.SubprocessError) as error:
            row["failed"] = str(error)
    row["seconds"] = round(time.monotonic() - begun_s)
    return row


# --------------------------------------------------------------------------------------------------------------- records


def done_before(key: str) -> list[Row]:
    """Return the rows that stand in build/ for a wheel; a line that was cut off is none."""
    rows = []
    for line in DONE.read_text(encoding="utf-8").splitlines() if DONE.is_file() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if row.pop("wheel") == key:
            rows.append(row)
    return rows


def content_key(wheel: Path) -> str:
    """Return a hash of what is in a wheel, whatever the times of its files are."""
    import zipfile

    with zipfile.ZipFile(wheel) as archive:
        listed = sorted((entry.filename, entry.CRC) for entry in archive.infolist())
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def order_of(extras: Sequence[str]) -> int:
    """Return the place of a row in the table."""
    known = (*ALONE, *PAIRS)
    return known.index(tuple(extras)) if tuple(extras) in known else len(known)


def name_of(extras: Iterable[str]) -> str:
    """Return a row's name as pip has it."""
    return ",".join(extras) or "none"


def table(record: Mapping[str, Any]) -> str:
    """Return the Markdown table of a record: a line for each set of extras, a column for each Python."""
    cells: dict[str, dict[str, str]] = {}
    for row in record["rows"]:
        said = f"**failed**: {row['failed'].splitlines()[0]}" if row["failed"] else "ok"
        cells.setdefault(name_of(row["extras"]), {})[row["python"].rpartition(".")[0]] = said
    missing = {entry["python"]: entry["why"] for entry in record["not_run"]}
    lines = [f"| extras | {' | '.join(f'Python {version}' for version in PYTHONS)} |", f"|---|{'---|' * len(PYTHONS)}"]
    for name, found in cells.items():
        shown = [found.get(version) or missing.get(version, "-") for version in PYTHONS]
        lines.append(f"| {'none' if name == 'none' else f'`{name}`'} | {' | '.join(shown)} |")
    return "\n".join(lines)


def versions_table(record: Mapping[str, Any]) -> str:
    """Return the Markdown table of what pip chose, for the extras alone and for the largest set of each Python."""
    lines = ["| extras | Python | what pip chose |", "|---|---|---|"]
    for row in record["rows"]:
        if row["versions"] and (len(row["extras"]) == 1 or tuple(row["extras"]) in (("mindspore", "hub"), PAIRS[-1])):
            chosen = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
            lines.append(f"| `{name_of(row['extras'])}` | {row['python']} | {chosen} |")
    return "\n".join(lines)


def page(record: Mapping[str, Any], file: str) -> str:
    """Return docs/extras.md.

    Args:
        file: Name of the record's file in results/.
    """
    made = "\n".join(f"- {name}: {meaning}." for name, meaning in extras_verbs.meanings().items())
    return PAGE_TEXT.format(table=table(record), versions=versions_table(record), checks=made, file=file)


PAGE_TEXT = """\
# Extras

<!-- Written by `python scripts/extras_check.py --write`; change the text there. -->

The core plans, screens, inspects and makes signs. Everything else comes with an extra, alone or together, as in
`pip install 'sampan[torch,hub]'`:

| extra | brings |
|---|---|
| `torch` | training, painting and serving on PyTorch |
| `mindspore` | the same on MindSpore 2.10, on Python 3.11 and 3.12 |
| `tensorflow` | TensorFlow for `sampan bench` |
| `data` | `sampan data emoji` and `sampan data pairs` |
| `hub` | the readers `parquet` and `hub` |
| `logs` | TensorBoard files and `loss.png` |
| `wandb` | Weights & Biases |
| `serve` | `sampan serve` |

`sampan doctor` looks at each: it imports what an extra brings, and takes one training step of a layer on each framework, so
that packages that do not go together show. A verb that misses a package says which extra brings it.

What goes together is not always what pip would choose. MindSpore 2.10 is compiled for NumPy 1 and asks pip for
`numpy>=1.25` alone, and nothing brings `ml_dtypes`, whose 0.6 asks for NumPy 2: the extra `mindspore` holds both back.
pyarrow 26 refuses to be imported beside NumPy 1 and does not say so to pip: the extra `hub` takes an older one wherever
MindSpore can be, below Python 3.13. Name the extras in one command, and name MindSpore's again with a later one:
`pip install 'sampan[mindspore,logs]'`.

## What was tried

`python scripts/extras_check.py` (part of `make test-all`) builds the wheel, installs each row into an empty environment
without constraints, and runs its verbs there; - is a row that was not run on that Python. {file}:

{table}

The checks, each where its extras are there:

{checks}

{versions}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Check all rows that are left, print the table, and return 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], help="extras of a row, by commas; may be repeated")
    parser.add_argument("--python", action="append", default=[], help="a version or a path; default: 3.11 to 3.13")
    parser.add_argument("--again", action="store_true", help="also rows that were done before")
    parser.add_argument("--done", action="store_true", help="run nothing: what was done for this wheel")
    parser.add_argument("--write", action="store_true", help="write into results/ and docs/extras.md")
    options = parser.parse_args(argv)
    only = [tuple(filter(None, word.replace("none", "").split(","))) for word in options.only]
    pythons = {word: find_python(word) for word in options.python or PYTHONS}
    not_run = [{"python": word, "why": "not run here"} for word, path in pythons.items() if path is None]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="sampan-wheel-") as folder:
        wheel = build_wheel(Path(folder))
        key = content_key(wheel)
        before = [] if options.again else done_before(key)
        if options.done:
            rows = list({(name_of(row["extras"]), row["python"]): row for row in before}.values())
        found = [] if options.done else [path for path in pythons.values() if path is not None]
        for python in found:
            version = version_of(python)
            wanted = rows_for(version.rpartition(".")[0], only, first=python == found[0])
            for extras in wanted:
                old = [row for row in before if tuple(row["extras"]) == extras and row["python"] == version]
                if old and not old[-1]["failed"]:
                    rows.append(old[-1])
                    continue
                if shutil.disk_usage(tempfile.gettempdir()).free < FREE_BYTES:
                    print(f"error: less than {FREE_BYTES / 1e9:.0f} GB are free for an environment", file=sys.stderr)
                    return 1
                print(f"{name_of(extras)} on Python {version}", file=sys.stderr, flush=True)
                row = check_row(python, wheel, extras)
                print(f"  {row['failed'] or 'ok'}, {row['seconds']} s", file=sys.stderr, flush=True)
                DONE.parent.mkdir(exist_ok=True)
                with open(DONE, "a", encoding="utf-8") as file:
                    file.write(json.dumps({"wheel": key, **row}) + "\n")
                rows.append(row)
    record = {"machine": results.machine(), "rows": rows, "not_run": not_run}
    record["rows"].sort(key=lambda row: (len(row["extras"]), order_of(row["extras"]), row["python"]))
    print(table(record))
    if options.write:
        path = results.add("extras", record)
        PAGE.write_text(page(record, f"[Measured](../results/{path.name})"), encoding="utf-8")
    return int(any(row["failed"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
