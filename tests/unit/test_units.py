"""Amounts as people read them: units change exactly where rounding would, and an unknown one is never a number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan import units


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.00042, "0.42 ms"),
        (0.0424, "42 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (12.34, "12.3 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (7620, "2 h 07 min"),
        (86399, "1 d 00 h"),
        (273600, "3 d 04 h"),
        (None, "unknown"),
    ],
)
def test_time(seconds, text):
    assert units.format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (1.5 * 1024**2, "1.5 MiB"),
        (64 * 1024**3, "64.0 GiB"),
        (80e9, "74.5 GiB"),
        (3 * 1024**6, "3072.0 PiB"),
        (None, "unknown"),
    ],
)
def test_bytes(num_bytes, text):
    assert units.format_bytes(num_bytes) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00k"),
        (12_345, "12.3k"),
        (999_499, "999k"),
        (999_500, "1.00M"),
        (17_700_000_000, "17.7B"),
        (1.2e15, "1200T"),
        (None, "unknown"),
    ],
)
def test_counts(count, text):
    assert units.format_count(count) == text


def test_an_amount_of_arithmetic_and_a_rate_differ_in_their_unit():
    assert units.format_flops(1.2e12) == "1.20 TFLOP"
    assert units.format_flops(12) == "12 FLOP"
    assert units.format_flops_per_s(989e12) == "989 TFLOP/s"
    assert (units.format_flops(None), units.format_flops_per_s(None)) == ("unknown", "unknown")


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["seconds", "bytes", "count", "flops", "flops_per_s"])
def test_what_is_no_amount_is_refused(name, wrong):
    with pytest.raises(ValueError, match="an amount is a finite number of at least 0"):
        getattr(units, f"format_{name}")(wrong)


@given(st.floats(1e-3, 1e20))
def test_no_unit_is_used_beyond_where_the_next_begins(value):
    number, _, unit = units.format_bytes(value).partition(" ")
    assert float(number) < 1024 or unit == "PiB"
    assert float(units.format_count(value).rstrip("kMBT")) < 1000 or value >= 999.5e12
    assert float(units.format_flops(value).partition(" ")[0]) < 1000


@given(st.floats(0, 1e9))
def test_a_written_time_is_near_the_time(seconds):
    unit_s = {"ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400}
    words = units.format_seconds(seconds).split()
    read = sum(float(number) * unit_s[unit] for number, unit in zip(words[::2], words[1::2], strict=True))
    assert read == pytest.approx(seconds, rel=0.06, abs=1e-6)
