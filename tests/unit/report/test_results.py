"""Results are only added to, and each names the commit that measured."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sampan.report import results

FOLDER = Path(__file__).parents[3] / "results"


def test_a_second_result_of_a_day_has_a_number_and_the_first_stays(tmp_path: Path):
    folder = tmp_path / "results"
    paths = [results.add("bench_cpu", {"date": "2026-11-23", "number": number}, folder) for number in range(3)]
    assert [path.name for path in paths] == [
        "bench_cpu_20261123.json", "bench_cpu_20261123_2.json", "bench_cpu_20261123_3.json",
    ]  # fmt: skip
    assert [json.loads(path.read_text(encoding="utf-8"))["number"] for path in paths] == [0, 1, 2]


def test_a_named_file_is_written_where_it_was_said(tmp_path: Path):
    path = tmp_path / "new" / "x.json"
    for number in range(2):
        assert results.put(path, {"number": number}) == path
    assert json.loads(path.read_text(encoding="utf-8")) == {**results.commit(), "number": 1}


def test_a_record_without_a_date_is_of_today(tmp_path: Path):
    path = results.add("x", {}, tmp_path)
    assert path.name == f"x_{results.today().replace('-', '')}.json"
    assert json.loads(path.read_text(encoding="utf-8")) == {**results.commit(), "date": results.today()}


def test_every_result_names_a_commit():
    older = dict(
        re.findall(r"^\| `(.+)` \| ([0-9a-f]{40}) \|$", (FOLDER / "README.md").read_text(encoding="utf-8"), re.M)
    )
    records = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.json")}
    without = {name for name, record in records.items() if not record.get("commit")}
    assert without == older.keys()
    assert {path.name for path in FOLDER.iterdir()} == {"README.md", *records}


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_that_measures_is_named(tmp_path: Path):
    unknown = {"commit": None, "commit_unknown": "sampan does not run from a checkout of git"}
    package = tmp_path / "src" / "sampan"
    package.mkdir(parents=True)
    (package / "a.py").write_text("x = 1\n", encoding="utf-8")
    assert results.commit(package) == unknown
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "first")
    git(tmp_path, "tag", "-m", "a release", "v1")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert results.commit(package) == {"commit": head}
    (tmp_path / "new.json").write_text("{}", encoding="utf-8")  # a result is no change of the program
    assert results.commit(package) == {"commit": head}
    (package / "a.py").write_text("x = 2\n", encoding="utf-8")
    assert results.commit(package) == {"commit": f"{head}+changes"}
    installed = tmp_path / "venv" / "site-packages" / "sampan"  # in somebody's checkout of something else
    installed.mkdir(parents=True)
    assert results.commit(installed) == unknown


def test_what_is_said_of_the_machine_is_plain():
    assert json.loads(json.dumps(results.machine())).keys() == {
        "system", "cpu", "cores", "usable_cores", "python", "sampan",
    }  # fmt: skip
