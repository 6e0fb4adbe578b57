"""A log is read back stage by stage, whatever an interruption left at its end."""

from __future__ import annotations

from pathlib import Path

from sampan.checkpoint.run_metadata import read_log


def test_stages_in_order_with_their_first_and_last_loss(tmp_path: Path):
    log = tmp_path / "log.jsonl"
    log.write_bytes(
        b'{"stage": "vae", "step": 1, "loss": 3.5}\n'
        b'{"stage": "vae", "step": 2, "loss": 2.5}\n'
        b'{"event": "resumed"}\n'
        b"[1]\n"
        b"\n"
        b'{"stage": "ar", "step": 1, "loss": 7.0}\n'
        b'{"stage": "ar", "step": 2, "lo\xff'
    )
    assert list(read_log(log).items()) == [
        ("vae", {"first_loss": 3.5, "last_step": 2, "last_loss": 2.5}),
        ("ar", {"first_loss": 7.0, "last_step": 1, "last_loss": 7.0}),
    ]


def test_no_log_is_no_stage(tmp_path: Path):
    assert read_log(tmp_path / "log.jsonl") == {}
