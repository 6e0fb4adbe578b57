"""Tables come into the catalogue the same way every time; a bad cell is named, and then nothing is written."""

import csv
import importlib.util
import sys
from pathlib import Path

import pytest

from sampan.errors import CatalogError

ROOT = Path(__file__).resolve().parents[3]
SHARED = ROOT.parent / "shared" / "data"
TABLES = {"chips": SHARED / "chips.csv", "sites": SHARED / "sites.csv", "runs": SHARED / "measured_runs.csv"}

pytestmark = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the tables the catalogue was made of are not beside the project"
)


def _script():
    spec = importlib.util.spec_from_file_location("import_catalog", ROOT / "scripts" / "import_catalog.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = _script()


def changed(tmp_path, name, change):
    """Return a copy of a table with its rows changed."""
    with open(TABLES[name], encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows, columns = list(reader), reader.fieldnames
    rows = change(rows) or rows
    path = tmp_path / f"{name}.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns or (), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["import_catalog.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        script.main()
    return caught.value.code


def test_the_catalogue_is_what_its_tables_give(monkeypatch, capsys):
    assert run(monkeypatch, *(f"--{name}={path}" for name, path in TABLES.items()), "--check") == 0
    assert capsys.readouterr().out == ""


def test_a_changed_cell_changes_one_file(monkeypatch, capsys, tmp_path):
    def hotter(rows):
        next(row for row in rows if row["id"] == "h20")["tdp_w"] = "401"

    path = changed(tmp_path, "chips", hotter)
    assert run(monkeypatch, f"--chips={path}", "--check") == 1
    assert capsys.readouterr().out == "changed: chips/h20.toml\n"


def test_a_row_that_is_gone_is_told(monkeypatch, capsys, tmp_path):
    path = changed(tmp_path, "sites", lambda rows: rows[1:])
    assert run(monkeypatch, f"--sites={path}", "--check") == 1
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1
    assert said[0].startswith("removed: sites/")


def test_a_junk_cell_is_named_and_nothing_is_written(tmp_path):
    def junk(rows):
        rows[2]["pue_typical"] = "low"

    path = changed(tmp_path, "sites", junk)
    with pytest.raises(CatalogError) as caught:
        script.files(None, path, None)
    assert caught.value.what == "sites.csv cannot be imported"
    assert caught.value.because == ("line 4, column `pue_typical`: 'low' is not a number",)
