"""TOML as text, which the standard library does not do: writing it, and finding the line of a key."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

BARE_KEY = r"[A-Za-z0-9_-]+"
_MAX_SHOWN = 80
_MAX_PARSED = 2**22  # characters that looking for a line may parse: a person's file needs far less
Key = tuple[str, ...]


def value(given: Any) -> str:
    """Return a value as TOML on one line."""
    if isinstance(given, bool):
        return "true" if given else "false"
    if isinstance(given, str):
        return json.dumps(given, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(given, list | tuple):
        return "[" + ", ".join(map(value, given)) + "]"
    if isinstance(given, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {value(inner)}" for key, inner in given.items()) + "}"
    return given.isoformat() if hasattr(given, "isoformat") else repr(given)


def shown(given: Any) -> str:
    """Return a value as TOML for an error message, cut where it is long."""
    text = value(given)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def lines(table: Mapping[str, Any], at: Key = ()) -> list[str]:
    """Return the lines of a table: its own values first, then the tables in it. None is not written."""
    inner = {key: given for key, given in table.items() if isinstance(given, Mapping)}
    own = {key: given for key, given in table.items() if key not in inner and given is not None}
    written = [f"{_key(key)} = {value(given)}" for key, given in own.items()]
    if at and (written or not inner):
        written = ["", f"[{'.'.join(map(_key, at))}]", *written]
    for key, given in inner.items():
        written += lines(given, (*at, key))
    return written


def line_of(text: str, at: Key) -> int | None:
    """Return the line, from 1, where a key begins in a text that is TOML, or None where it has no such key, or where
    looking for it would take long.

    The parser finds it, so that strings, arrays and inline tables are read as they should be: the first lines that are
    TOML by themselves and hold the key end with it, and it begins after the last lines that were TOML before.
    """
    rows, num_parsed = text.split("\n"), 0
    # the key stands nowhere before its last word does, unless that is written with escapes
    begins = next((number for number, row in enumerate(rows, start=1) if at[-1] in row), 1)
    for count in range(begins, len(rows) + 1):
        num_parsed += sum(map(len, rows[:count]))
        if num_parsed > _MAX_PARSED:
            return None
        try:
            inner: Any = tomllib.loads("\n".join(rows[:count]) + "\n")
        except tomllib.TOMLDecodeError:
            continue
        for key in at:
            inner = inner.get(key) if isinstance(inner, dict) else None
        if inner is not None:
            return begins
        begins = count + 1
    return None


def leaves(given: Any) -> Iterator[Any]:
    """Give every value in nested tables and arrays that is neither."""
    if isinstance(given, Mapping | list):
        for inner in given.values() if isinstance(given, Mapping) else given:
            yield from leaves(inner)
    else:
        yield given


def _key(key: str) -> str:
    return key if re.fullmatch(BARE_KEY, key) else value(key)
