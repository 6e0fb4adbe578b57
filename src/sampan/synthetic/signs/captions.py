"""What is said of a sign, and how a change of it is asked for: English, with the words in straight double quotes.

Only words that are to be drawn stand in quotes, from above to below, and no caption has an apostrophe: the glyph encoder
reads whatever is quoted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sampan.synthetic.signs.layouts import LAYOUTS
from sampan.synthetic.signs.scenes import SCENES, one_of
from sampan.synthetic.signs.sign import Sign
from sampan.synthetic.signs.words import small
from sampan.synthetic.text_rendering import FONTS

_WHOLE = (
    "{noun} {scene}, with {words} in {ink} {style} letters",
    "{noun} {scene} that says {words} in {ink} {style} letters",
    "{words} in {ink} {style} letters on {noun} {scene}",
    "a picture of {noun} {scene}. It reads {words}, written in {style} letters in {ink}",
    "{noun} {scene}. The text is {words}, in {ink}, in a {style} typeface",
)
_HALF = (
    "{noun} with {words} in {ink}",
    "{noun} that reads {words}",
    "{noun} that says {words}",
    "{words} on {noun}",
    "{noun}, and on it {words} in {style} letters",
    "{ink} letters on {noun}: {words}",
)
_BRIEF = (
    "{thing} with {words}",
    "{thing} that says {words}",
    "{words} in {style} letters",
    "{words} in {ink} on {plate}",
    "{thing}: {words}",
)


def captions(sign: Sign, random: np.random.Generator) -> list[str]:
    """Return three captions of a sign that each say it by itself: one whole, one without scenery, one brief."""
    chosen = [one_of(random, phrases) for phrases in (_WHOLE, _HALF, _BRIEF)]
    return [_tidy(phrase.format(**_facts(sign, random))) for phrase in chosen]


def asked(sign: Sign, random: np.random.Generator) -> list[str]:
    """Return a sign's lines as a caption quotes them: as they are drawn, but for a third of those that need not be."""
    if not LAYOUTS[sign.layout].asked_in_any_case:
        return list(sign.lines)
    return in_some_case(sign.lines, random)


def in_some_case(lines: Sequence[str], random: np.random.Generator) -> list[str]:
    """Return lines that are drawn in capitals as a prompt may ask for them: mostly as they are."""
    case: Callable[[str], str] = one_of(random, (str, str, str, str, str.title, small))
    return [case(line) for line in lines]


def words_of(lines: Sequence[str], random: np.random.Generator) -> str:
    """Return lines in quotes, in their order."""
    quoted = [f'"{line}"' for line in lines]
    if len(quoted) == 1:
        is_word = lines[0].isalpha()
        return one_of(random, ("", "the word " if is_word else "the text ", "")) + quoted[0]
    if len(quoted) == 2:
        return one_of(random, ("{} and {}", "{} above {}", "the lines {} and {}", "{} over {}")).format(*quoted)
    return one_of(random, ("{}, {} and {}", "the lines {}, {} and {}", "{} over {} over {}")).format(*quoted)


def instructions(before: Sign, after: Sign, random: np.random.Generator) -> list[str]:
    """Return two ways to ask for the one change between two signs."""
    thing, now = LAYOUTS[before.layout].thing, [f'"{line}"' for line in asked(after, random)]
    plate, ink, style = after.plate, after.ink, FONTS[after.font].style
    if before.plate != after.plate:
        options = [
            f"make the {thing} {plate}",
            f"change the colour of the {thing} to {plate}",
            f"paint the {thing} {plate} and keep {' and '.join(now)}",
        ]
    elif before.ink != after.ink:
        options = [
            f"make the letters {ink}",
            f"change the colour of the text to {ink}",
            f"write {' and '.join(now)} in {ink} instead",
        ]
    elif before.font != after.font:
        options = [
            f"write it in {style} letters",
            f"change the typeface to a {style} one",
            f"set {' and '.join(now)} in {style} letters",
        ]
    elif len(before.lines) < len(after.lines):
        options = [
            f"add {now[-1]} below",
            f"write {now[-1]} under the text",
            f"add a line that says {now[-1]} at the end",
        ]
    elif len(before.lines) > len(after.lines):
        options = [f"leave only {' and '.join(now)}", "remove the last line", "take the lowest line of text away"]
    else:
        options = _new_word(before, after, now)
    chosen = random.permutation(len(options))[:2]
    return [options[int(i)] for i in chosen]


def _new_word(before: Sign, after: Sign, now: Sequence[str]) -> list[str]:
    place = next(i for i, pair in enumerate(zip(before.lines, after.lines, strict=True)) if pair[0] != pair[1])
    new, thing = now[place], LAYOUTS[before.layout].thing
    if len(after.lines) == 1:
        return [f"change the text to {new}", f"write {new} on the {thing} instead", f"make it say {new}"]
    which = ("first", "second", "third")[place]
    return [f"change the {which} line to {new}", f"make the {which} line say {new}", f"put {new} in the {which} line"]


def _facts(sign: Sign, random: np.random.Generator) -> dict[str, str]:
    layout = LAYOUTS[sign.layout]
    known = {
        "plate": sign.plate,
        "a_plate": f"{_article(sign.plate)} {sign.plate}",
        "side": "left" if sign.is_mirrored else "right",
        "shape": "square" if not sign.is_mirrored else "oval",
        "slope": "down to the right" if sign.is_mirrored else "up to the right",
    }
    name = layout.name or layout.thing
    return {
        "noun": one_of(random, layout.nouns).format(**known),
        "thing": f"{_article(name)} {name}",
        "scene": one_of(random, SCENES[sign.scene][1]) if sign.scene in SCENES else "",
        "words": words_of(asked(sign, random), random),
        "plate": sign.plate,
        "ink": sign.ink,
        "style": FONTS[sign.font].style,
    }


def _article(words: str) -> str:
    return "an" if words[0] in "aeio" else "a"


def _tidy(text: str) -> str:
    """Return a text without the gaps that an empty phrase left."""
    return " ".join(text.split()).replace(" ,", ",").replace(" .", ".")
