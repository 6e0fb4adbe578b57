"""The PNG that leaves: its bytes, what it says of itself, and that it is there whole or not at all."""

import json
import os
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from sampan.pipeline.png import DIGITAL_SOURCE_TYPE, save_png

PIXELS = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
FACTS = {"version": "0.1.0", "seed": 7, "prompt": "um sinal que diz “OLÁ” & <b>红</b>"}


def test_the_picture_says_what_made_it(tmp_path: Path):
    save_png(tmp_path / "x.png", PIXELS, FACTS)
    with Image.open(tmp_path / "x.png") as image:
        assert np.array_equal(np.asarray(image), PIXELS)
        assert json.loads(image.text["sampan"]) == FACTS  # type: ignore[attr-defined]
        assert image.text["Description"] == FACTS["prompt"]  # type: ignore[attr-defined]
        packet = ElementTree.fromstring(image.text["XML:com.adobe.xmp"])  # type: ignore[attr-defined]
    found = {element.tag.rpartition("}")[2]: element.text for element in packet.iter()}
    assert found["DigitalSourceType"] == DIGITAL_SOURCE_TYPE
    assert found["li"] == FACTS["prompt"]


def test_without_a_prompt_none_is_written(tmp_path: Path):
    save_png(tmp_path / "x.png", PIXELS, {k: v for k, v in FACTS.items() if k != "prompt"})
    assert "sinal" not in (tmp_path / "x.png").read_bytes().decode("latin-1")
    with Image.open(tmp_path / "x.png") as image:
        assert "Description" not in image.text  # type: ignore[attr-defined]
        assert DIGITAL_SOURCE_TYPE in image.text["XML:com.adobe.xmp"]  # type: ignore[attr-defined]


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save_png(tmp_path / "x.png", PIXELS, FACTS)
    before = (tmp_path / "x.png").read_bytes()

    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_png(tmp_path / "x.png", 255 - PIXELS, FACTS)
    assert (tmp_path / "x.png").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]
