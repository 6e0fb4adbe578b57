"""Options that do not go together, and names that are unknown: each with a sentence that says what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sampan.bench import backends
from sampan.bench.arguments import BUDGET_S, LOCKSTEP_STEPS, LOCKSTEP_TOLERANCE, ROUNDS
from sampan.cli import main

JOB = 'out = "runs/job"\n\n[data]\npath = "pictures"\n'

WRONG = {
    "--frameworks torch,jax": (
        "--frameworks: `jax` is not one of torch, mindspore, tensorflow\n\n"
        "hint: known: `mindspore`, `tensorflow`, `torch`"
    ),
    "--frameworks torch,torch": "--frameworks: `torch` stands there twice",
    "--modes eager,compile": "--modes: `compile` is not one of eager, compiled\n\nhint: did you mean `compiled`?",
    "--parts decoder,vae": "--parts: `vae` is not one of ar, decoder\n\nhint: known: `ar`, `decoder`",
    "--kit --diverge torch mindspore": (
        "--kit and --diverge are two measurements\n\nhint: ask for one at a time"
    ),
    "--kit --rounds 3": "--rounds is not for --kit\n\nhint: leave --rounds out",
    "--diverge torch mindspore --modes eager": "--modes is not for --diverge\n\nhint: leave --modes out",
    "--tokens 64": "--tokens is for --kit\n\nhint: add --kit, or leave --tokens out",
    "--tolerance 0.1": "--tolerance is for --diverge\n\nhint: add --diverge, or leave --tolerance out",
    "--diverge torch torch:eager": (
        "--diverge: both sides are torch eager\n\n"
        "hint: name two frameworks, or two modes: torch torch:compiled"
    ),
    "--diverge torch pytorch": (
        "--diverge: `pytorch` is not one of torch, mindspore, tensorflow\n\nhint: did you mean `torch`?"
    ),
    "job.toml --kit": (
        "--kit takes no job\n  because it measures blocks of the released size\n\nhint: leave JOB out, or --kit"
    ),
    "--set seed=1": "--set changes a job, and none is given\n\nhint: name a job file, or leave --set out",
    "--kit --frameworks torch --parts decoder --tokens 16": (
        "--tokens 16 is too few for a block of the decoder\n  because the least is 17"
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.toml").write_text(JOB)


@pytest.mark.parametrize("line", WRONG)
def test_wrong_options(line: str, capsys: pytest.CaptureFixture[str]):
    assert main(["bench", *line.split()]) == 1
    said = capsys.readouterr()
    assert said.err == f"error: {WRONG[line]}\n"
    assert said.out == "" and not Path("results").exists()


def test_what_is_measured_is_written_twice_and_its_files_are_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    fake = (str(Path(__file__).parent / "fake_worker.py"), "right")
    monkeypatch.setattr(backends, "is_installed", lambda name: name == "torch")
    monkeypatch.setattr(backends.Backend, "__init__", _with_command(fake))
    assert (
        main(["bench", "job.toml", "--set", "stage.ar.micro_batch_size=2", "--rounds", "1", "--html", "o/b.html"]) == 0
    )
    said = capsys.readouterr()
    written, html = (Path(name) for name in said.out.split())
    record = json.loads(written.read_text(encoding="utf-8"))
    assert written.parent == Path("results") and written.name.startswith("bench_cpu-") and html == Path("o/b.html")
    assert record["job"]["text"] == JOB and record["job"]["overrides"] == ["stage.ar.micro_batch_size=2"]
    assert record["shape"]["micro_batch_size"]["ar"] == 2 and record["rounds"] == 1
    assert "note: mindspore is not installed and is left out (pip install 'sampan[mindspore]')\n" in said.err
    assert "<svg" in html.read_text(encoding="utf-8")

    assert main(["bench", "--kit", "--tokens", "20", "--modes", "eager", "--json", "row.json"]) == 0
    said = capsys.readouterr()
    assert said.out == "row.json\n" and len(json.loads(Path("row.json").read_text())["rows"]) == 2
    assert "hand it in: commit row.json to results/" in said.err


def _with_command(command: tuple[str, ...]):
    def init(self: backends.Backend, framework: str, mode: str) -> None:
        object.__setattr__(self, "framework", framework)
        object.__setattr__(self, "mode", mode)
        object.__setattr__(self, "command", command)

    return init


def test_defaults_are_those_that_help_names(capsys: pytest.CaptureFixture[str]):
    assert main(["bench", "--help"]) == 0
    page = " ".join(capsys.readouterr().out.split())
    for default in (ROUNDS, f"{BUDGET_S:.0f}", LOCKSTEP_STEPS, LOCKSTEP_TOLERANCE):
        assert f"default: {default}" in page
