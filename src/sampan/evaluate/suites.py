"""What each suite asks: prompts of the kind that the picture sets have as captions, of what training never shows.

    signs   the main slice: one word of 3 to 8 plain letters on a placard, in the font that OCR reads best, word and
            colour of the plate in the prompt; apart: other fonts, Portuguese accents, digits, two lines, other kinds of
            signs
    emoji   by name, on white, as training shows them; apart: on a colour that the set shows it on last, and over a word
    edit    a placard with one thing changed: its colour, its word, the colour of its letters

Words, and which colours stand together where a layout does not share them, are those that sampan.synthetic.signs.split
keeps for the test. Case n of a suite and a seed is the same whatever the count.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import count as numbers
from itertools import islice

import numpy as np
from PIL import Image

from sampan.errors import DataError
from sampan.evaluate.case import Box, EvalCase, Suite
from sampan.samplers import noise
from sampan.synthetic import emoji, pairs
from sampan.synthetic.emoji_names import Emoji
from sampan.synthetic.signs import check_choice
from sampan.synthetic.signs.captions import captions, instructions
from sampan.synthetic.signs.colors import COLORS
from sampan.synthetic.signs.layouts import LAYOUTS, paint
from sampan.synthetic.signs.sign import Sign
from sampan.synthetic.signs.specification import SignFilter, SignSpecs

LETTERS = (3, 8)
PLAIN = "placard"
MAIN = SignFilter((PLAIN,), ("jetbrains-mono",), LETTERS, 1)  # the main slice: what OCR reads best on true pictures
SIZE_PX = 128
NUM_EMOJI = 256  # candidates, the most ordinary first
NUM_ASKED = 96  # and how many of them are asked for: those that `jobs/nano.toml` trains
NUM_COLORS = 5  # backgrounds on which that training shows each; the one asked for comes later in the order
EMOJI_SEED = 0  # of `sampan data emoji`, which decides the order of colours
_LEAST_LETTERS = 2
_MOST_DRAWS = 100  # for each sign wanted, before it is said that there are not enough
SIDE_SHARE = 0.2  # of the count, for each slice beside the main one
PAIR_BOX: Box = (0.125, 0.0, 0.875, 0.75)  # where sampan.synthetic.pairs puts the emoji …
PAIR_WORD_BOX: Box = (0.0, 0.75, 1.0, 1.0)  # … and the word
_PORTUGUESE = frozenset("áâãàçéêíóôõúü")
EDITS = ("plate", "word", "ink")


def signs(count: int, seed: int, size_px: int = SIZE_PX, choice: SignFilter = MAIN) -> Suite:
    """Return `count` one-word signs of a kind, and beside them a fifth as many of each other kind.

    Args:
        choice: Of the main slice.

    Raises:
        DataError: There are no such signs, or not enough.
    """
    check_choice(choice, "test")
    letters = choice.letters or LETTERS
    if letters[0] < _LEAST_LETTERS:
        raise DataError(
            "there are no such signs", f"words of {letters[0]} letters are hardly any", "as in --letters 3..8"
        )

    def fits(sign: Sign) -> bool:
        return len(sign.lines) == 1 and _is_plain(sign.lines[0], letters)

    strata: list[tuple[str, SignFilter, Callable[[Sign], bool]]] = [
        ("one word", replace(choice, letters=letters, lines=1), fits),
        (
            "other fonts",
            replace(MAIN, fonts=None),
            lambda sign: sign.font not in (choice.fonts or ()) and _is_plain(sign.lines[0]),
        ),
        ("accents", MAIN, lambda sign: _is_portuguese(sign.lines[0])),
        ("digits", MAIN, lambda sign: any(letter.isdigit() for letter in sign.lines[0]) and sign.lines[0].isascii()),
        ("two lines", replace(MAIN, lines=2), lambda sign: len(sign.lines) == 2 and all(map(_is_plain, sign.lines))),
        (
            "other layouts",
            SignFilter(None, None, None, 1),
            lambda sign: (
                sign.layout not in (choice.layouts or ()) and len(sign.lines) == 1 and _is_plain(sign.lines[0])
            ),
        ),
    ]
    cases = []
    for index, (name, chosen, fitting) in enumerate(strata):
        wanted = count if index == 0 else max(1, round(count * SIDE_SHARE))
        for number, sign in _signs(SignSpecs(seed, "test", chosen), fitting, wanted):
            cases.append(_sign_case(sign, name, seed, number, size_px))
    said = f"{', '.join(choice.layouts or ('any layout',))}, {', '.join(choice.fonts or ('any font',))}"
    note = f"one word of {letters[0]} to {letters[1]} letters a to z, {said}; words of the test"
    note += "; placards are trained in all their colours"
    return Suite("signs", strata[0][0], tuple(cases), notes=(note,))


def _signs(drawn: SignSpecs, fits: Callable[[Sign], bool], wanted: int) -> Iterator[tuple[int, Sign]]:
    found = 0
    for number in range(_MOST_DRAWS * (wanted + 10)):
        if fits(sign := drawn.draw(number)):
            yield number, sign
            found += 1
        if found == wanted:
            return
    raise DataError("there are not enough such signs", f"{found} of {wanted} were found", "ask for others beside")


def _sign_case(sign: Sign, slice_name: str, seed: int, number: int, size_px: int) -> EvalCase:
    random = noise.generator(seed, "quality/signs/prompt", number)
    # captions name all, some or little of a sign; one that names the plate is asked with
    texts = (text for _ in range(64) for text in random.permutation(np.array(captions(sign, random), object)))
    prompt = next(text for text in texts if _mentions(text, sign.plate))
    return EvalCase(
        prompt,
        slice_name,
        _seed(seed, slice_name, number),
        paint(sign, size_px),
        words=sign.lines,
        plate=sign.plate,
        ink=sign.ink if _mentions(prompt, sign.ink) else None,
        box=lettering_box(sign),
        on_plate=sign.layout == PLAIN,
        groups=_groups(sign),
    )


def _groups(sign: Sign) -> tuple[tuple[str, str], ...]:
    text = " ".join(sign.lines)
    letters = str(len(sign.lines[0])) if len(sign.lines) == 1 else "several lines"
    return (
        ("layout", sign.layout),
        ("font", sign.font),
        ("letters", letters),
        ("script", "digits" if any(map(str.isdigit, text)) else "plain" if text.isascii() else "accents"),
    )


def _mentions(prompt: str, color: str) -> bool:
    """Say whether a prompt says a colour, outside of what is in quotes."""
    outside = " ".join(piece for at, piece in enumerate(prompt.split('"')) if at % 2 == 0)
    return re.search(rf"(?<!light )(?<!dark )\b{color}\b", outside) is not None


def lettering_box(sign: Sign) -> Box:
    """Return the box around all places where a sign's lines are written."""
    boxes = [place.box for place in LAYOUTS[sign.layout].places(sign)]
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def _is_plain(word: str, letters: tuple[int, int] = LETTERS) -> bool:
    return word.isascii() and word.isalpha() and letters[0] <= len(word) <= letters[1]


def _is_portuguese(word: str) -> bool:
    marked = {letter for letter in unicodedata.normalize("NFC", word.lower()) if not letter.isascii()}
    return word.isalpha() and bool(marked) and marked <= _PORTUGUESE


def emojis(count: int, seed: int, size_px: int = SIZE_PX) -> Suite:
    """Return `count` emoji by name, and beside them half as many on an unseen colour and half as many over a word.

    Raises:
        DataError: The extra `data` is not installed.
    """
    beside = max(1, round(count / 2))
    candidates, drawn = pairs.PairSpecs(seed, "test", NUM_EMOJI), pairs.PairSpecs(seed, "test", NUM_ASKED)
    glyphs = {one.stem: _glyph(candidates, one.text) for one in candidates.emoji}
    cases = []
    for number in range(count):
        one = drawn.emoji[_emoji_index(seed, "by name", number)]
        truth = emoji.compose(glyphs[one.stem], size_px, (255, 255, 255))
        cases.append(EvalCase(one.names["en"], "by name", _seed(seed, "by name", number), truth, emoji=one.stem))
    for number, one, color in islice(_on_unseen_colors(drawn, glyphs, seed), beside):
        glyph = glyphs[one.stem]
        a = "an" if color[0] in "aeiou" else "a"
        cases.append(
            EvalCase(
                f"{one.names['en']} on {a} {color} background",
                "on an unseen colour",
                _seed(seed, "on an unseen colour", number),
                emoji.compose(glyph, size_px, emoji.COLORS[color]),
                emoji=one.stem,
                backdrop=emoji.COLORS[color],
                background=color,
            )
        )
    fitting = (pair for number in numbers() if _is_plain((pair := drawn.draw(number)).word))
    for number, pair in zip(range(beside), fitting, strict=False):
        random = noise.generator(seed, "quality/emoji/prompt", number)
        prompt = next(text for _ in range(64) for text in pairs.captions(pair, random) if _mentions(text, pair.plate))
        cases.append(
            EvalCase(
                prompt,
                "over a word",
                _seed(seed, "over a word", number),
                drawn.paint(pair, size_px),
                words=(pair.word,),
                emoji=pair.emoji.stem,
                emoji_box=PAIR_BOX,
                backdrop=COLORS[pair.plate],
                plate=pair.plate,
                box=PAIR_WORD_BOX,
            )
        )
    note = f"an unseen colour is the last of the order in which `sampan data emoji --seed {EMOJI_SEED}` takes colours"
    return Suite(
        "emoji", "by name", tuple(cases), glyphs, (note, f"{NUM_ASKED} emoji asked for, {NUM_EMOJI} candidates")
    )


def _on_unseen_colors(
    drawn: pairs.PairSpecs, glyphs: Mapping[str, Image.Image], seed: int
) -> Iterator[tuple[int, Emoji, str]]:
    """Yield emoji, without end, with a colour on which each can be seen and is not trained."""
    for number in numbers():
        one = drawn.emoji[_emoji_index(seed, "on an unseen colour", number)]
        glyph = glyphs[one.stem]
        later = emoji.colors_of(glyph, one, EMOJI_SEED)[NUM_COLORS:]
        if seen := [name for name in later if emoji.is_seen(glyph, emoji.COLORS[name])]:
            yield number, one, seen[-1]


def _glyph(drawn: pairs.PairSpecs, text: str) -> Image.Image:
    glyph = drawn.glyphs.picture(text)
    assert glyph is not None, "only emoji that the font draws are among the pairs"
    return glyph


def _emoji_index(seed: int, slice_name: str, number: int) -> int:
    """Return which emoji is asked for: all in turn, in an order of the seed's own."""
    order = noise.generator(seed, f"quality/emoji/{slice_name}").permutation(NUM_ASKED)
    return int(order[number % NUM_ASKED])


def edits(count: int, seed: int, size_px: int = SIZE_PX) -> Suite:
    """Return `count` edits of placards, a third of each kind."""
    drawn, cases = SignSpecs(seed, "test", MAIN), list[EvalCase]()
    wanted = {kind: count // len(EDITS) + (at < count % len(EDITS)) for at, kind in enumerate(EDITS)}
    for number in numbers():
        if not any(wanted.values()):
            break
        before, edit = drawn.draw(number), drawn.edit(number)
        after = edit.after
        if not wanted.get(edit.kind) or not all(_is_plain(line) for line in (*before.lines, *after.lines)):
            continue
        wanted[edit.kind] -= 1
        random = noise.generator(seed, "quality/edit/prompt", number)
        cases.append(
            EvalCase(
                instructions(before, after, random)[0],
                "placard",
                _seed(seed, "edit", number),
                paint(after, size_px),
                (paint(before, size_px),),
                words=after.lines,
                plate=after.plate,
                ink=after.ink,
                box=lettering_box(after),
                on_plate=True,
                edit=edit.kind,
                groups=(("edit", edit.kind),),
            )
        )
    return Suite("edit", "placard", tuple(cases))


def _seed(seed: int, slice_name: str, number: int) -> int:
    return int(noise.generator(seed, f"quality/{slice_name}", number).integers(1 << 31))


SUITES: dict[str, Callable[..., Suite]] = {"signs": signs, "emoji": emojis, "edit": edits}
