"""Which signs there are: sign number n of a seed, and a change of it. Each is drawn by itself, from a counter."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sampan.samplers import noise
from sampan.synthetic.signs.layouts import LAYOUTS
from sampan.synthetic.signs.scenes import one_of
from sampan.synthetic.signs.sign import LEAST_CAPITAL, Sign, least_capital
from sampan.synthetic.signs.split import is_test_composition, is_test_pair
from sampan.synthetic.signs.words import WordSource, small
from sampan.synthetic.text_rendering import FONTS, TRAIN_FONTS

SPLITS = ("train", "test", "all")
EDITS = ("word", "plate", "ink", "font", "add", "remove")
_TEST_SHARE_OF_ALL = 0.1
_TWO_WORDS_SHARE = 0.1
_MORE_LINES = (0.55, 0.35, 0.1)  # shares of one, two and three lines, where a layout has room for them


@dataclass(frozen=True)
class SignFilter:
    """Which signs are wanted; None leaves all.

    Args:
        layouts: Names in LAYOUTS.
        fonts: Names in text_rendering.FONTS.
        letters: Fewest and most letters of a line.
        lines: Number of lines, as far as a layout has room for them.
        plates, inks: Colours of what is written on and of the letters, by name.
    """

    layouts: tuple[str, ...] | None = None
    fonts: tuple[str, ...] | None = None
    letters: tuple[int, int] | None = None
    lines: int | None = None
    plates: tuple[str, ...] | None = None
    inks: tuple[str, ...] | None = None


@dataclass(frozen=True)
class SignEdit:
    """A change of one thing.

    Args:
        kind: One of EDITS.
    """

    kind: str
    after: Sign


class SignSpecs:
    """The signs of a split.

    Args:
        split: "train": no word, no word in a font and no composition of the test. "test": words and composition all of
            the test, in any font. "all": each sign is of the one or of the other.
        choice: Signs of one kind, where others are not wanted.
    """

    def __init__(self, seed: int, split: str, choice: SignFilter | None = None):
        assert split in SPLITS, f"no split `{split}`"
        self.seed, self.split, self.choice = seed, split, choice or SignFilter()
        self._words = {is_test: WordSource(is_test) for is_test in (False, True)}
        self._compositions = {
            is_test: {
                name: [
                    pair
                    for pair in layout.compositions()
                    if (layout.shares_colors or is_test_composition(name, *pair) == is_test) and self._wanted(*pair)
                ]
                for name, layout in LAYOUTS.items()
                if self.choice.layouts is None or name in self.choice.layouts
            }
            for is_test in (False, True)
        }

    def _wanted(self, plate: str, ink: str) -> bool:
        plates, inks = self.choice.plates, self.choice.inks
        return (plates is None or plate in plates) and (inks is None or ink in inks)

    def split_of(self, number: int) -> str:
        """Return "train" or "test": where a sign belongs."""
        if self.split != "all":
            return self.split
        return "test" if noise.generator(self.seed, "signs/split", number).random() < _TEST_SHARE_OF_ALL else "train"

    def draw(self, number: int) -> Sign:
        """Return a sign that can be read."""
        random = noise.generator(self.seed, "signs", number)
        is_test = self.split_of(number) == "test"
        known = self._compositions[is_test]
        name = one_of(random, [name for name, pairs in known.items() if pairs])
        plate, ink = one_of(random, known[name])
        layout = LAYOUTS[name]
        least, most = layout.num_lines
        shares = np.array(_MORE_LINES[least - 1 : most])
        num_lines = least + int(random.choice(most - least + 1, p=shares / shares.sum()))
        if self.choice.lines is not None:
            num_lines = min(max(self.choice.lines, least), most)
        scene, is_mirrored, variant = (
            one_of(random, layout.scenes),
            random.random() < 0.5,
            int(random.integers(1 << 31)),
        )
        least_letters, most_letters = self.choice.letters or (2, layout.most_letters)
        while True:
            case = str.upper if layout.capitals else one_of(random, (str.upper, str.title, small, str))
            lines = tuple(self._line(random, is_test, case, most_letters, least_letters) for _ in range(num_lines))
            fonts = self._fonts(lines, is_test)
            fits = all(len(line) <= layout.most_letters for line in lines)  # a capital may be two letters, as of ß
            if fits and fonts and len(set(lines)) == num_lines:
                sign = Sign(name, plate, ink, one_of(random, fonts), lines, scene, is_mirrored, variant)
                if least_capital(sign, layout) >= LEAST_CAPITAL:
                    return sign
            most_letters = max(least_letters, most_letters - 1)  # the next words are shorter, so that an end is sure

    def edit(self, number: int) -> SignEdit:
        """Return a change of a sign, which belongs where the sign does."""
        before, is_test = self.draw(number), self.split_of(number) == "test"
        random = noise.generator(self.seed, "signs/edit", number)
        while True:
            kind = one_of(random, EDITS)
            after = self._change(kind, before, is_test, random)
            if after is not None and least_capital(after, LAYOUTS[after.layout]) >= LEAST_CAPITAL:
                return SignEdit(kind, after)

    def _line(
        self,
        random: np.random.Generator,
        is_test: bool,
        case: Callable[[str], str],
        most_letters: int,
        least_letters: int = 2,
    ) -> str:
        text = self._words[is_test].draw(random, most_letters, least_letters)
        if random.random() < _TWO_WORDS_SHARE and len(text) + 3 <= most_letters:
            text += " " + self._words[is_test].draw(random, most_letters - len(text) - 1)
        return case(text)

    def _fonts(self, lines: Sequence[str], is_test: bool) -> list[str]:
        """Return the fonts in which lines may be written."""
        has_capitals = any(a.isupper() and b.isupper() for line in lines for a, b in pairwise(line))
        words = [word for line in lines for word in line.split(" ")]
        return [
            font
            for font in (FONTS if is_test else TRAIN_FONTS)
            if (self.choice.fonts is None or font in self.choice.fonts)
            and (FONTS[font].has_plain_capitals or not has_capitals)
            and (is_test or not any(is_test_pair(font, word) for word in words))
        ]

    def _change(self, kind: str, before: Sign, is_test: bool, random: np.random.Generator) -> Sign | None:
        """Return a sign changed in one way, or None where it cannot be."""
        lines = list(before.lines)
        if kind == "word":
            place = int(random.integers(len(lines)))
            lines[place] = self._like(before, is_test, random)
            return self._with_lines(before, lines, is_test)
        if kind == "add":
            if len(lines) == LAYOUTS[before.layout].num_lines[1]:
                return None
            return self._with_lines(before, [*lines, self._like(before, is_test, random)], is_test)
        if kind == "remove":
            return dataclasses.replace(before, lines=before.lines[:-1]) if len(lines) > 1 else None
        options = self._options(kind, before, is_test)
        return dataclasses.replace(before, **{kind: one_of(random, options)}) if options else None

    def _options(self, kind: str, before: Sign, is_test: bool) -> list[str]:
        """Return what else the plate, the ink or the font of a sign can be."""
        pairs = self._compositions[is_test][before.layout]
        if kind == "plate":
            return [plate for plate, ink in pairs if ink == before.ink and plate != before.plate]
        if kind == "ink":
            return [ink for plate, ink in pairs if plate == before.plate and ink != before.ink]
        style = FONTS[before.font].style  # fonts of one style differ, but an instruction cannot say how
        return [font for font in self._fonts(before.lines, is_test) if FONTS[font].style != style]

    def _like(self, before: Sign, is_test: bool, random: np.random.Generator) -> str:
        """Return another line in the case of those that are there."""
        first, layout = before.lines[0], LAYOUTS[before.layout]
        case = str.upper if layout.capitals or first.isupper() else str.title if first.istitle() else small
        least, most = self.choice.letters or (2, layout.most_letters)
        most_letters = max(least, min(most, max(map(len, before.lines)) + 2))
        return self._line(random, is_test, case, most_letters, least)

    def _with_lines(self, before: Sign, lines: Sequence[str], is_test: bool) -> Sign | None:
        if (
            len(set(lines)) < len(lines)
            or tuple(lines) == before.lines
            or before.font not in self._fonts(lines, is_test)
        ):
            return None
        return dataclasses.replace(before, lines=tuple(lines))
