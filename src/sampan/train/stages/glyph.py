"""The glyph encoder: the bytes of a word must find the picture of that word among others.

Words are those of the captions' quotes and those of `sampan.synthetic.signs.words`, in every font that may be trained on;
some come in pairs that differ by one letter. Beside it the first channels of each byte's embedding are asked where the byte
stands and which letter it is: from embeddings that hardly say so a decoder is long in learning to spell. How well the
encoder does is measured on words that it has not seen. Source of the recipe: Glyph-ByT5 (Liu et al. 2024), contrast of text
with rendered glyphs, in small; the question is our own.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sampan.frameworks import device as dev
from sampan.losses.stages import glyph_loss
from sampan.models import positions
from sampan.models.config import NUM_TOLD, NUM_WAVES, WORD_PX, GlyphConfig
from sampan.models.heads import GlyphWithHeads
from sampan.models.text import GLYPH_PAD_ID, glyph_batch, glyph_texts
from sampan.samplers import noise
from sampan.synthetic import text_rendering
from sampan.synthetic.signs.split import is_test_word
from sampan.synthetic.signs.words import WordSource
from sampan.train.stages import HostBatch, StageInputs, TrainableStage, caption_texts

HEIGHT_PX, WIDTH_PX = WORD_PX
COLUMN_PX = 4
# what a byte's embedding tells in its first channels: cosines of where it stands on a row of cells, how far it is from
# either end, the difference of the two; which letter it is, whether a capital, with which mark
_CELLS, _CELL_WAVES = 8, 7
_PLACE_UNIT = 4.0  # letters
_BASES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_MARKS = "\u0301\u0300\u0302\u0303\u0308\u0327\u030c"  # acute, grave, circumflex, tilde, diaeresis, cedilla, caron
_SURE = 1.5  # what a channel says for "yes"
_NUM_PLACES = _CELL_WAVES + 3
assert _NUM_PLACES + len(_BASES) + 1 + len(_MARKS) == NUM_TOLD, (
    "the head asks for as many channels as there are answers"
)
MEASURED_WORDS = 512
_LEAST_LETTERS, _MOST_LETTERS = 2, 12
_MOST_IN_TWO_WORDS = 16
_QUOTED_SHARE, _TWO_WORDS_SHARE, _NEIGHBOUR_SHARE = 0.3, 0.15, 0.5
_FRONT_PAD_EVERY = 4  # micro-batches: strings of a prompt that has an even number of them begin with a pad
_LETTERS = "aáàâãäåąbcçćčdeéèêëęfghiíìîïjklłmnñńoóòôõöøpqrsśšßtuúùûüvwxyýzźżžABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def make(inputs: StageInputs) -> TrainableStage:
    """Return the stage."""
    settings, config, seed = inputs.settings, inputs.config, inputs.seed
    texts = [t for caption in caption_texts([inputs.samples[i] for i in inputs.members]) for t in glyph_texts(caption)]
    quoted = [t for t in dict.fromkeys(texts) if can_draw(t)]
    words = WordSource(is_test=False)
    with dev.on_meta():
        module = GlyphWithHeads(config)

    def word(step: int, row: int) -> str:
        """Return the word of a row; every second one may be its neighbour with one letter changed."""
        random = noise.generator(seed, "glyph", step, row)
        if row % 2 and random.random() < _NEIGHBOUR_SHARE:
            return neighbour(word(step, row - 1), random)
        if quoted and random.random() < _QUOTED_SHARE:
            return quoted[int(random.integers(len(quoted)))]
        return drawn(words, random)

    def draw(step: int, micro: int) -> HostBatch:
        chosen, pictures, boxes = [], [], []
        for row in inputs.rows(micro):
            chosen.append(word(step, row))
            picture, box = rendered(
                chosen[-1], noise.generator(seed, "glyph/picture", step, row), text_rendering.TRAIN_FONTS
            )
            pictures.append(picture)
            boxes.append(box)
        has_front_pad = inputs.block(step, micro) % _FRONT_PAD_EVERY == 0
        first = {text: row for row, text in reversed(list(enumerate(chosen)))}
        weights = np.array([first[text] == row for row, text in enumerate(chosen)], np.float32)
        arrays = (
            *spelled(chosen, config.glyph, has_front_pad),
            *told(chosen, config.glyph, has_front_pad),
            np.stack(pictures)[:, None],
            column_waves(boxes),
        )
        return HostBatch((*arrays, np.arange(len(chosen)), weights), tuple(chosen))

    def loss(module: Any, *arrays: Any) -> tuple[Any, dict[str, Any]]:
        return glyph_loss(module, *arrays, temperature=settings.temperature, place_weight=settings.place_weight)

    def measure(module: Any) -> dict[str, float]:
        return evaluate(module, inputs.device, avoid=quoted)

    return TrainableStage(module, draw, loss, prefix="part.", measure=measure)


def evaluate(module: Any, device: str, avoid: Sequence[str] = (), num_words: int = MEASURED_WORDS) -> dict[str, float]:
    """Return the shares of unseen words whose bytes find their own picture among those of all the words.

    The words are the same whatever was trained: they are of the test side of `sampan.synthetic.signs.split`, all different,
    and stand upright, in any of the fonts and sizes.

    Args:
        module: A trained GlyphWithHeads.
        avoid: Words of the training set's own captions, which are left out.

    Returns:
        `retrieval@1` with the fonts of the training, `retrieval@1_unseen_font` with those that are kept from it.
    """
    texts = measured_words(num_words, avoid)

    def word_of(*arrays: Any) -> Any:
        return module.spell(*arrays)[0]

    spelt = [_on_host(word_of, device, *spelled(part, module.part.config, False)) for part in _parts(texts)]
    found = {}
    for name, fonts in (("", text_rendering.TRAIN_FONTS), ("_unseen_font", text_rendering.HELD_OUT_FONTS)):
        seen = []
        for part in _parts(list(enumerate(texts))):
            drawn = [rendered(text, noise.generator(0, "glyph/measure" + name, row), fonts, 0.0) for row, text in part]
            pictures = np.stack([picture for picture, _ in drawn])[:, None]
            seen.append(_on_host(module.read, device, pictures, column_waves([box for _, box in drawn])))
        nearest = (_unit(np.concatenate(spelt)) @ _unit(np.concatenate(seen)).T).argmax(1)
        found[f"retrieval@1{name}"] = float((nearest == np.arange(num_words)).mean())
    return found


def measured_words(num_words: int, avoid: Sequence[str] = ()) -> list[str]:
    """Return different words of the test side, each in some case; two that differ by case alone are one word."""
    avoided, words = {text.casefold() for text in avoid}, WordSource(is_test=True)
    random = noise.generator(0, "glyph/measure")
    chosen: dict[str, str] = {}
    while len(chosen) < num_words:
        text = words.draw(random, _MOST_LETTERS, _LEAST_LETTERS)
        if text.casefold() not in avoided:
            chosen.setdefault(text.casefold(), cased(text, random))
    return list(chosen.values())


def can_draw(text: str) -> bool:
    """Say whether a quoted text is short enough for a picture, and of letters that every font has."""
    return (
        _LEAST_LETTERS <= len(text) <= _MOST_IN_TWO_WORDS
        and not text.isspace()
        and text_rendering.ALPHABET.issuperset(text)
    )


def drawn(words: WordSource, random: np.random.Generator) -> str:
    """Return one word, or sometimes two with a space between, in some case."""
    text = words.draw(random, _MOST_LETTERS, _LEAST_LETTERS)
    if random.random() < _TWO_WORDS_SHARE and len(text) < _MOST_IN_TWO_WORDS - _LEAST_LETTERS:
        text += " " + words.draw(random, _MOST_IN_TWO_WORDS - len(text) - 1)
    return cased(text, random)


def cased(text: str, random: np.random.Generator) -> str:
    """Return a text as it is, with a capital at its beginning, or all in capitals."""
    return (str, str.title, str.upper)[int(random.integers(3))](text)


def neighbour(text: str, random: np.random.Generator) -> str:
    """Return a text that differs a little, and that the test does not ask for; the same text where none is found."""
    for _ in range(8):
        other = changed(text, random)
        if not any(map(is_test_word, other.split(" "))):
            return other
    return text


def changed(text: str, random: np.random.Generator) -> str:
    """Return a text that differs by a letter (another one, one less, one more, two exchanged), or by capitals."""
    place, kind = int(random.integers(len(text))), int(random.integers(7))
    letter = _LETTERS[int(random.integers(len(_LETTERS)))]
    if kind == 0 and len(text) > _LEAST_LETTERS:
        return (text[:place] + text[place + 1 :]).strip() or letter
    if kind == 1 and len(text) < _MOST_IN_TWO_WORDS:
        return text[:place] + letter + text[place:]
    if kind == 2 and place:
        return text[: place - 1] + text[place] + text[place - 1] + text[place + 1 :]
    if kind == 3:
        first, rest = text[0], text[1:]
        return (first.swapcase() + rest if random.random() < 0.5 else text.swapcase()).replace("\u0307", "")
    return text[:place] + letter + text[place + 1 :]


def spelled(texts: Sequence[str], config: GlyphConfig, has_front_pad: bool) -> tuple[NDArray[Any], ...]:
    """Return ids, mask (texts, bytes) and buckets (bytes, bytes) for the encoder, each text as if it were a prompt's, and
    the cosines (texts, NUM_WAVES, bytes) along its characters; pads and ends weigh nothing."""
    ids, mask = glyph_batch(texts)
    if len(texts) % 2 == 0:  # an even number of strings has got the pad of such a prompt
        ids, mask = ids[:, 1:], mask[:, 1:]
    if has_front_pad:
        ids = np.pad(ids, ((0, 0), (1, 0)), constant_values=GLYPH_PAD_ID)
        mask = np.pad(mask, ((0, 0), (1, 0)), constant_values=True)
    buckets = positions.relative_buckets(
        ids.shape[1], config.relative_attention_num_buckets, config.relative_attention_max_distance
    )
    along = np.full(ids.shape, np.nan)
    for row, text in enumerate(texts):
        of_byte = [place for place, letter in enumerate(text) for _ in letter.encode()]
        along[row, has_front_pad : has_front_pad + len(of_byte)] = (np.array(of_byte) + 0.5) / len(text)
    return ids, mask, buckets, _waves(along)


def told(
    texts: Sequence[str], config: GlyphConfig, has_front_pad: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what each byte is to tell (texts, bytes, num_told) and its share of the mean (texts, bytes); pads have none."""
    most = has_front_pad + max(len(text.encode()) for text in texts) + 1
    wanted = np.zeros((len(texts), most, NUM_TOLD), np.float32)
    share = np.zeros((len(texts), most), np.float32)
    for row, text in enumerate(texts):
        of_byte = np.array([place for place, letter in enumerate(text) for _ in letter.encode()])
        before, after = of_byte, len(text) - 1 - of_byte
        cells = max(_CELLS, len(text))
        along = ((cells - len(text)) // 2 + of_byte + 0.5) / cells
        inside = slice(has_front_pad, has_front_pad + len(of_byte))
        wanted[row, inside, :_CELL_WAVES] = np.cos(np.pi * np.arange(1, _CELL_WAVES + 1) * along[:, None])
        wanted[row, inside, _CELL_WAVES:_NUM_PLACES] = np.stack([before, after, before - after], 1) / _PLACE_UNIT
        wanted[row, inside, _NUM_PLACES:] = np.stack([_letter(letter) for letter in text])[of_byte]
        share[row, inside] = 1
    return wanted[:, :, : config.num_told], share / share.sum()


@lru_cache(maxsize=4096)
def _letter(letter: str) -> NDArray[np.float32]:
    """Return which letter it is, whether it is a capital, and its mark."""
    base, *marks = unicodedata.normalize("NFKD", letter)
    known = [_SURE * (base.upper() == one) for one in _BASES]
    return np.array([*known, letter.isupper(), *(_SURE * (one in marks) for one in _MARKS)], np.float32)


def rendered(
    text: str, random: np.random.Generator, fonts: Sequence[str], sway: float = 1.0
) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """Return a text's picture (32, 128) in [-1, 1], and where its ink begins and ends, in px.

    Args:
        sway: How far it may be turned, leaned, stretched, made bolder or paler; at 0, font, size and place alone differ.
    """
    font = fonts[int(random.integers(len(fonts)))]
    image = text_rendering.picture(text, font, int(random.integers(18, 31)))
    turn, lean = (
        sway * float(random.uniform(-0.07, 0.07)),
        sway * float(random.uniform(-0.2, 0.2)),
    )  # rad; of the height
    width, height = image.size
    wide = width + abs(lean) * (height + 0.07 * width)
    high = height + abs(turn) * wide
    image = image.transform(
        (round(wide), round(high)),
        Image.Transform.AFFINE,
        (1, lean, min(0.0, -lean * high), turn, 1, min(0.0, -turn * wide)),
        Image.Resampling.BILINEAR,
    )
    room_px = WIDTH_PX - 2 * COLUMN_PX  # the outermost columns are not read
    scale = min(1.0, HEIGHT_PX / image.height, room_px / image.width)
    width = max(1, min(room_px, round(image.width * scale * float(random.uniform(0.85, 1.15)) ** sway)))
    height = max(1, round(image.height * scale))
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, room = COLUMN_PX + int(random.integers(0, room_px - width + 1)), HEIGHT_PX - height
    top = min(room, max(0, room // 2 + int(random.integers(-2, 3))))
    canvas = Image.new("L", (WIDTH_PX, HEIGHT_PX))
    canvas.paste(image, (left, top))
    weight, strength = float(random.uniform(0.8, 1.3)) ** sway, float(random.uniform(0.6, 1)) ** sway
    light = (np.asarray(canvas, np.float32) / 255) ** np.float32(
        weight
    )  # grey edges count more or less: stronger, finer
    return ((2 * light - 1) * strength).astype(np.float32), (float(left), float(left + width))


def column_waves(boxes: Sequence[tuple[float, float]]) -> NDArray[np.float32]:
    """Return the cosines (words, NUM_WAVES, inner columns) along each word, over the columns that its ink touches."""
    centres = (np.arange(1, WIDTH_PX // COLUMN_PX - 1) + 0.5) * COLUMN_PX
    begins, ends = np.array(boxes, np.float64).T[:, :, None]
    touched = (centres > begins - COLUMN_PX / 2) & (centres < ends + COLUMN_PX / 2)
    return _waves(np.where(touched, np.clip((centres - begins) / (ends - begins), 0, 1), np.nan))


def _waves(along: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return (words, NUM_WAVES, places) of where each place lies along its word, in [0, 1], or nan where it is none."""
    cosines = np.cos(np.pi * np.arange(NUM_WAVES)[:, None] * along[:, None, :])
    return np.nan_to_num(cosines / np.isfinite(along).sum(1)[:, None, None]).astype(np.float32)


def _parts(rows: Sequence[Any], size: int = 64) -> list[Sequence[Any]]:
    return [rows[first : first + size] for first in range(0, len(rows), size)]


def _on_host(function: Any, device: str, *arrays: Any) -> NDArray[np.float32]:
    with dev.no_grad():
        return dev.to_numpy(function(*(dev.array(array, device) for array in arrays)))


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
