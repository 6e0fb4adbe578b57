"""The script that installs every extra alone: which rows and checks it has, what it keeps, and its table."""

from __future__ import annotations

import importlib.util
import json
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "scripts" / "extras_check.py"
OFFERED = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]


@pytest.fixture
def script(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location("extras_check", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.DONE = tmp_path / "done.jsonl"
    return module


def row(*extras: str, python: str = "3.11.7", failed: str | None = None) -> dict:
    return {"extras": list(extras), "python": python, "failed": failed, "versions": {"numpy": "1.26.4"}}


def test_every_extra_has_a_row_and_a_check_of_its_verb(script):
    assert [name for extras in script.ALONE for name in extras] == list(dict.fromkeys(OFFERED))[:-1]
    assert {name for extras in script.PAIRS for name in extras} <= set(OFFERED)
    plain = set(script.extras_verbs.checks((), "3.11"))
    for extras in script.ALONE[1:]:
        assert set(script.extras_verbs.checks(extras, "3.11")) - plain, extras


def test_a_row_is_given_the_checks_of_its_extras(script):
    def names(*extras: str, version: str = "3.12") -> list[str]:
        return list(script.extras_verbs.checks(extras, version))

    assert names() == ["core", "doctor", "missing"]
    assert names("torch") == ["doctor", "missing", "paints"]
    assert names("mindspore", "hub") == ["doctor", "missing", "tables", "mended"]
    assert names("mindspore", version="3.13") == ["doctor", "missing", "paints"]
    assert names("torch", "tensorflow") == ["doctor", "missing", "compares"]
    assert names("torch", "data", "logs", "serve") == ["doctor", "paints", "emoji", "logs", "serves"]


def test_pairs_with_mindspore_are_left_out_where_it_has_no_build(script):
    first, other = script.rows_for("3.11", (), first=True), script.rows_for("3.12", (), first=False)
    assert first == [*script.ALONE, *script.PAIRS]
    assert ("mindspore", "hub") in other and len(other) < len(first)
    newest = script.rows_for("3.13", (), first=False)
    assert ("mindspore",) in newest and ("torch", "hub") in newest and ("mindspore", "hub") not in newest
    assert script.rows_for("3.13", [("data",)], first=False) == [("data",)]


def test_a_python_is_found_by_version_or_path(script):
    here = ".".join(map(str, sys.version_info[:2]))
    assert script.find_python(sys.executable) == Path(sys.executable)
    found = script.find_python(here)
    assert found is None or script.version_of(found).startswith(f"{here}.")
    assert script.find_python("3.1") is script.find_python("/no/python") is None


def test_rows_that_were_done_for_this_wheel_are_known(script):
    assert script.done_before("a") == []
    lines = [json.dumps({"wheel": key, **row("data")}) for key in ("a", "b")]
    script.DONE.write_text("\n".join([*lines, '{"wheel": "a", "ext']))
    assert script.done_before("a") == [row("data")]


def test_the_table_says_what_went_well_what_failed_and_what_was_not_run(script):
    record = {
        "rows": [row(), row("hub", failed="sampan data: status 1\nmore"), row("hub", python="3.12.1")],
        "not_run": [{"python": "3.13", "why": "not run here"}],
    }
    assert script.table(record) == (
        "| extras | Python 3.11 | Python 3.12 | Python 3.13 |\n|---|---|---|---|\n"
        "| none | ok | - | not run here |\n"
        "| `hub` | **failed**: sampan data: status 1 | ok | not run here |"
    )


def test_a_user_has_nothing_of_this_checkout(script, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("SAMPAN_FRAMEWORK", "torch")
    found = script.extras_verbs.environment(tmp_path / "venv")
    assert {"PYTHONPATH", "SAMPAN_FRAMEWORK"} & set(found) == set()
