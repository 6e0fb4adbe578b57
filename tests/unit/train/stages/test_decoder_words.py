"""Which samples may lend each other their prior tokens: the same sign with other letters."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from sampan.train.stages.decoder import _alike


def context(*captions: tuple[str, ...], sizes: tuple[int, ...] = (), references: tuple[int, ...] = ()) -> Any:
    count = len(captions)
    sides = sizes or (128,) * count
    return SimpleNamespace(
        members=range(count),
        samples=[SimpleNamespace(captions=one) for one in captions],
        image_of=list(range(count)),
        references_of=[(0,) if index in references else () for index in range(count)],
        pictures=SimpleNamespace(size_of=lambda picture: (sides[picture],) * 2),
    )


def test_signs_that_differ_in_the_letters_alone_are_alike():
    found = _alike(
        context(
            ('a red sign that says "MAR" in white', "brief"),
            ('a red sign that says "LUA" in white', '"LUA"'),
            ('a red sign that says "LUAR" in white',),  # a letter more
            ('a blue sign that says "SOL" in white',),
            ("red apple",),
        )
    )
    assert found == {0: [0, 1], 1: [0, 1]}


def test_pictures_of_other_sizes_and_edits_lend_nothing():
    signs = ('a red sign with "MAR"',), ('a red sign with "LUA"',)
    assert _alike(context(*signs, sizes=(128, 64))) == {}
    assert _alike(context(*signs, references=(1,))) == {}
