"""The promises of the tree as a whole: light to import, layered, no giant files, nothing only one machine has."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    "numpy",
    "torch",
    "PIL",
    "rich",
    "safetensors",
    "tokenizers",
    "transformers",
    "diffusers",
    "uharfbuzz",
    "emoji",
    "filelock",
    "psutil",
)
MAX_LINES = 400
MAX_LINES_WITH_REASON = 800
REASON = "# over 400 lines because "
# Measured 0.10 s on two idle cores; the promise is 0.5 s. The least of several runs is what the command itself needs:
# other work on the machine only adds to it.
LONGEST_ANSWER_S = 0.5
RUNS = 7

HELP = """
import json, sys
try:
    from sampan.cli import main
    status = main(["--help"])
except SystemExit as exit:
    status = exit.code
print("MODULES", json.dumps([status or 0, sorted(sys.modules)]))
"""


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this interpreter from the project's root and return what it said."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def source_files() -> list[Path]:
    """Return every Python file of the project, those of tests and scripts included."""
    return sorted(path for room in ("src", "tests", "scripts", "benchmarks") for path in (ROOT / room).rglob("*.py"))


def loaded_heavy(modules: list[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules} & set(HEAVY)


def test_importing_the_package_loads_nothing_heavy():
    answer = run_python("-c", "import json, sys, sampan; print(json.dumps(sorted(sys.modules)))")
    assert answer.returncode == 0, answer.stderr
    modules = json.loads(answer.stdout)
    assert "sampan" in modules
    assert loaded_heavy(modules) == set()
    assert [name for name in modules if name.startswith("sampan.")] == []


def test_help_answers_without_loading_anything_heavy():
    answer = run_python("-c", HELP)
    assert answer.returncode == 0, answer.stderr
    text, _, tail = answer.stdout.rpartition("MODULES ")
    status, modules = json.loads(tail)
    assert status == 0
    assert "generate" in text
    assert "train" in text
    assert loaded_heavy(modules) == set()


def test_help_answers_in_under_half_a_second():
    took_s = []
    for _ in range(RUNS):
        start_s = time.perf_counter()
        answer = run_python("-m", "sampan", "--help")
        took_s.append(time.perf_counter() - start_s)
        assert answer.returncode == 0, answer.stderr
        if took_s[-1] < LONGEST_ANSWER_S / 2:
            break
    assert min(took_s) < LONGEST_ANSWER_S


def test_the_version_is_one_number():
    answer = run_python("-m", "sampan", "--version")
    assert answer.returncode == 0, answer.stderr
    written = re.search(r'__version__ = "([^"]+)"', (ROOT / "src/sampan/__init__.py").read_text(encoding="utf-8"))
    assert written is not None
    assert written[1] in answer.stdout
    assert f"## {written[1]}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_rooms_import_downward_only_and_each_framework_stays_in_its_folder():
    answer = run_python("-c", "from importlinter.cli import lint_imports_command; lint_imports_command()")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "0 broken" in answer.stdout


def test_every_room_has_a_place_in_the_layers():
    # import-linter counts packages; a file of Python in a folder without __init__.py would escape it.
    package = ROOT / "src/sampan"
    folders = {path.parent for path in package.rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize("path", source_files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_file_is_giant(path: Path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MAX_LINES_WITH_REASON
    if len(lines) > MAX_LINES:
        assert any(line.startswith(REASON) for line in lines), f"{len(lines)} lines and no line `{REASON}…`"


def test_no_file_is_named_after_nothing():
    nothing = {"utils.py", "common.py", "helpers.py", "misc.py"}
    assert [path for path in source_files() if path.name in nothing] == []


def test_every_unit_test_stands_where_its_source_does():
    # tests/unit/models/test_x.py tests src/sampan/models/x.py; the files at the top test single modules and the tree.
    rooms = {path.name for path in (ROOT / "tests/unit").iterdir() if path.is_dir() and path.name != "__pycache__"}
    known = {path.name for path in (ROOT / "src/sampan").iterdir() if path.is_dir()} | {"scripts"}
    assert rooms <= known


def test_constraints_pin_every_dependency_exactly():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", line)] == []
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in pins}
    names = {re.split(r"[\[<>=]", requirement)[0].lower() for requirement in wanted}
    assert names - pinned == set()


def test_what_make_check_leaves_out_is_there():
    from tests.unit.conftest import PROCESS

    assert [name for name in PROCESS if not (ROOT / "tests/unit" / name).exists()] == []
