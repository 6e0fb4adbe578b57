"""Quotations in any marks become straight double ones, apostrophes stay, and what is straight is not touched."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.models.quotations import MARKS, straighten
from sampan.models.text import glyph_texts


@pytest.mark.parametrize(
    "quoted",
    [
        "“OPEN”", "„OPEN“", "„OPEN”", "”OPEN”", "‟OPEN”", "«OPEN»", "« OPEN »", "«\u00a0OPEN\u202f»", "»OPEN«", "‹OPEN›",
        "›OPEN‹",
        "「OPEN」", "『OPEN』", "｢OPEN｣", "〝OPEN〞", "〝OPEN〟", "＂OPEN＂", "❝OPEN❞", "‘OPEN’", "‚OPEN‘", "‚OPEN’",
        "‛OPEN’",
        "＇OPEN＇", "❛OPEN❜", "'OPEN'", '"OPEN"',
    ],
)  # fmt: skip
def test_every_kind_of_quotation_is_read_as_the_straight_one(quoted: str):
    assert straighten(f"a sign {quoted} on a wall") == 'a sign "OPEN" on a wall'
    assert glyph_texts(straighten(f"a sign {quoted}, and {quoted}")) == ["OPEN", "OPEN"]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("‘don’t panic’", '"don’t panic"'),
        ("a 'don't' sign", 'a "don\'t" sign'),
        ("It's Bob's, the dogs' bone", None),
        ("the '90s and '80s", None),
        ("rock ’n’ roll", None),
        ("no partner: “OPEN", None),
        ("“a “b” c", '“a "b" c'),
        ('“he said "x"”', None),
        ('"it’s “fine”"', None),
        ("“” and «»", None),
        ("「中」『文』", '"中""文"'),
        ("« A » et « B »", '"A" et "B"'),
    ],
)
def test_apostrophes_lone_marks_and_straight_quotations_stay(text: str, read: str | None):
    assert straighten(text) == (text if read is None else read)


@given(st.text(st.sampled_from(MARKS + "ab \n"), max_size=40))
def test_it_is_settled_after_one_pass_and_changes_marks_alone(text: str):
    once = straighten(text)
    assert [c for c in once if c not in MARKS + " \n"] == [c for c in text if c not in MARKS + " \n"]
    assert len(once) <= len(text)


@pytest.mark.parametrize("piece", [*MARKS, "“ ", "'a ", "‘a’b", "„a“”", "a'", "'a", "« "])
def test_it_takes_time_in_proportion_to_the_text(piece: str):
    begun = time.perf_counter()
    straighten(piece * 50_000)
    assert time.perf_counter() - begun < 0.5
