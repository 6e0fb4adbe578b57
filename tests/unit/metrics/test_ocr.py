"""Reading words with Tesseract, and scoring them as CVTG-2K does."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from sampan.errors import DeviceError
from sampan.metrics import ocr
from sampan.metrics.planes import shapes, without_frames
from sampan.synthetic.signs.layouts import paint
from sampan.synthetic.signs.sign import Sign

needs_tesseract = pytest.mark.skipif(shutil.which("tesseract") is None, reason="the program tesseract is not installed")


def test_the_distance_is_levenshtein_over_the_longer_length():
    assert [ocr.levenshtein(*pair) for pair in (("", ""), ("abc", ""), ("kitten", "sitting"), ("ab", "ba"))] == [
        0,
        3,
        3,
        2,
    ]
    assert ocr.likeness("hotel", "hotel") == 1
    assert ocr.likeness("hotel", "hostel") == pytest.approx(5 / 6, abs=1e-5)
    assert ocr.likeness("hotel", "") == pytest.approx(0, abs=1e-5)


def test_a_word_is_right_if_it_is_among_those_read():
    score = ocr.score_words(["Red HOTEL", "open"], ["OPEN", "hotels", "x"])
    assert (score.right, score.total) == (1, 3)
    assert score.similarity == pytest.approx(1 + 5 / 6 + 1 / 4, abs=1e-4)  # open; hotel to hotels; red to open
    assert ocr.score_words(["olá"], ["ola"]).right == 0
    assert ocr.score_words(["OLÁ"], ["ola\u0301"]).right == 1  # composed first
    assert ocr.score_words(["hotel"], []) == ocr.WordScore(0, 1, pytest.approx(0, abs=1e-4))
    assert ocr.score_words([], ["hotel"]) == ocr.WordScore(0, 0, 0)
    assert ocr.words_of(["|STOP| 5:30", "— €4,50"]) == ["stop", "5:30", "4,50"]


def test_what_most_readings_say_is_taken():
    readings = [[("HOTEL", 0.5)], [("hotel", 0.6)], [("Xq", 0.9)], []]
    assert ocr.choose_reading(readings).words == ("hotel",)
    assert ocr.choose_reading([[], []]) == ocr.Reading((), 0.0)


def test_frames_and_specks_are_no_letters():
    mask = np.zeros((60, 60), bool)
    mask[5:55, 5:55] = True
    mask[7:53, 7:53] = False  # a frame
    mask[20:40, 20:24] = True  # a letter
    mask[30, 50] = True  # a speck
    mask[0:3, 30:33] = True  # at the rim
    assert len(shapes(mask)) == 4
    wanted = np.zeros_like(mask)
    wanted[20:40, 20:24] = True
    assert np.array_equal(without_frames(mask), wanted)


def test_corners_that_touch_are_one_shape_and_a_ring_is_one():
    assert len(shapes(np.eye(5, dtype=bool))) == 1
    ring = np.ones((5, 5), bool)
    ring[1:4, 1:4] = False
    assert sum(end - start for _, start, end in shapes(ring)[0]) == 16


@needs_tesseract
def test_true_signs_are_read_in_either_polarity_and_a_blank_one_is_not():
    signs = [
        Sign("board", "red", "white", "open-sans", ("HOTEL",), "field", False, 1),
        Sign("board", "cream", "navy", "zilla-slab", ("Market",), "street", False, 2),
    ]
    images = [*(paint(sign, 128) for sign in signs), Image.new("RGB", (128, 128), (30, 90, 40))]
    reader = ocr.find_reader()
    seen: list[int] = []
    readings = reader.read(images, workers=2, progress=seen.append)
    assert [reading.words for reading in readings] == [("HOTEL",), ("Market",), ()]
    assert seen[-1] == 3 and readings[0].confidence > 0.5 and readings[2].confidence == 0
    assert reader.version[0].isdigit()


def test_a_missing_program_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DeviceError) as caught:
        ocr.find_reader()
    assert caught.value.because == ("the program `tesseract` is not on the path",)
    for word in ("apt install", "brew install", "winget install"):
        assert word in (caught.value.hint or "")
