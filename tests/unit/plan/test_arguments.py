"""Words of `sampan plan`'s options, read or refused."""

from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from sampan.cli.verbs import parser
from sampan.plan import arguments


@pytest.mark.parametrize(
    ("word", "counts"), [("8", (8, 8)), ("8..64", (8, 64)), ("1..65536", (1, 65536)), ("+2", (2, 2))]
)
def test_counts(word, counts):
    assert arguments.chip_counts(word) == counts


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("0", "a number of chips is from 1 to 65536, got 0"),
        ("-4", "a number of chips is from 1 to 65536, got -4"),
        ("1..65537", "a number of chips is from 1 to 65536, got 65537"),
        ("64..8", "`64..8` runs downward; did you mean 8..64?"),
        ("eight", "`eight` is not a number of chips or MIN..MAX, as in 8 or 8..64"),
        ("8-64", "`8-64` is not a number of chips or MIN..MAX, as in 8 or 8..64"),
        ("1.5", "`1.5` is not a number of chips or MIN..MAX, as in 8 or 8..64"),
        ("", "`` is not a number of chips or MIN..MAX, as in 8 or 8..64"),
    ],
)
def test_counts_that_are_none(word, said):
    with pytest.raises(ArgumentTypeError) as caught:
        arguments.chip_counts(word)
    assert str(caught.value) == said


def test_owned():
    assert arguments.owned_chips("h20=16@cn_beijing") == ("h20", 16, "cn_beijing")


@pytest.mark.parametrize(
    "word", ["", "h20", "h20=16", "h20@sg", "h20=0@sg", "h20=-1@sg", "h20=x@sg", "h20=1@", "=1@sg", "a=65537@b"]
)
def test_owned_that_is_none(word):
    with pytest.raises(ArgumentTypeError) as caught:
        arguments.owned_chips(word)
    assert str(caught.value) == f"`{word}` is not CHIP=N@SITE with N from 1 to 65536, as in h100_sxm=8@sg"


@pytest.mark.parametrize(("word", "said"), [("0", "must be more than 0, got 0"), ("-1", "must be at least 0, got -1")])
def test_days_and_money_are_more_than_nothing(word, said):
    assert arguments.above_zero("0.5") == 0.5
    with pytest.raises(ArgumentTypeError) as caught:
        arguments.above_zero(word)
    assert str(caught.value) == said


def test_a_whole_line():
    line = "plan job.toml --chips a,b --count 2..4 --owned a=1@x --owned b=2@y --measured r/1.json r/2.json --measured s.json"
    _, _, options = parser().parse(line.split())
    assert (options.job, options.chips, options.count) == (Path("job.toml"), ("a", "b"), (2, 4))
    assert options.owned == (("a", 1, "x"), ("b", 2, "y"))
    assert options.measured == (Path("r/1.json"), Path("r/2.json"), Path("s.json"))
