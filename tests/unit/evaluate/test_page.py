"""The page of a record of quality: pictures in their order with what is right of them, and nothing run or loaded."""

import json
from pathlib import Path

import pytest
from PIL import Image

from sampan.evaluate.case import EvalCase
from sampan.evaluate.page import EXTREMES, GRID, ReportImage, page
from sampan.evaluate.scorer import CaseScore
from sampan.metrics.ocr import WordScore
from well_formed import assert_well_formed

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def record():
    return json.loads((ROOT / "results" / "nano-signs_20261129_2.json").read_text(encoding="utf-8"))


def shown(stratum, score, read="", prompt="a boat", size=8):
    image = Image.new("RGB", (size, size))
    return ReportImage(EvalCase(prompt=prompt, slice=stratum, seed=0, truth=image), image, score, read)


def test_a_picture_stands_with_what_is_right_and_wrong_of_it(record):
    main = record["main"]
    right = shown(main, CaseScore(words=WordScore(1, 1, 1.0), colors=(True,), rank=4, changed=True, kept=True), "BOAT")
    wrong = shown(
        main, CaseScore(words=WordScore(2, 1, 1.0), colors=(True, False), rank=5, changed=True, kept=False), ""
    )
    written = page(record, [right, wrong])
    assert_well_formed(written)
    first, second = written.split("<figcaption>")[1:]
    for part in ('"yes">read: BOAT<', '"yes">place 5<', '"yes">edit done<'):
        assert part in first
    assert 'class="no"' not in first
    for part in ('"no">read: nothing<', '"no">place 6<', '"no">a colour is wrong<', '"no">edit not done<'):
        assert part in second
    unread = page(record, [shown(main, CaseScore(), read=None)])
    assert "read:" not in unread.split("<figcaption>")[1]


def test_the_best_and_the_worst_stand_apart_where_not_all_are_shown(record):
    main = record["main"]
    images = [shown(main, CaseScore(colors=(number % 2 == 0,)), prompt=f"boat {number}") for number in range(GRID + 1)]
    written = page(record, images)
    assert written.count("<img ") == GRID + 2 * EXTREMES
    worst = written.split(f"{main}: the worst")[1].split("</div>")[0]
    assert worst.count("a colour is wrong") == EXTREMES
    assert "the worst" not in page(record, images[:GRID])


def test_what_comes_in_is_escaped(record):
    image = shown(record["main"], CaseScore(words=WordScore(1, 0, 0.0)), SCRIPT, prompt=SCRIPT + '"')
    odd = {
        **record,
        "suite": SCRIPT,
        "notes": [SCRIPT],
        "painter": {SCRIPT: SCRIPT},
        "by": {SCRIPT: record["by"]["font"]},
    }
    assert assert_well_formed(page(odd, [image])).count(SCRIPT) > 6
