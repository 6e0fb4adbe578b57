"""Weights & Biases, without a network: a resumed run keeps its id, and who is not logged in is told so at once."""

from __future__ import annotations

import importlib.util
import json
import math
import time
from pathlib import Path

import pytest
from PIL import Image

from sampan.errors import JobError
from sampan.train.run_log import RunLog

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed"),
    pytest.mark.slow,  # it starts a process of its own
]


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user who is not logged in anywhere."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))


def test_a_resumed_run_keeps_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    out = tmp_path / "out"
    out.mkdir()
    for begin in (0, 2):
        with RunLog(out, tensorboard=False, wandb="boats", facts={"seed": 1, "out": "x"}) as book:
            book.truncate("vae", begin)
            for step in (begin + 1, begin + 2):
                book.step("vae", step, {"loss": math.nan if step == 2 else 1 / step})
            book.image("vae", begin + 2, "samples", Image.new("RGB", (4, 4)))
    kept = json.loads((out / "wandb.json").read_text(encoding="utf-8"))
    assert kept["project"] == "boats"
    runs = sorted((out / "wandb").glob("offline-run-*"))
    assert runs
    assert [path.name.rpartition("-")[2] for path in runs] == [kept["id"]] * len(runs)
    for path in runs:  # the service's process ends its file a moment later
        records = path / f"run-{kept['id']}.wandb"
        until = time.monotonic() + 20
        while records.stat().st_size < 500 and time.monotonic() < until:
            time.sleep(0.05)
        assert b"vae/loss" in records.read_bytes()


def test_who_is_not_logged_in_is_told_what_to_do(tmp_path: Path):
    with pytest.raises(JobError) as caught, RunLog(tmp_path, tensorboard=False, wandb="boats", facts={}):
        pass
    assert str(caught.value) == (
        'error: `train.wandb = "boats"` cannot be done\n'
        "  because no API key of Weights & Biases was found\n\n"
        "hint: run `wandb login`, or set WANDB_MODE=offline and send it later with `wandb sync`"
    )
    assert not (tmp_path / "wandb.json").exists()
