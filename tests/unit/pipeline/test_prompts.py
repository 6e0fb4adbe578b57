"""A file of prompts: one start, a picture of its own for each line, and a fault of a line is a fault of that line."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from sampan.checkpoint.knowledge import ModelKnowledge, state_knowledge
from sampan.cli import main
from sampan.errors import RequestError
from sampan.pipeline import pipeline as pipeline_module
from sampan.pipeline import prompts as prompts_module
from sampan.pipeline.options import PipelineOptions
from sampan.pipeline.prompts import read_prompts

SETTINGS = ("--size", "64x64", "--steps", "2", "--seed", "3", "--device", "cpu", "--dtype", "fp32")
TOO_LONG = f'a sign that says "{"A" * 3000}"'


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "prompts.txt").write_text(f"a boat\n\n{TOO_LONG}\r\n  a cat  \n", encoding="utf-8-sig")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_lines_keep_their_numbers(place: Path, monkeypatch: pytest.MonkeyPatch):
    assert read_prompts(place / "prompts.txt") == [(1, "a boat"), (3, TOO_LONG), (4, "a cat")]
    stdin = type("Stdin", (), {"buffer": io.BytesIO("maçã\n".encode())})()
    monkeypatch.setattr(prompts_module.sys, "stdin", stdin)
    assert read_prompts(Path("-")) == [(1, "maçã")]


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot be read"), (b"\xff\xfe\x00", "cannot be read"), (b"\n \n", "there is no prompt in")],
)
def test_a_file_without_prompts(content: bytes | None, said: str, tmp_path: Path):
    if content is not None:
        (tmp_path / "p.txt").write_bytes(content)
    with pytest.raises(RequestError, match=said):
        read_prompts(tmp_path / "p.txt")


def test_a_line_that_fails_is_named_and_the_others_are_painted(
    place: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    opened: list[Any] = []
    real = pipeline_module.open_pipeline
    monkeypatch.setattr(prompts_module, "open_pipeline", lambda *a, **k: (opened.append(a), real(*a, **k))[1])
    line = ["generate", "--prompts", "prompts.txt", "--model", str(tiny_folder), "--out", "x.png", *SETTINGS]
    assert main(line) == 1
    said = capsys.readouterr()
    assert said.out == "x-1.png\nx-4.png\n"
    assert said.err.startswith("line 3: a quoted text of 3000 bytes is too long to draw")
    assert "error: 1 of 3 prompts could not be painted\n  because line 3: a quoted text of 3000 bytes" in said.err
    assert len(opened) == 1
    assert main(["generate", "a cat", "--model", str(tiny_folder), "--out", "alone.png", *SETTINGS]) == 0
    assert np.array_equal(pixels(place / "alone.png"), pixels(place / "x-4.png"))


def test_it_stops_where_that_is_asked(place: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]):
    line = ["generate", "--prompts", "prompts.txt", "--model", str(tiny_folder), "--json", "--stop-on-error", "-n", "2"]
    assert main([*line, *SETTINGS]) == 1
    said = capsys.readouterr()
    pictures = json.loads(said.out)["pictures"]
    assert [(p["line"], p["file"], p["prompt"]) for p in pictures] == [
        (1, "sampan-3-1-1.png", "a boat"),
        (1, "sampan-3-1-2.png", "a boat"),
    ]
    assert "error: 1 of 3 prompts could not be painted, and 1 after it were not tried" in said.err
    assert not (place / "sampan-3-4-1.png").exists()


def test_what_every_line_needs_fails_once(place: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["generate", "--prompts", "prompts.txt", "--model", "nowhere"]) == 1
    assert capsys.readouterr().err.startswith("error: there is no model folder `nowhere`")


def test_nothing_is_said_with_quiet_and_no_bar_is_drawn_in_a_pipe(
    place: Path, folder: Path, capsys: pytest.CaptureFixture[str]
):
    (folder / "sampan.json").write_text("{}", "utf-8")
    state_knowledge(folder, ModelKnowledge(("red apple",)))
    line = ["generate", "an apple", "--model", str(folder), "--out", "a.png", *SETTINGS]
    assert main(line) == 0
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and said.err.startswith("hint: the prompt names none of the 1 subjects")
    assert main([*line, "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert main([*line[:1], "red apple", *line[2:]]) == 0
    assert capsys.readouterr().err == ""  # neither a hint nor a bar


def test_examples_are_printed(folder: Path, capsys: pytest.CaptureFixture[str]):
    line = ["generate", "--examples", "--model", str(folder)]
    assert main(line) == 1
    assert "says of no prompt that it works" in capsys.readouterr().err
    (folder / "sampan.json").write_text("{}", "utf-8")
    knows = ModelKnowledge(("red apple",), ("en",), ("red apple on a table", 'a sign that says "HI"'))
    state_knowledge(folder, knows)
    assert main(line) == 0
    said = capsys.readouterr()
    assert said.out == 'red apple on a table\na sign that says "HI"\n'
    assert "1 such names in all" in said.err and "red apple" in said.err
    assert main([*line, "--json", "--quiet"]) == 0
    said = capsys.readouterr()
    assert (json.loads(said.out), said.err) == (knows.to_json(), "")


def test_the_model_s_own_steps_are_taken(folder: Path, place: Path):
    (folder / "sampan.json").write_text('{"painting": {"num_inference_steps": 3}}', "utf-8")
    console = Console(file=io.StringIO())
    request = pipeline_module.ImageRequest("a boat", width_px=64, height_px=64)
    (record,) = pipeline_module.generate(
        request,
        PipelineOptions(model=str(folder), device="cpu", dtype="fp32"),
        out=place / "a.png",
        console=console,
    )
    assert record["num_inference_steps"] == 3
