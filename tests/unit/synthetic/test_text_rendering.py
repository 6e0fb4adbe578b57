import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw

from sampan.synthetic import text_rendering
from sampan.synthetic.text_rendering import (
    ALPHABET,
    FONTS,
    HELD_OUT_FONTS,
    TRAIN_FONTS,
    capital_px,
    fit,
    picture,
    set_lines,
)

FOLDER = Path(text_rendering.__file__).parent / "fonts"


@pytest.mark.parametrize("name", FONTS)
def test_every_font_has_every_letter_of_the_alphabet(name):
    assert set(TTFont(FOLDER / FONTS[name].file).getBestCmap()) >= set(map(ord, ALPHABET))


@pytest.mark.parametrize("name", FONTS)
def test_every_font_has_its_licence_beside_it_and_no_reserved_name(name):
    licence = (FOLDER / f"OFL-{Path(FONTS[name].file).stem}.txt").read_text(encoding="utf-8")
    assert "SIL OPEN FONT LICENSE Version 1.1" in licence
    assert "with Reserved Font Name" not in licence


def test_the_page_beside_the_fonts_names_each_of_them_with_its_digest():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    for font in FONTS.values():
        content = (FOLDER / font.file).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        assert re.search(rf"\| `{font.file}` .*{len(content):,} bytes, `{digest}`", page), font.file


def test_the_alphabet_has_accents_and_no_quotation_marks_are_needed():
    assert set("ãçéîößłñşğĄŻŘİıȘț€") <= ALPHABET
    assert len(TRAIN_FONTS) == 10
    assert len(HELD_OUT_FONTS) == 2


@pytest.mark.parametrize("name", FONTS)
@pytest.mark.parametrize("lines", [["Ágil"], ["ŽÓŁW", "gypsy", "12:30"], ["i"]], ids=" ".join)
def test_a_block_lies_in_its_box_and_all_of_its_ink_lies_in_the_block(name, lines):
    block = fit(lines, name, 120, 70, 40)
    assert block.width_px <= 120
    assert block.height_px <= 70
    assert block.capital_px <= 40
    canvas = Image.new("L", (220, 170))
    block.draw(ImageDraw.Draw(canvas), 50, 50, 255)
    rows, columns = np.nonzero(np.asarray(canvas) > 96)  # a hint of grey may lie a pixel further
    assert columns.min() >= 49
    assert columns.max() <= 50 + block.width_px
    assert rows.min() >= 49
    assert rows.max() <= 50 + block.height_px


def test_a_block_is_as_large_as_its_box_allows():
    block = fit(["WORD"], "open-sans", 100, 100, 100)
    larger = set_lines(["WORD"], "open-sans", block.size_px + 2)
    assert block.width_px <= 100 < larger.width_px


def test_small_letters_are_set_as_in_a_text():
    assert set_lines(["mm"], "open-sans", 40).height_px >= capital_px("open-sans", 40)


def test_lines_are_centred_on_each_other():
    wide, narrow = set_lines(["MMMM", "I"], "oswald", 40).lines
    middles = [(line.box[0] + line.box[2]) / 2 for line in (wide, narrow)]
    assert middles[0] == pytest.approx(middles[1], abs=1)


def test_a_picture_is_cut_to_its_ink():
    pixels = np.asarray(picture("Água", "zilla-slab", 30))
    assert pixels.max() == 255
    assert all(edge.any() for edge in (pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:]))
