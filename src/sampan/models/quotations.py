"""Quotation marks of any kind made straight double ones, for models that have seen no others.

The release reads '…', “…”, "…" and 「…」 as they stand. A model whose captions quote in straight double marks alone paints
nothing that can be read for the others, so that its folder can ask (`prompt.quotation_marks = "straight"` in sampan.json) for
every quotation to be written in the marks that it knows.
"""

from __future__ import annotations

import re

_WORD_OPENS = r"(?<!\w){0}(?=\S)"  # what is an apostrophe inside of a word opens and closes nothing
_WORD_CLOSES = r"(?<=\S){0}(?!\w)"


def _between(opening: str, closing: str) -> str:
    """Return a pattern of marks that are nothing but quotation marks, none of them inside."""
    return rf"{opening}([^{opening}{closing}\"]*)[{closing}]"


def _single(opening: str, closing: str, apostrophes: str) -> str:
    """Return a pattern of marks that are apostrophes too, where they stand between two letters."""
    inside = rf"(?:[^{opening}{closing}\"]|(?<=\w)[{apostrophes}](?=\w))*+"
    return f"{_WORD_OPENS.format(opening)}({inside}){_WORD_CLOSES.format(f'[{closing}]')}"


# in the order in which they are tried at each place; the first leaves alone what is straight already
_QUOTATION = re.compile(
    "|".join(
        (
            r'"[^"]*"',
            _between("“", "”"),
            _between("„", "“”"),
            _between("‟", "”"),
            _between("”", "”"),
            _between("«", "»"),
            _between("»", "«"),
            _between("‹", "›"),
            _between("›", "‹"),
            _between("「", "」"),
            _between("『", "』"),
            _between("｢", "｣"),
            _between("〝", "〞〟"),
            _between("＂", "＂"),
            _between("❝", "❞"),
            _single("'", "'", "'’"),
            _single("‘", "’‘", "'’"),
            _single("‚", "‘’", "'’"),
            _single("‛", "’", "'’"),
            _single("＇", "＇", "'’"),
            _single("❛", "❜", "'’"),
        )
    )
)
MARKS = "\"'“”„‟«»‹›「」『』｢｣〝〞〟＂❝❞‘’‚‛＇❛❜"


def straighten(text: str) -> str:
    """Return a text in which every quotation stands in straight double marks.

    A mark without its partner stays, and so does a quotation with a straight double mark inside, which straight ones could
    not hold. Of marks inside a quotation nothing changes. Spaces just inside of « … » are dropped: they belong to the marks.
    """

    def straight(found: re.Match[str]) -> str:
        if found.lastindex is None:
            return found[0]
        inside = found[found.lastindex]
        if found[0][0] in "«»‹›":
            inside = inside.strip()
        return f'"{inside}"' if inside else found[0]

    return _QUOTATION.sub(straight, text)
