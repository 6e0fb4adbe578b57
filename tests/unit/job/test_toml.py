"""TOML as text: what is written is read back the same, and the line of a key is the one a person would name."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.job import toml

WORDS = st.text(st.characters(exclude_categories=["Cs"]))
PLAIN = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | WORDS
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(WORDS, inner), max_leaves=8)


@given(VALUES)
@settings(deadline=None)
def test_a_value_is_read_back_as_it_was(value):
    assert tomllib.loads(f"value = {toml.value(value)}") == {"value": value}


@given(st.dictionaries(WORDS, VALUES))
@settings(deadline=None)
def test_a_table_is_read_back_as_it_was(table):
    assert tomllib.loads("\n".join(toml.lines(table))) == table


def test_none_is_not_written():
    written = toml.lines({"a": None, "b": 1, "c": {"d": None}, "e": {"f": {"g": 2}}})
    assert written == ["b = 1", "", "[c]", "", "[e.f]", "g = 2"]


TEXT = '''\
out = "x"
words = """
seed = 1
[train]
"""

model = { preset = "nano" }
stage.ar.lr = 1e-3
[data]  # the pictures
path = "p"
list = [
  1,
  2,
]
limit = 3
[stage.decoder]
"lr" = 1
'''


@pytest.mark.parametrize(
    ("at", "line"),
    [
        (("out",), 1),
        (("words",), 2),
        (("seed",), None),  # only inside a string
        (("train",), None),
        (("model",), 7),
        (("model", "preset"), 7),
        (("stage", "ar", "lr"), 8),
        (("data",), 9),
        (("data", "list"), 11),
        (("data", "limit"), 15),
        (("stage", "decoder", "lr"), 17),
        (("stage", "vae"), None),
        (("out", "x"), None),
    ],
)
def test_the_line_of_a_key(at, line):
    assert toml.line_of(TEXT, at) == line
    assert toml.line_of(TEXT.replace("\n", "\r\n"), at) == line


def test_the_leaves_of_nested_values():
    assert list(toml.leaves({"a": [1, {"b": "c"}], "d": {}, "e": True})) == [1, "c", True]
