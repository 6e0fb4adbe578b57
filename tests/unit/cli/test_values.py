"""Words of the command line that are more than a number: FILE[:SCALE]."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path, PureWindowsPath

import pytest

from sampan.cli import values


@pytest.mark.parametrize(
    ("word", "file", "scale"),
    [
        ("a.safetensors", "a.safetensors", 1.0),
        ("a.safetensors:0.8", "a.safetensors", 0.8),
        ("runs/lora:-1", "runs/lora", -1.0),
        ("a:b.safetensors", "a:b.safetensors", 1.0),
        ("a:b.safetensors:1e-1", "a:b.safetensors", 0.1),
        (r"C:\loras\a.safetensors", r"C:\loras\a.safetensors", 1.0),
        (r"C:\loras\a.safetensors:2", r"C:\loras\a.safetensors", 2.0),
        ("C:/loras/a.safetensors:0.5", "C:/loras/a.safetensors", 0.5),
        (":0.5", ":0.5", 1.0),
        ("a.safetensors:", "a.safetensors:", 1.0),
    ],
)
def test_a_lora_and_its_scale(word: str, file: str, scale: float):
    assert values.lora(word) == (Path(file), scale)


def test_a_file_that_is_there_is_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if isinstance(Path(), PureWindowsPath):
        pytest.skip("a file name has no colon on Windows")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "version:2").touch()
    assert values.lora("version:2") == (Path("version:2"), 1.0)
    assert values.lora("version:2:0.5") == (Path("version:2"), 0.5)


@pytest.mark.parametrize("scale", ["nan", "inf", "-inf"])
def test_a_scale_is_finite(scale: str):
    with pytest.raises(ArgumentTypeError) as caught:
        values.lora(f"a.safetensors:{scale}")
    assert str(caught.value) == (
        f"`{scale}` in `a.safetensors:{scale}` is not a number to scale with, as in `a.safetensors:0.8`"
    )
