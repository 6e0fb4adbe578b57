"""The pages of docs/ that follow from the program say what the program does today."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from sampan import job

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "write_docs.py"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_docs", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


write_docs = _load()


@pytest.mark.parametrize("path", write_docs.PAGES, ids=lambda path: path.name)
def test_a_generated_page_is_up_to_date(path: Path):
    if path.name == "cli.md" and sys.version_info[:2] != (3, 11):
        pytest.skip("argparse lays out help in another way in every version; the page is written with Python 3.11")
    assert path.read_text(encoding="utf-8") == write_docs.PAGES[path](), "run: python scripts/write_docs.py"


def test_pages_do_not_depend_on_the_terminal(monkeypatch):
    page = write_docs.command_line()
    monkeypatch.setenv("COLUMNS", "40")
    assert write_docs.command_line() == page


def test_every_verb_has_its_help_with_an_example():
    page = write_docs.command_line()
    verbs = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert verbs == [
        "sampan",
        "sampan init",
        "sampan doctor",
        "sampan data",
        "sampan data prepare",
        "sampan data emoji",
        "sampan data signs",
        "sampan data pairs",
        "sampan plan",
        "sampan screen",
        "sampan train",
        "sampan launch",
        "sampan generate",
        "sampan eval",
        "sampan serve",
        "sampan checkpoint",
        "sampan checkpoint export",
        "sampan checkpoint inspect",
        "sampan checkpoint merge",
        "sampan checkpoint verify",
        "sampan bench",
        "sampan completion",
    ]
    for verb, text in zip(verbs, re.split(r"^## .+$", page, flags=re.MULTILINE)[1:], strict=True):
        assert f"\n  {verb} " in text or f"\n  {verb}\n" in text or "verbs:" in text, verb


def test_every_setting_is_in_the_reference():
    page = write_docs.job_file()
    for name, section in job.sections(job.Job):
        assert (f"## `[{name}]`" if name else "## Top of the file") in page
        for setting in job.settings(section).values():
            assert f"| `{setting.name}` |" in page


def test_the_shortest_job_of_the_reference_is_one():
    assert job.parse(write_docs.SHORTEST).out == Path("runs/job")
