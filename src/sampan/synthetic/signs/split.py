"""What is kept from training: a digest decides, the same on every machine and for every seed.

Four things are decided, each by itself: a word, a word in a font, a composition (layout, colour of the plate, colour of
the letters), and an emoji on a colour. Case does not matter: a word in capitals is the same word.
"""

from __future__ import annotations

import hashlib
import unicodedata
from functools import lru_cache

from sampan.synthetic.text_rendering import FONTS

_TEST_IN = 8  # one in so many


def is_test_word(word: str) -> bool:
    """Say whether no training picture shows a word (what stands between spaces)."""
    return _is_test("word", _plain(word))


def is_test_pair(font: str, word: str) -> bool:
    """Say whether no training picture shows a word in a font of text_rendering.FONTS."""
    return FONTS[font].is_held_out or is_test_word(word) or _is_test("pair", font, _plain(word))


@lru_cache(maxsize=8192)
def is_test_composition(layout: str, plate: str, ink: str) -> bool:
    """Say whether no training picture has a layout with a colour of plate and of letters, all by their names."""
    return _is_test("composition", layout, plate, ink)


def is_test_emoji(stem: str, plate: str) -> bool:
    """Say whether no training picture shows an emoji, by its `stem`, on a plate's colour."""
    return _is_test("emoji on plate", stem, plate)


def _plain(word: str) -> str:
    # Turkish has two letters i, which are one and the same in capitals that no Turkish rule was told of
    return unicodedata.normalize("NFC", word).casefold().replace("\u0307", "").replace("ı", "i")


def _is_test(*names: str) -> bool:
    return int.from_bytes(hashlib.sha256("\0".join(names).encode()).digest()[:8], "big") % _TEST_IN == 0
