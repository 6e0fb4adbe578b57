"""README and CONTRIBUTING: every command shown runs and prints what is shown, tables and maps are those of the program."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sampan.checkpoint.builtin import builtin_models
from sampan.checkpoint.knowledge import read_knowledge
from sampan.cli.verbs import parser

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MAX_LINES = 130
SESSIONS = re.findall(r"^```console\n(.+?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [command for session in SESSIONS for command in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]]
LAYERS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"][0][
    "layers"
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the job files, as a clone has them, in which the commands run one after another."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "jobs", folder / "jobs")
    return folder


def test_the_page_is_short():
    assert README.count("\n") <= MAX_LINES


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split("\n", 1)[0])
def test_a_command_prints_what_is_shown(command: str, place: Path):
    line, _, shown = command.partition("\n")
    program, *words = shlex.split(line)
    assert program == "sampan"
    done = subprocess.run(
        [sys.executable, "-m", "sampan", *words],
        cwd=place, capture_output=True, text=True, encoding="utf-8", timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert shown.strip() not in ("", "...")
    pattern = ".*?".join(re.escape(piece) for piece in f"{shown.rstrip()}\n".split("...\n"))
    assert re.fullmatch(pattern, done.stdout, re.DOTALL), done.stdout


def test_images_that_are_named_are_there_and_the_others_are_named():
    named = set()
    for page in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "src").rglob("*.md"),
    ):
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r"!\[[^\]]*\]\(([^)\s]+)", text):
            assert (page.parent / link).is_file(), f"{page.relative_to(ROOT)} names {link}"
            named.add(Path(link).name)
        for name in re.findall(r"\bdocs/images/([\w-]+\.\w+)", text):
            assert (ROOT / "docs" / "images" / name).is_file(), f"{page.relative_to(ROOT)} names {name}"
            named.add(name)
    assert named == {image.name for image in (ROOT / "docs" / "images").iterdir()}


def test_the_table_of_verbs_is_the_parsers():
    rows = re.findall(r"^\| `sampan (.+?)` \|", README, re.MULTILINE)
    shown = [" ".join(re.match(r"[a-z]+(?: [a-z]+\b)?", row).group().split()) for row in rows]  # pyright: ignore[reportOptionalMemberAccess]
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    verbs = re.findall(r"^## sampan (.+)$", page, re.MULTILINE)
    groups = {verb.split()[0] for verb in verbs if " " in verb}
    assert sorted(shown) == sorted(verb for verb in verbs if verb not in groups)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/measurements.md"])
def test_links_lead_somewhere(name: str):
    page = ROOT / name
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8")):
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in anchors, target


def test_the_map_has_every_room():
    block = README.split("## Map")[1].split("```")[1]
    rooms = {folder.parent.name for folder in (ROOT / "src/sampan").glob("*/__init__.py")}
    assert rooms == {name for name in re.findall(r"(\w+)/", block) if name in rooms}


def test_the_order_of_rooms_is_that_of_the_contract():
    block = re.search(r"^```layers\n(.+?)^```", CONTRIBUTING, re.MULTILINE | re.DOTALL)
    assert block is not None
    assert block.group(1).split("\n")[:-1] == [layer for layer in LAYERS if layer != "__main__"]


def test_every_place_to_add_is_there():
    for name in re.findall(r"`((?:src|tests|docs|scripts|jobs|benchmarks)/[\w./-]*)`", CONTRIBUTING):
        if not re.search(r"[A-Z]{4,}", name):  # FORMAT, NAME: what whoever adds it calls it
            assert (ROOT / name).exists(), name


PAGES = [ROOT / "README.md", ROOT / "src/sampan/weights/nano/README.md", *sorted((ROOT / "docs").glob("*.md"))]
GENERATES = [
    match
    for page in PAGES
    if page.name != "log.md"  # which tells what was tried, works or not
    for match in re.findall(r"sampan (generate .+?)(?:`|$)", page.read_text(encoding="utf-8"), re.MULTILINE)
]


def asked_of_nano() -> list[str]:
    """Return the prompts of all pages that are for the packed model; edits are said of a picture, not of a subject."""
    prompts = []
    for line in GENERATES:
        if not re.match(r"generate ['\"]", line) or "…" in line:
            continue  # prose, or a name in the place of the prompt
        _, _, options = parser().parse(shlex.split(line, comments=True))
        if options.model == "nano" and not options.references:
            prompts.append(options.prompt)
    return prompts


def test_the_pages_ask_nano_for_what_it_knows():
    if "nano" not in builtin_models():
        pytest.skip("this installation has no weights of nano")
    knows, prompts = read_knowledge(builtin_models()["nano"]), asked_of_nano()
    assert len(prompts) >= 3
    for prompt in prompts:
        made_of = any(re.search(rf"\b{re.escape(subject)}\b", prompt) for subject in knows.subjects)
        assert prompt in knows.examples or made_of, prompt
