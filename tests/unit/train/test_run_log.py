"""What a run writes about itself: lines that every reader takes, steps that stand in the log once, pictures, two services."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sampan.errors import CheckpointError, DataError, JobError
from sampan.train import run_log
from sampan.train.run_log import RunLog


def opened(out: Path, **settings: Any) -> RunLog:
    return RunLog(out, **{"tensorboard": False, "wandb": None, "facts": {"seed": 0}, **settings})


def rows(path: Path) -> list[dict[str, Any]]:
    def refuse(word: str) -> float:
        raise AssertionError(f"{word} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_line_a_step_is_there_when_the_call_returns(tmp_path: Path):
    with opened(tmp_path) as book:
        book.step("vae", 1, {"loss": np.float32(0.5), "lr": 1e-3, "codes_dead": np.int64(3)})
        assert rows(tmp_path / "log.jsonl") == [{"stage": "vae", "step": 1, "loss": 0.5, "lr": 1e-3, "codes_dead": 3}]


def test_numbers_that_are_not_finite_are_null_and_named(tmp_path: Path):
    with opened(tmp_path) as book:
        book.step("vae", 1, {"loss": math.nan, "grad_norm": math.inf, "l1": -math.inf, "lr": 0.1}, skipped=True)
        book.event("skip", stage="vae", step=1, loss=math.nan, samples=["a", "你好"], more={"x": math.inf})
    assert rows(tmp_path / "log.jsonl") == [
        {
            "stage": "vae", "step": 1, "loss": None, "grad_norm": None, "l1": None, "lr": 0.1,
            "not_finite": {"loss": "NaN", "grad_norm": "Infinity", "l1": "-Infinity"}, "skipped": True,
        }
    ]  # fmt: skip
    skip = rows(tmp_path / "events.jsonl")[1]
    assert (skip["event"], skip["loss"], skip["samples"]) == ("skip", "NaN", ["a", "你好"])
    assert skip["more"] == {"x": "Infinity"}


def test_events_say_who_worked_when_and_how_it_ended(tmp_path: Path):
    with opened(tmp_path):
        pass
    with pytest.raises(DataError), opened(tmp_path):
        raise DataError("nothing fits", "x")
    with pytest.raises(KeyboardInterrupt), opened(tmp_path):
        raise KeyboardInterrupt
    found = rows(tmp_path / "events.jsonl")
    assert [row["event"] for row in found] == ["begin", "end"] * 3
    assert [row.get("outcome") for row in found[1::2]] == ["finished", "failed", "stopped"]
    assert found[3]["error"] == "nothing fits"
    assert {"sampan", "python", "numpy", "torch"} <= found[0]["versions"].keys()
    assert found[0]["machine"]["cores"] == os.cpu_count()
    assert found[0]["job"] == {"seed": 0}
    assert all(row["time"].endswith("+00:00") for row in found)


def test_steps_that_are_taken_again_stand_once_and_a_torn_line_goes(tmp_path: Path):
    log = tmp_path / "log.jsonl"
    with opened(tmp_path) as book:
        for step in (1, 2, 3):
            book.step("vae", step, {"loss": step})
        book.step("ar", 3, {"loss": 9})
    with open(log, "ab") as file:
        file.write(b'{"stage": "ar", "step": 4, "lo\xe4')
    with opened(tmp_path) as book:  # what is written next does not stick to it
        book.step("ar", 4, {"loss": 8})
        book.truncate("vae", 1)
        book.step("vae", 2, {"loss": 20})
    assert [(row["stage"], row["step"], row["loss"]) for row in rows(log)] == [
        ("vae", 1, 1), ("ar", 3, 9), ("ar", 4, 8), ("vae", 2, 20),
    ]  # fmt: skip
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_a_caption_with_strange_line_breaks_stays_one_line(tmp_path: Path):
    with opened(tmp_path) as book:
        book.event("skip", samples=["a\u2028b\x85c\nd"])
    with opened(tmp_path):
        pass
    lines = (tmp_path / "events.jsonl").read_bytes().decode().split("\n")
    assert json.loads(lines[1])["samples"] == ["a\u2028b\x85c\nd"]
    assert len(lines) == 6


def test_what_cannot_be_written_is_named(tmp_path: Path):
    with opened(tmp_path) as book:
        (tmp_path / "log.jsonl").mkdir()
        with pytest.raises(CheckpointError) as caught:
            book.step("vae", 1, {"loss": 1})
    assert caught.value.what == f"`{tmp_path / 'log.jsonl'}` cannot be written"
    assert caught.value.hint == "go on with --resume when it can be"


def test_a_picture_is_there_whole_with_its_captions(tmp_path: Path):
    image = Image.new("RGB", (4, 3), (1, 2, 3))
    image.info["Description"] = "um limão | 你好"
    with opened(tmp_path) as book:
        book.image("vae", 20, "samples", image)
    with Image.open(tmp_path / "samples" / "vae-00000020-samples.png") as read:
        assert read.size == (4, 3)
        assert read.text == {"Description": "um limão | 你好"}  # type: ignore[attr-defined]


def test_a_missing_package_is_said_before_anything_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setitem(sys.modules, "wandb", None)
    run_log.check_installed(tensorboard=False, wandb=None)
    with pytest.raises(JobError) as caught:
        opened(tmp_path, tensorboard=True)
    assert str(caught.value) == (
        "error: `train.tensorboard = true` cannot be done\n"
        "  because the package `tensorboard` is missing\n\n"
        "hint: pip install 'sampan[logs]'"
    )
    with pytest.raises(JobError) as caught:
        opened(tmp_path, wandb="boats")
    assert caught.value.what == '`train.wandb = "boats"` cannot be done'
    assert caught.value.hint == "pip install 'sampan[wandb]'"
    assert list(tmp_path.iterdir()) == []


needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed"
)


def events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    return found


@needs_tensorboard
def test_tensorboard_reads_the_numbers_and_the_pictures(tmp_path: Path):
    with opened(tmp_path, tensorboard=True) as book:
        book.step("vae", 1, {"loss": 0.5})
        book.step("vae", 2, {"loss": math.nan}, skipped=True)
        book.step("ar", 1, {"loss": 7})
        book.image("vae", 2, "samples", Image.new("RGB", (5, 4), (200, 100, 0)))
        # a process that is killed now loses nothing
        assert [(e.step, e.value) for e in events(tmp_path / "tensorboard" / "ar").Scalars("loss")] == [(1, 7.0)]
    vae = events(tmp_path / "tensorboard" / "vae")
    first, second = vae.Scalars("loss")
    assert (first.step, first.value, second.step, math.isnan(second.value)) == (1, 0.5, 2, True)
    assert [(e.step, e.value) for e in vae.Scalars("skipped")] == [(2, 1.0)]
    (image,) = vae.Images("samples")
    assert (image.step, image.width, image.height) == (2, 5, 4)
    assert image.encoded_image_string.startswith(b"\x89PNG")


@needs_tensorboard
def test_tensorboard_shows_a_step_that_was_taken_again_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for attempt, (begin, to) in enumerate([(0, 5), (2, 4), (3, 6)]):
        # every attempt is a process of its own, seconds later
        monkeypatch.setattr("sampan.train.tensorboard.time.time", lambda attempt=attempt: 1.8e9 + 10 * attempt)
        with opened(tmp_path, tensorboard=True) as book:
            book.truncate("vae", begin)
            for step in range(begin + 1, to + 1):
                book.step("vae", step, {"loss": 100 * attempt + step})
    found = events(tmp_path / "tensorboard" / "vae").Scalars("loss")
    assert [(e.step, e.value) for e in found] == [(1, 1), (2, 2), (3, 103), (4, 204), (5, 205), (6, 206)]
    assert len(list((tmp_path / "tensorboard" / "vae").iterdir())) == 3


@needs_tensorboard
def test_tensorboard_needs_no_framework(tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from sampan.train.tensorboard import TensorBoard\n"
        "t = TensorBoard(Path(sys.argv[1])); t.scalars('vae', 1, {'loss': 1.0}); t.close(False)\n"
        "assert not {'torch', 'tensorflow'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)
