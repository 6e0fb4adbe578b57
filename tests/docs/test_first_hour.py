"""docs/first-hour: commands exist; plans and launches run; the laptop page runs from its first command to its last."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sampan.cli.verbs import parser

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "first-hour").glob("*.md"))
BLOCK = re.compile(r"^```\n(.+?)^```", re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    return [line for block in BLOCK.findall(page.read_text("utf-8")) for line in block.splitlines()]


SAMPAN = [(page, line) for page in PAGES for line in commands(page) if line.startswith("sampan ")]


def test_there_is_a_page_for_each_place():
    assert [page.stem for page in PAGES] == [
        "atlas-800t-a2-msrun", "laptop", "one-machine-8xh200", "skypilot-spot", "slurm-4-nodes",
    ]  # fmt: skip


@pytest.mark.parametrize(("page", "line"), SAMPAN, ids=[f"{page.stem}-{line[:40]}" for page, line in SAMPAN])
def test_a_command_of_a_page_has_options_that_exist(page: Path, line: str):
    parser().parse(shlex.split(line)[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_says_what_was_run_and_names_files_that_are_there(page: Path):
    text = page.read_text("utf-8")
    assert "**not run**" in text or "**Run as it stands here**" in text
    for path in re.findall(r"\]\(([^)#]+)", text):
        assert (page.parent / path).exists(), path
    for path in re.findall(r"`((?:tests|jobs)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path


def run(line: str, place: Path) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    words = shlex.split(line)
    if words[0] == "sampan":
        words = [sys.executable, "-m", *words]
    done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture
def place(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs")
    (tmp_path / "runs").mkdir()
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "laptop"], ids=lambda page: page.stem)
def test_plans_and_launches_of_a_page_run(page: Path, place: Path):
    done = 0
    for line in commands(page):
        if line.startswith(("sampan plan", "sampan launch")) and "--measured" not in line:
            run(line, place)
            done += 1
    assert done == 4
    for script in (place / "launch").glob("*.sh"):
        subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_laptops_page_runs(place: Path):
    (page,) = [page for page in PAGES if page.stem == "laptop"]
    said = {line: run(line, place) for line in commands(page) if line.startswith(("sampan ", "bash "))}
    assert (place / "runs" / "apple.png").stat().st_size
    assert "decoder: done before" in said["bash launch/smoke.sh"]
    assert list((place / "runs" / "smoke-lora" / "lora").rglob("*.safetensors"))
