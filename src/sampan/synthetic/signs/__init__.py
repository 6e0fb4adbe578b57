"""Rendered signs: words on boards, plates, labels and screens, with the words in their captions.

    words.py     what is written             lettering (one room up)  the fonts, and lines measured in them
    split.py     what training never sees    colors.py, canvas.py     which colours can be read, and drawing in shares
    draws.py     sign number n, and an edit  scenes.py, outdoors.py, objects.py, layouts.py  what is drawn
    captions.py  what is said of it          sign.py                  a sign and a kind of sign as values

It gives a training pictures whose words are known, endlessly many of them, and a test whose words it cannot have seen.
Words, words in a font and compositions are kept apart by a digest, so that any two sets agree on what is test.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sampan
from sampan import files
from sampan.data import folder
from sampan.errors import DataError, did_you_mean
from sampan.samplers import noise
from sampan.synthetic import text_rendering
from sampan.synthetic.signs.captions import captions, instructions
from sampan.synthetic.signs.colors import COLORS
from sampan.synthetic.signs.layouts import LAYOUTS, paint
from sampan.synthetic.signs.sign import Sign
from sampan.synthetic.signs.specification import SPLITS, SignFilter, SignSpecs
from sampan.synthetic.signs.split import is_test_composition, is_test_pair, is_test_word

__all__ = [
    "SIZES_PX",
    "SPLITS",
    "SignFilter",
    "SignSetSummary",
    "check_choice",
    "is_test_composition",
    "is_test_pair",
    "is_test_word",
    "write",
]

SIZES_PX = (128, 2048)  # on fewer pixels the smallest letters could not be read


@dataclass(frozen=True)
class SignSetSummary:
    """What lies in the folder.

    Args:
        written: False where the folder already held exactly this.
    """

    directory: Path
    num_signs: int
    num_pictures: int
    num_rows: int
    written: bool


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
) -> SignSetSummary:
    """Write the pictures and their captions into a folder, which appears complete or not at all.

    Args:
        directory: New or empty, or written by this command and unchanged since; then it is replaced, or left alone
            where it already is what is asked for.
        count: How many signs. The first n of a larger set are those of a set of n.
        size_px: Side of the pictures. The same seed draws the same signs at every size.
        edits: Also write each sign with one thing changed, as a picture of its own and as the target of an edit.
        split: One of SPLITS; see draws.Signs.
        choice: Signs of one kind; None draws all kinds.

    Raises:
        DataError: An argument out of range, or a folder that cannot be used.
    """
    directory = Path(directory).resolve()
    for name, value, least, most in (("count", count, 1, None), ("size_px", size_px, *SIZES_PX)):
        if value < least or (most is not None and value > most):
            span = f"from {least} to {most}" if most is not None else f"at least {least}"
            raise DataError("the signs cannot be made", f"`{name}` is {value}, and it must be {span}")
    if split not in SPLITS:
        raise DataError("the signs cannot be made", f"`{split}` is not a split", did_you_mean(split, SPLITS))
    choice = choice or SignFilter()
    check_choice(choice, split)
    recipe = {
        "made_by": f"sampan {sampan.__version__} data signs",
        "count": count,
        "size_px": size_px,
        "edits": edits,
        "split": split,
        "seed": seed,
        "choice": {key: list(v) if isinstance(v, tuple) else v for key, v in dataclasses.asdict(choice).items()},
        "fonts_sha256": text_rendering.sha256(),
    }
    known = folder.finished(directory, recipe)
    if known is not None:
        return SignSetSummary(directory, **known, written=False)
    signs = SignSpecs(seed, split, choice)
    summary: dict[str, Any] = {"num_signs": count}
    with folder.replaced(directory, recipe, summary) as beside:
        (beside / "images").mkdir()
        rows: list[dict[str, Any]] = []
        for number in range(count):
            rows += _write_sign(beside, signs, number, size_px, edits)
            if progress:
                progress(number + 1, count)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        files.write_bytes(beside / "metadata.jsonl", lines.encode())
        summary["num_pictures"] = len({row["file_name"] for row in rows})
        summary["num_rows"] = len(rows)
    return SignSetSummary(directory, **summary, written=True)


def check_choice(choice: SignFilter, split: str) -> None:
    """Refuse a choice that leaves no sign, with the nearest names.

    Raises:
        DataError: A name that is not known, or letters that have no room.
    """
    failed = "the signs cannot be made"
    fonts = text_rendering.TRAIN_FONTS if split != "test" else tuple(text_rendering.FONTS)
    for what, asked, known in (
        ("layout", choice.layouts, tuple(LAYOUTS)),
        ("font", choice.fonts, fonts),
        ("colour", choice.plates, tuple(COLORS)),
        ("colour", choice.inks, tuple(COLORS)),
    ):
        for name in asked or ():
            if name in text_rendering.HELD_OUT_FONTS and what == "font" and split != "test":
                raise DataError(failed, f"the font `{name}` is kept for the test", "--split test draws with it")
            if name not in known:
                raise DataError(failed, f"`{name}` is not a {what}", did_you_mean(name, known))
    pairs = [pair for name in choice.layouts or LAYOUTS for pair in LAYOUTS[name].compositions()]
    if not any(plate in (choice.plates or COLORS) and ink in (choice.inks or COLORS) for plate, ink in pairs):
        raise DataError(failed, "no layout has letters that can be read in these colours", "name others")
    if choice.fonts and not any(text_rendering.FONTS[name].has_plain_capitals for name in choice.fonts):
        raise DataError(failed, "none of the fonts has capitals that make a word", "name another font beside them")
    least, most = choice.letters or (2, 2)
    if not 1 <= least <= most:
        raise DataError(failed, f"words of {least} to {most} letters are none", "as in --letters 3..8")
    for name in choice.layouts or tuple(LAYOUTS) if choice.letters else ():
        if most > LAYOUTS[name].most_letters:
            raise DataError(
                failed,
                f"a line of the layout `{name}` has room for {LAYOUTS[name].most_letters} letters, {most} are wanted",
                "name other layouts, or fewer letters",
            )


def _write_sign(beside: Path, signs: SignSpecs, number: int, size_px: int, edits: bool) -> list[dict[str, Any]]:
    """Write the pictures of a sign and return its rows: plain, and where asked for changed, plain and as an edit."""
    sign, split = signs.draw(number), signs.split_of(number)
    random = noise.generator(signs.seed, "signs/captions", number)
    first = f"images/{number:06d}.png"
    _save(beside / first, sign, size_px)
    rows = [_row(first, captions(sign, random), sign, split)]
    if edits:
        edit = signs.edit(number)
        target = f"images/{number:06d}-{edit.kind}.png"
        _save(beside / target, edit.after, size_px)
        asked = _row(target, instructions(sign, edit.after, random), edit.after, split)
        rows += [_row(target, captions(edit.after, random), edit.after, split)]
        rows += [asked | {"references": [first], "edit": edit.kind}]
    return rows


def _save(path: Path, sign: Sign, size_px: int) -> None:
    buffer = io.BytesIO()
    paint(sign, size_px).save(buffer, "PNG", compress_level=4)  # flat colours: more effort hardly makes it smaller
    files.write_bytes(path, buffer.getvalue())


def _row(file_name: str, texts: list[str], sign: Sign, split: str) -> dict[str, Any]:
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
