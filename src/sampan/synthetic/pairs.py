"""Pictures of an emoji over a word: what a name calls for and what is in quotes, both in one picture.

A set of signs teaches letters and a set of emoji teaches things; a prompt may ask for both. Words are kept apart as those
of the signs are, and so is which emoji stands on which colour, so that a test shows neither.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sampan.errors import DataError, did_you_mean
from sampan.samplers import noise
from sampan.synthetic import emoji, text_rendering
from sampan.synthetic.emoji_names import Emoji
from sampan.synthetic.picture_set import PictureSet, PictureSetSummary, write_set
from sampan.synthetic.signs.captions import in_some_case
from sampan.synthetic.signs.colors import COLORS
from sampan.synthetic.signs.drawing import FINER, Canvas
from sampan.synthetic.signs.layouts import LAYOUTS
from sampan.synthetic.signs.scenes import one_of
from sampan.synthetic.signs.split import is_test_emoji
from sampan.synthetic.signs.words import WordSource

SPLITS = ("train", "test")
_FAILED = "the pairs cannot be made"
FONT = "jetbrains-mono"
LETTERS = (3, 8)
_PLACARD = LAYOUTS["placard"]
_EMOJI_SHARE = 0.75  # of the picture's side
_WORD_ROWS = (0.75, 1.0)  # lettered in cells, as placards are
_PHRASES = (
    '{name} over the word "{word}" on {plate}',
    '{name} above "{word}" in {ink} on {plate}',
    'a {plate} sign with {name} and "{word}"',
    'a {plate} sign with {name} above the word "{word}" in {ink} letters',
    '{name} with "{word}" below',
    '"{word}" under {name} on a {plate} sign',
)


@dataclass(frozen=True)
class EmojiWordPair:
    """A picture as a value: an emoji, and below it a word, on a colour. Colours by their names in COLORS."""

    emoji: Emoji
    word: str
    plate: str
    ink: str


class PairSpecs:
    """The pairs of a split, each drawn by itself from a counter.

    Args:
        num_emoji: How many emoji, the most ordinary first.

    Raises:
        DataError: The font draws fewer, or the extra `data` is not installed.
    """

    def __init__(self, seed: int, split: str, num_emoji: int):
        self.glyphs, names = emoji.font_and_names(_FAILED, None, ["en"])
        self.seed, self.is_test = seed, split == "test"
        self.emoji = [named for named in names if self.glyphs.picture(named.text) is not None][:num_emoji]
        if len(self.emoji) < num_emoji:
            raise DataError(_FAILED, f"{num_emoji} emoji are wanted, and the font draws {len(self.emoji)}")
        self._words = WordSource(self.is_test)

    def draw(self, number: int) -> EmojiWordPair:
        """Return pair number n, one whose emoji can be seen on its plate."""
        random = noise.generator(self.seed, "pairs", number)
        while True:
            chosen = one_of(random, self.emoji)
            plate = one_of(random, _PLACARD.plates)
            glyph = self.glyphs.drawn(chosen.text)
            if is_test_emoji(chosen.stem, plate) != self.is_test or not emoji.is_seen(glyph, COLORS[plate]):
                continue
            word = self._words.draw(random, LETTERS[1], LETTERS[0]).upper()
            if len(word) <= LETTERS[1]:  # a capital may be two letters, as of ß
                inks = [ink for named, ink in _PLACARD.compositions() if named == plate]
                return EmojiWordPair(chosen, word, plate, one_of(random, inks))

    def paint(self, pair: EmojiWordPair, size_px: int) -> Image.Image:
        """Return the RGB picture (size_px, size_px)."""
        canvas = Canvas(FINER * size_px)
        canvas.rectangle((0, 0, 1, 1), COLORS[pair.plate])
        canvas.write_cells(pair.word, FONT, _WORD_ROWS, COLORS[pair.ink])
        image, side = canvas.finish(), round(_EMOJI_SHARE * size_px)
        drawing = emoji.compose(self.glyphs.drawn(pair.emoji.text), side, COLORS[pair.plate])
        image.paste(drawing, ((size_px - side) // 2, 0))
        return image


def captions(pair: EmojiWordPair, random: np.random.Generator) -> list[str]:
    """Return two captions of a pair, the word in straight quotes, in any case: it is drawn in capitals."""
    (word,) = in_some_case([pair.word], random)
    known = {"name": pair.emoji.names["en"], "word": word, "plate": pair.plate, "ink": pair.ink}
    return [_PHRASES[int(i)].format(**known) for i in random.permutation(len(_PHRASES))[:2]]


def write(
    directory: str | Path,
    *,
    count: int,
    num_emoji: int,
    size_px: int = 128,
    split: str = "train",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> PictureSetSummary:
    """Write the pictures and their captions into a folder, which appears complete or not at all.

    Args:
        directory: New or empty, or written by this command and unchanged since.
        split: "train": no word and no emoji on a colour of the test. "test": only such.

    Raises:
        DataError: An argument out of range, or a folder that cannot be used.
    """
    if count < 1 or num_emoji < 1:
        raise DataError(_FAILED, f"{count} pictures of {num_emoji} emoji are none")
    if split not in SPLITS:
        raise DataError(_FAILED, f"`{split}` is not a split", did_you_mean(split, SPLITS))
    pairs = PairSpecs(seed, split, num_emoji)
    recipe = {
        "count": count,
        "num_emoji": num_emoji,
        "size_px": size_px,
        "split": split,
        "seed": seed,
        "fonts_sha256": text_rendering.sha256(),
        "font_sha256": pairs.glyphs.sha256,
    }

    def fill(pictures: PictureSet) -> dict[str, int]:
        for number in range(count):
            pair = pairs.draw(number)
            row = {
                "file_name": pictures.save(f"{number:06d}", pairs.paint(pair, size_px), compress_level=4),
                "text": captions(pair, noise.generator(seed, "pairs/captions", number)),
                "words": [pair.word],
                "emoji": pair.emoji.text,
                "plate": pair.plate,
                "ink": pair.ink,
                "split": split,
            }
            pictures.rows.append(row)
            if progress:
                progress(number + 1, count)
        return {"num_pictures": count}

    return write_set(directory, "pairs", recipe, fill)
