"""The whole verb with a tiny model of random weights: what it measures, keeps, writes and refuses."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from sampan.errors import CheckpointError, DeviceError, RequestError, SampanError
from sampan.evaluate import generators, verb
from sampan.evaluate.verb import EvalArguments, evaluate
from sampan.metrics import ocr
from sampan.metrics.ocr import Reading, TextReader
from sampan.report import results


@dataclasses.dataclass(frozen=True)
class Nobody(TextReader):
    """Reads the same in every picture."""

    def read(
        self, images: Sequence[Image.Image], workers: int = 1, progress: Callable[[int], None] | None = None
    ) -> list[Reading]:
        return [Reading(("boat",), 0.5)] * len(images)


@pytest.fixture(autouse=True)
def reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "find_reader", lambda: Nobody("nobody", "0", ("eng",)))


@pytest.fixture
def options(tiny_folder: Path, tmp_path: Path) -> EvalArguments:
    return EvalArguments(
        suite="edit", count=3, model=str(tiny_folder), steps=1, size=64, device="cpu", dtype="fp32",
        keep=tmp_path / "keep", json=tmp_path / "record.json", html=tmp_path / "page.html",
    )  # fmt: skip


def quiet() -> Console:
    return Console(quiet=True)


def test_a_suite_is_measured_written_and_gone_on_with(options: EvalArguments):
    record = evaluate(options, quiet())
    assert json.loads(options.json.read_text(encoding="utf-8")) == {**results.commit(), **record}
    assert (record["suite"], record["count"], record["ceiling"]["count"], record["floor"]["count"]) == ("edit", 3, 3, 0)
    assert record["edit_done"] == 0 and record["word_accuracy"] == 0 and record["seconds_per_picture"] > 0
    assert record["reconstruction"]["vae"]["count"] == 3 and record["peak_memory_bytes"] > 2**20
    page = options.html.read_text(encoding="utf-8")
    assert page.count("<img ") == 3 and "http" not in page.replace("http://www.w3.org", "")
    kept = sorted((options.keep / record["painter"]["model_hash"]).glob("*.png"))
    assert len(kept) == 3
    # what is kept is not painted again; what is broken is
    before = [path.stat().st_mtime_ns for path in kept[1:]]
    kept[0].write_bytes(b"cut short")
    again = evaluate(options, quiet())
    assert [path.stat().st_mtime_ns for path in kept[1:]] == before and kept[0].stat().st_size > 100
    measured = ("edit_done", "word_accuracy", "ned", "color_accuracy", "strata")
    assert {name: again[name] for name in measured} == {name: record[name] for name in measured}


def test_zeroed_weights_paint_other_pictures(options: EvalArguments):
    whole = evaluate(options, quiet())
    without = evaluate(dataclasses.replace(options, ablate=("decoder",)), quiet())
    assert without["ablated"] and "reconstruction" not in without
    assert len(list((options.keep / whole["painter"]["model_hash"]).glob("*.png"))) == 6


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"suite": "cvtg"}, "needs the prompts"),
        ({"data": Path("x")}, "--data is for"),
        ({"ablate": ("glyphs",)}, "no part `glyphs`"),
        ({"endpoint": "http://127.0.0.1:9/v1", "ablate": ("glyph",)}, "behind a server"),
        ({"model": "nowhere"}, "no model folder"),
        ({"json": Path("nowhere/record.json")}, "there is no folder `nowhere`"),
        ({"suite": "cvtg", "data": Path("nowhere")}, "there is no folder `nowhere`"),
        ({"size": 65}, "cannot paint 65x65"),
        ({"suite": "sings"}, "did you mean `signs`?"),
        ({"count": 0}, "--count takes at least 1"),
        ({"fonts": ("oswald",)}, "for the suite `signs`"),
        ({"suite": "signs", "fonts": ("oswlad",)}, "did you mean `oswald`?"),
        ({"endpoint": "http://127.0.0.1:9/v1"}, "is the server running?"),
        ({"endpoint": "http://127.0.0.1:9/v1", "offload": True}, "--lora, --offload and --no-verify"),
        ({"ablate": ("decoder",), "offload": True}, "would be read anew"),
    ],
)
def test_wrong_input_is_refused(options: EvalArguments, change: dict[str, Any], says: str):
    with pytest.raises(SampanError) as failed:
        evaluate(dataclasses.replace(options, **change), quiet())
    assert says in str(failed.value)
    assert not options.json.exists() and not options.html.exists()


def test_a_missing_reader_is_said_before_anything_is_painted(options: EvalArguments, monkeypatch: pytest.MonkeyPatch):
    def missing() -> TextReader:
        raise RequestError("words in pictures cannot be read")

    monkeypatch.setattr(verb, "find_reader", missing)
    with pytest.raises(RequestError, match="cannot be read"):
        evaluate(options, quiet())
    assert not options.keep.exists()


def test_the_command_line_knows_what_the_verb_knows():
    from sampan.evaluate import arguments, suites
    from sampan.evaluate.generators import ABLATIONS

    assert (*suites.SUITES, "cvtg") == arguments.SUITES and tuple(ABLATIONS) == arguments.ABLATIONS


def test_an_interrupted_measurement_goes_on(options: EvalArguments, monkeypatch: pytest.MonkeyPatch):
    paint, calls = generators.ModelGenerator.paint, []

    def interrupted(self, cases, report):
        calls.append(len(cases))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return paint(self, cases, report)

    monkeypatch.setattr(generators.ModelGenerator, "paint", interrupted)
    asked = dataclasses.replace(options, count=5, batch=2)
    with pytest.raises(KeyboardInterrupt):
        evaluate(asked, quiet())
    record = evaluate(asked, quiet())
    assert calls == [2, 2, 2, 1] and record["pictures_taken_from_before"] == 2
    assert set(record["by"]["edit"]) == {"plate", "word", "ink"}
    assert record["floor"]["count"] == 4  # the one of its kind is alone, and the others have a partner
    evaluate(dataclasses.replace(asked, fresh=True), quiet())
    assert calls[4:] == [2, 2, 1]


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="the program tesseract is not installed")
def test_a_zeroed_decoder_falls_to_the_floor(options: EvalArguments, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(verb, "find_reader", ocr.find_reader)
    asked = dataclasses.replace(options, suite="signs", count=4, size=128, ablate=("decoder",))
    record = evaluate(asked, quiet())
    assert record["ceiling"]["word_accuracy"] >= 0.75
    assert record["word_accuracy"] == record["floor"]["word_accuracy"] == 0
    assert record["layout"] == 0 and abs(record["ned"] - record["floor"]["ned"]) < 0.3


def test_a_model_folder_without_a_part_is_refused(options: EvalArguments, tmp_path: Path):
    shutil.copytree(options.model, tmp_path / "model")
    shutil.rmtree(tmp_path / "model/transformer")
    with pytest.raises(CheckpointError, match="transformer"):
        evaluate(dataclasses.replace(options, model=str(tmp_path / "model")), quiet())


def test_how_to_install_tesseract_is_said(options: EvalArguments, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(verb, "find_reader", ocr.find_reader)
    monkeypatch.setattr(ocr.shutil, "which", lambda name: None)
    with pytest.raises(DeviceError, match=r"apt install tesseract-ocr.*brew install tesseract"):
        evaluate(options, quiet())


def test_tables_fit_a_terminal(options: EvalArguments):
    from io import StringIO

    said = StringIO()
    evaluate(dataclasses.replace(options, count=6), Console(file=said, width=80))
    assert "By edit, per cent: painted/ceiling/floor" in said.getvalue() and "…" not in said.getvalue()


def test_a_page_shows_every_stratum(options: EvalArguments):
    record = evaluate(dataclasses.replace(options, suite="signs", count=2), quiet())
    page = options.html.read_text(encoding="utf-8")
    for name in record["strata"]:
        assert f"{name}: the first pictures" in page
    assert set(record["by"]) == {"layout", "font", "letters", "script"}
    assert page.count("<img ") == sum(one["painted"]["count"] for one in record["strata"].values())
