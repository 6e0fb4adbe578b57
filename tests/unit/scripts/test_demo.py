"""The pictures that `make demo` trains on, and its contact sheet."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from sampan.models.text import glyph_texts

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "demo.py"


@pytest.fixture
def demo(monkeypatch):
    spec = importlib.util.spec_from_file_location("demo", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "demo", module)
    spec.loader.exec_module(module)
    return module


def test_a_sign_is_framed_in_the_colour_of_its_letters(demo, tmp_path):
    sign = Image.new("RGB", (128, 128), "red")
    ImageDraw.Draw(sign).rectangle((40, 55, 80, 75), fill="white")
    (tmp_path / "plain" / "images").mkdir(parents=True)
    sign.save(tmp_path / "plain" / "images" / "0.png")
    row = {"file_name": "images/0.png", "words": ["OLÁ"], "plate": "red", "ink": "white"}
    (tmp_path / "plain" / "metadata.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    demo.write_pictures(tmp_path / "plain", tmp_path / "framed")
    with Image.open(tmp_path / "framed" / "images" / "0.png") as framed:
        assert framed.getpixel((64, demo.INSET_PX)) == (255, 255, 255) == framed.getpixel((demo.INSET_PX, 64))
        assert framed.getpixel((2, 2)) == (255, 0, 0) == framed.getpixel((64, 30))
    said = json.loads((tmp_path / "framed" / "metadata.jsonl").read_text(encoding="utf-8"))
    assert all("framed red sign" in text and glyph_texts(text) == ["OLÁ"] for text in said["text"])


def test_the_sheet_shows_before_over_after(demo, tmp_path):
    demo.ROOT = tmp_path
    for name in ("red", "blue"):
        Image.new("RGB", (128, 128), name).save(tmp_path / f"{name}.png")
    sheet = demo.contact_sheet([("one", Path("red.png"), Path("blue.png"))])
    assert sheet.getpixel((demo.GAP_PX + 20, demo.GAP_PX + 20)) == (255, 0, 0)
    assert sheet.getpixel((demo.GAP_PX + 20, demo.GAP_PX + demo.TILE_PX + demo.GAP_PX + 20)) == (0, 0, 255)


def test_a_command_that_fails_ends_the_demo_and_is_named(demo, capfd):
    with pytest.raises(SystemExit) as ended:
        demo.sampan("no-such-verb", "a word")
    said = capfd.readouterr()
    assert ended.value.code == 1
    assert "$ sampan no-such-verb 'a word'" in said.out
    assert "error: the demo stops here: `sampan no-such-verb 'a word'` ended with status 2" in said.err


def test_every_painting_has_its_own_file_and_edits_an_earlier_one(demo):
    names = [painting.name for painting in demo.PAINTINGS]
    assert len(set(names)) == len(names)
    assert all(p.edits in names[: names.index(p.name)] for p in demo.PAINTINGS if p.edits)
