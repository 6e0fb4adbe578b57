"""How amounts are written for people: time, bytes, counts and FLOPs. Nothing else in the package formats them.

What a machine reads (JSON, log lines, metadata) stays a plain number with its unit in the name. `None` is an amount
nobody knows and is written "unknown"; it is never guessed.
"""

from __future__ import annotations

import math

UNKNOWN = "unknown"
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_DECIMAL = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")
_SHORT = ("", "k", "M", "B", "T")


def format_seconds(seconds: float | None) -> str:
    """Return a duration as people say it: "850 ms", "12.3 s", "3 min 05 s", "2 h 07 min", "3 d 04 h"."""
    if seconds is None:
        return UNKNOWN
    _check(seconds)
    # each limit is where rounding would print the next unit up: 59.96 s is "1 min 00 s", never "60.0 s"
    if seconds < 0.9995:
        milliseconds = seconds * 1000
        return f"{milliseconds:.2g} ms" if 0 < milliseconds < 0.95 else f"{milliseconds:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if round(seconds) < 3600:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02d} s"
    if round(seconds / 60) < 24 * 60:
        hours, rest = divmod(round(seconds / 60), 60)
        return f"{hours} h {rest:02d} min"
    days, rest = divmod(round(seconds / 3600), 24)
    return f"{days} d {rest:02d} h"


def format_bytes(num_bytes: float | None) -> str:
    """Return an amount of memory or storage in binary units: "512 B", "1.5 MiB", "64.0 GiB"."""
    if num_bytes is None:
        return UNKNOWN
    _check(num_bytes)
    value, index = float(num_bytes), 0
    while index < len(_BINARY) - 1 and value >= (1023.5 if index == 0 else 1023.95):
        value, index = value / 1024, index + 1
    return f"{value:.0f} B" if index == 0 else f"{value:.1f} {_BINARY[index]}"


def format_count(count: float | None) -> str:
    """Return a count in three digits: "42", "12.3k", "9.80M", "17.7B" (a billion), "1.20T"."""
    if count is None:
        return UNKNOWN
    _check(count)
    if count < 999.5:
        return f"{count:.0f}"
    return _three_digits(count, _SHORT, between="")


def format_flops(flops: float | None) -> str:
    """Return an amount of arithmetic: "1.20 TFLOP". For a rate see `format_flops_per_s`."""
    if flops is None:
        return UNKNOWN
    _check(flops)
    return f"{_three_digits(flops, _DECIMAL, between=' ')}FLOP"


def format_flops_per_s(flops_per_s: float | None) -> str:
    """Return a rate of arithmetic: "989 TFLOP/s"."""
    return UNKNOWN if flops_per_s is None else f"{format_flops(flops_per_s)}/s"


def _three_digits(value: float, prefixes: tuple[str, ...], between: str) -> str:
    value, index = float(value), 0
    while index < len(prefixes) - 1 and value >= 999.5:
        value, index = value / 1000, index + 1
    if index == 0 and value == int(value):
        digits = 0
    else:
        digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f}{between}{prefixes[index]}"


def _check(value: float) -> None:
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"an amount is a finite number of at least 0, not {value!r}")
