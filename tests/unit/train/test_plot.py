"""Curves out of a log, whatever an interruption or a loss that was not finite left in it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sampan.errors import DataError, JobError
from sampan.train import plot

pytest.importorskip("matplotlib")


def write(folder: Path) -> Path:
    log = folder / "log.jsonl"
    lines = [
        {"stage": stage, "step": step, "loss": None if step == 3 else 3.0 / step, "lr": 0.1, "skipped": step == 3}
        | ({"validation_loss": 3.2 / step, "codes_used": 0.5} if step % 5 == 0 else {})
        for stage in ("decoder", "vae", "own")
        for step in range(1, 21)
    ]
    lines.append({"stage": "vae", "step": 20, "psnr_db": 30.0})
    log.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"stage": "ar", "st', "utf-8")
    return log


def test_numbers_come_by_stage_in_the_order_of_training(tmp_path: Path):
    found = plot.read(write(tmp_path))
    assert list(found) == ["vae", "decoder", "own"]
    assert found["vae"]["loss"].shape == (2, 20)
    assert np.isnan(found["vae"]["loss"][1, 2])
    assert found["vae"]["validation_loss"][0].tolist() == [5, 10, 15, 20]
    assert found["vae"]["psnr_db"].tolist() == [[20], [30]]
    assert "skipped" not in found["vae"]


def test_a_picture_is_drawn(tmp_path: Path):
    (tmp_path / "events.jsonl").write_text('{"event": "resume", "stage": "vae", "step": 7}\n{"eve', "utf-8")
    plot.draw(write(tmp_path), tmp_path / "loss.png")
    with Image.open(tmp_path / "loss.png") as image:
        assert image.width > 2 * image.height
        assert len(image.convert("RGB").getcolors(1 << 20) or ()) > 50  # lines, points, letters
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.jsonl", "log.jsonl", "loss.png"]


def test_a_run_of_one_step_and_one_without_a_finite_loss_are_drawn(tmp_path: Path):
    log = tmp_path / "log.jsonl"
    log.write_text('{"stage": "vae", "step": 1, "loss": null}\n{"stage": "ar", "step": 1, "loss": 2.0}\n', "utf-8")
    plot.draw(log, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").stat().st_size > 1000


def test_a_mean_that_skips_what_is_not_finite():
    values = np.array([np.nan, 1.0, 3.0, np.nan, 5.0])
    assert plot.smooth(values, 2)[1:].tolist() == [1.0, 2.0, 3.0, 5.0]
    assert np.isnan(plot.smooth(values, 2)[0])
    assert plot.smooth(values, 1)[1:3].tolist() == [1.0, 3.0]


@pytest.mark.parametrize("content", [None, "", '{"event": 1}\n[1]\n{"stage": "vae", "step": 1}\n'])
def test_a_log_without_steps_is_said(content: str | None, tmp_path: Path):
    log = tmp_path / "log.jsonl"
    if content is not None:
        log.write_text(content, "utf-8")
    with pytest.raises(DataError):
        plot.draw(log, tmp_path / "loss.png")
    assert not (tmp_path / "loss.png").exists()


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(JobError) as caught:
        plot.draw(write(tmp_path), Path("loss.png"))
    assert str(caught.value) == (
        "error: `loss.png` cannot be drawn\n"
        "  because the package `matplotlib` is missing\n\n"
        "hint: pip install 'sampan[logs]'"
    )
