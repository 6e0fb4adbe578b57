"""Rendered signs: words on boards, plates, labels and screens, with the words in their captions.

    words.py          what is written             text_rendering (one room up)  the fonts, and lines measured in them
    split.py          what training never sees    colors.py, drawing.py  which colours can be read, and drawing in shares
    specification.py  sign number n, and an edit  scenes.py, outdoors.py, objects.py, layouts.py  what is drawn
    captions.py       what is said of it          sign.py                a sign and a kind of sign as values

It gives a training pictures whose words are known, endlessly many of them, and a test whose words it cannot have seen.
Words, words in a font and compositions are kept apart by a digest, so that any two sets agree on what is test.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from sampan.errors import DataError, did_you_mean
from sampan.samplers import noise
from sampan.synthetic import text_rendering
from sampan.synthetic.picture_set import PictureSet, PictureSetSummary, Row, check_range, write_set
from sampan.synthetic.signs.captions import captions, instructions
from sampan.synthetic.signs.colors import COLORS
from sampan.synthetic.signs.layouts import LAYOUTS, paint
from sampan.synthetic.signs.sign import Sign
from sampan.synthetic.signs.specification import SPLITS, SignFilter, SignSpecs

__all__ = ["SIZES_PX", "SPLITS", "SignFilter", "check_choice", "write"]

SIZES_PX = (128, 2048)  # on fewer pixels the smallest letters could not be read


_FAILED = "the signs cannot be made"
_COMPRESSION = 4  # of PNG: flat colours, which more effort hardly makes smaller


def write(
    directory: str | Path,
    *,
    count: int,
    size_px: int = 128,
    edits: bool = False,
    split: str = "train",
    seed: int = 0,
    choice: SignFilter | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PictureSetSummary:
    """Write the pictures and their captions into a folder, which appears complete or not at all.

    Args:
        directory: New or empty, or written by this command and unchanged since; then it is replaced, or left alone
            where it already is what is asked for.
        count: How many signs. The first n of a larger set are those of a set of n.
        size_px: Side of the pictures. The same seed draws the same signs at every size.
        edits: Also write each sign with one thing changed, as a picture of its own and as the target of an edit.
        split: One of SPLITS; see specification.SignSpecs.
        choice: Signs of one kind; None draws all kinds.

    Raises:
        DataError: An argument out of range, or a folder that cannot be used.
    """
    check_range(_FAILED, "count", count, 1)
    check_range(_FAILED, "size_px", size_px, *SIZES_PX)
    if split not in SPLITS:
        raise DataError(_FAILED, f"`{split}` is not a split", did_you_mean(split, SPLITS))
    choice = choice or SignFilter()
    check_choice(choice, split)
    recipe = {
        "count": count,
        "size_px": size_px,
        "edits": edits,
        "split": split,
        "seed": seed,
        "choice": {key: list(v) if isinstance(v, tuple) else v for key, v in dataclasses.asdict(choice).items()},
        "fonts_sha256": text_rendering.sha256(),
    }

    def fill(pictures: PictureSet) -> dict[str, int]:
        signs = SignSpecs(seed, split, choice)
        for number in range(count):
            _write_sign(pictures, signs, number, size_px, edits)
            if progress:
                progress(number + 1, count)
        return {"num_signs": count, **pictures.counts}

    return write_set(directory, "signs", recipe, fill)


def check_choice(choice: SignFilter, split: str) -> None:
    """Refuse a choice that leaves no sign, with the nearest names.

    Raises:
        DataError: A name that is not known, or letters that have no room.
    """
    fonts = text_rendering.TRAIN_FONTS if split != "test" else tuple(text_rendering.FONTS)
    for what, asked, known in (
        ("layout", choice.layouts, tuple(LAYOUTS)),
        ("font", choice.fonts, fonts),
        ("colour", choice.plates, tuple(COLORS)),
        ("colour", choice.inks, tuple(COLORS)),
    ):
        for name in asked or ():
            if name in text_rendering.HELD_OUT_FONTS and what == "font" and split != "test":
                raise DataError(_FAILED, f"the font `{name}` is kept for the test", "--split test draws with it")
            if name not in known:
                raise DataError(_FAILED, f"`{name}` is not a {what}", did_you_mean(name, known))
    pairs = [pair for name in choice.layouts or LAYOUTS for pair in LAYOUTS[name].compositions()]
    if not any(plate in (choice.plates or COLORS) and ink in (choice.inks or COLORS) for plate, ink in pairs):
        raise DataError(_FAILED, "no layout has letters that can be read in these colours", "name others")
    if choice.fonts and not any(text_rendering.FONTS[name].has_plain_capitals for name in choice.fonts):
        raise DataError(_FAILED, "none of the fonts has capitals that make a word", "name another font beside them")
    least, most = choice.letters or (2, 2)
    if not 1 <= least <= most:
        raise DataError(_FAILED, f"words of {least} to {most} letters are none", "as in --letters 3..8")
    for name in choice.layouts or tuple(LAYOUTS) if choice.letters else ():
        if most > LAYOUTS[name].most_letters:
            raise DataError(
                _FAILED,
                f"a line of the layout `{name}` has room for {LAYOUTS[name].most_letters} letters, {most} are wanted",
                "name other layouts, or fewer letters",
            )


def _write_sign(pictures: PictureSet, signs: SignSpecs, number: int, size_px: int, edits: bool) -> None:
    """Write the pictures of a sign and its rows: plain, and where asked for changed, plain and as an edit."""
    sign, split = signs.draw(number), signs.split_of(number)
    random = noise.generator(signs.seed, "signs/captions", number)
    first = pictures.save(f"{number:06d}", paint(sign, size_px), _COMPRESSION)
    pictures.rows.append(_row(first, captions(sign, random), sign, split))
    if edits:
        edit = signs.edit(number)
        target = pictures.save(f"{number:06d}-{edit.kind}", paint(edit.after, size_px), _COMPRESSION)
        asked = _row(target, instructions(sign, edit.after, random), edit.after, split)
        pictures.rows.append(_row(target, captions(edit.after, random), edit.after, split))
        pictures.rows.append(asked | {"references": [first], "edit": edit.kind})


def _row(file_name: str, texts: list[str], sign: Sign, split: str) -> Row:
    return {
        "file_name": file_name,
        "text": texts,
        "words": list(sign.lines),
        "font": sign.font,
        "layout": sign.layout,
        "plate": sign.plate,
        "ink": sign.ink,
        "scene": sign.scene,
        "split": split,
    }
