"""The picture whose words are read right wins; needs Tesseract, as proofreading does."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from sampan.metrics.ocr import find_reader
from sampan.serve.proofread import scorer

pytestmark = pytest.mark.skipif(shutil.which("tesseract") is None, reason="Tesseract is not installed")


def written(text: str) -> np.ndarray:
    image = Image.new("RGB", (256, 96), "white")
    ImageDraw.Draw(image).text((16, 24), text, fill="black", font=ImageFont.load_default(44))
    return np.asarray(image)


def test_right_words_are_better_than_near_ones_and_those_than_none():
    pictures = [written("NOPE"), written("OPEN"), written(""), written("OPEM")]
    scores = scorer(find_reader())(pictures, 'a sign "OPEN" on a wall')
    assert scores[1] == max(scores) == 1.0
    assert scores[1] > scores[3] > scores[2] and scores[2] < 0.01
