"""The contact sheet of `make scratch`, and how it stops when one of its commands fails."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from PIL import Image

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "scratch.py"


@pytest.fixture
def scratch(monkeypatch):
    spec = importlib.util.spec_from_file_location("scratch", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "scratch", module)
    spec.loader.exec_module(module)
    return module


def test_the_contact_sheet_has_the_reference_over_what_was_painted_from_it(scratch, tmp_path):
    scratch.ROOT = tmp_path
    Image.new("RGB", (64, 64), "red").save(tmp_path / "reference.png")
    Image.new("RGB", (128, 64), "blue").save(tmp_path / "painted.png")
    painted = Path("painted.png")
    sheet = scratch.contact_sheet([("alone", None, painted), ("edited", Path("reference.png"), painted)])
    cell_px = scratch.TILE_PX + scratch.GAP_PX
    assert sheet.size == (2 * cell_px + scratch.GAP_PX, 2 * cell_px + scratch.NAME_PX + scratch.GAP_PX)

    def color_in(column: int, row: int) -> tuple[int, ...]:
        return sheet.getpixel((scratch.GAP_PX + column * cell_px + 20, scratch.GAP_PX + row * cell_px + 20))

    assert [color_in(0, 0), color_in(1, 0)] == [(255, 255, 255), (255, 0, 0)]
    assert [color_in(0, 1), color_in(1, 1)] == [(0, 0, 255), (0, 0, 255)]


def test_a_command_that_fails_ends_it_and_is_named(scratch, capfd):
    with pytest.raises(SystemExit) as ended:
        scratch.sampan("no-such-verb", "a word")
    said = capfd.readouterr()
    assert ended.value.code == 1
    assert '$ sampan no-such-verb "a word"' in said.out
    assert 'error: the training stops here: `sampan no-such-verb "a word"` ended with status 2' in said.err


def test_every_painting_has_its_own_file(scratch):
    assert len({painting.name for painting in scratch.PAINTINGS}) == len(scratch.PAINTINGS)
