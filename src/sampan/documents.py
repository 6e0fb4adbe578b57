"""JSON, TOML and YAML that come from outside, read within bounds.

Job files, model configs, run files, cases and results are written by people and by other programs, and arrive cut short,
mistyped or hostile. Every reader of them goes through here. A text that cannot be used raises BadDocumentError, which
says where and why; whoever reads it adds the file's name. What a value may be is checked where it is used, and `shown`
puts it into the message without its whole length.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sampan.errors import BadDocumentError

MAX_BYTES = 64 * 2**20  # of a file; the index of a great checkpoint has some megabytes
MAX_DEPTH = 64  # of tables and lists in each other
MAX_DIGITS = 100  # of a whole number: it is still a finite float
MAX_VALUES = 1_000_000  # of a file, each counted as often as it is reached
MAX_TEXT = 2**22  # characters of one text
_MAX_ALIASES = 1000  # of a YAML file
_MAX_MERGED = 1000  # keys of a YAML mapping that merges others
_MAX_SHOWN = 80


def read_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """Return a UTF-8 file, without the byte order mark that it may begin with.

    Raises:
        OSError: It is missing or cannot be read.
        BadDocumentError: It is too large, or is not UTF-8.
    """
    with open(path, "rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise BadDocumentError(f"it has more than {max_bytes:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadDocumentError(f"it is not UTF-8 text: {error}") from error


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text. NaN and Infinity are taken, as Python writes them.

    Raises:
        BadDocumentError: It is not JSON, or is beyond the bounds.
    """
    try:
        value = json.loads(text, parse_int=_whole)
    except json.JSONDecodeError as error:
        raise BadDocumentError(f"line {error.lineno}, column {error.colno} is not JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise BadDocumentError(f"it is not UTF-8 text: {error}") from error
    except RecursionError as error:
        raise BadDocumentError(_TOO_DEEP) from error
    check(value)
    return value


def parse_toml(text: str) -> dict[str, Any]:
    """Return the table of a TOML text.

    Raises:
        BadDocumentError: It is not TOML, or is beyond the bounds; `line` is the parser's where it says one.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem, _, place = str(error).rpartition(" (at ")
        numbers = re.match(r"line (\d+)", place)
        line = int(numbers[1]) if numbers else text.count("\n") + 1  # it says "end of document" without a number
        raise BadDocumentError(problem, line) from error
    except RecursionError as error:
        raise BadDocumentError(_TOO_DEEP) from error
    except ValueError as error:  # of a number or a time that Python cannot hold
        raise BadDocumentError(str(error)) from error
    check(table)
    return table


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text of plain values. JSON is YAML too.

    Raises:
        BadDocumentError: It is not YAML, holds something else than plain values, or is beyond the bounds.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """yaml.SafeLoader, which lets neither aliases nor merged keys grow without end."""

        num_aliases = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                self.num_aliases += 1
                if self.num_aliases > _MAX_ALIASES:
                    raise BadDocumentError(f"it has more than {_MAX_ALIASES} aliases")
            return super().compose_node(parent, index)

        def flatten_mapping(self, node: Any) -> None:
            merges = any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value)
            super().flatten_mapping(node)
            if merges and len(node.value) > _MAX_MERGED:
                raise BadDocumentError(f"a mapping merges more than {_MAX_MERGED} keys")

    try:
        value = yaml.load(text, Loader)  # a SafeLoader
    except BadDocumentError:
        raise
    except yaml.YAMLError as error:
        raise BadDocumentError(str(error)) from error
    except RecursionError as error:
        raise BadDocumentError(_TOO_DEEP) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # its constructors of numbers, dates and the like pass on what Python says
        raise BadDocumentError(f"a value cannot be made: {shown(str(error))}") from error
    check(value)
    return value


def check(value: Any) -> None:
    """Hold a parsed value against the bounds.

    Raises:
        BadDocumentError: It is too deep or too much, a text or a number is too long, or a text or a key is none.
    """
    left: list[tuple[Any, tuple[str, ...]]] = [(value, ())]
    count = 0
    while left:
        here, at = left.pop()
        count += 1
        if count > MAX_VALUES:
            raise BadDocumentError(f"it holds more than {MAX_VALUES:,} values")
        if isinstance(here, Mapping | list) and len(at) >= MAX_DEPTH:
            raise BadDocumentError(_TOO_DEEP)
        if isinstance(here, Mapping):
            for key, inner in here.items():
                if not isinstance(key, str):
                    raise BadDocumentError(f"{_place(at)}the key {shown(key)} is no text")
                _check_text(key, at)
                left.append((inner, (*at, key)))
        elif isinstance(here, list):
            left += [(inner, (*at, str(index))) for index, inner in enumerate(here)]
        elif isinstance(here, str):
            _check_text(here, at)
        elif isinstance(here, int) and abs(here) >= 10**MAX_DIGITS:
            raise BadDocumentError(f"{_place(at)}a whole number has more than {MAX_DIGITS} digits")


def shown(value: Any) -> str:
    """Return a value for an error message, cut where it is long."""
    if isinstance(value, Mapping | list | tuple | set) and len(value) > _MAX_SHOWN:
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value[: _MAX_SHOWN + 1] if isinstance(value, str) else value)
    return text if len(text) <= _MAX_SHOWN + 2 else f"{text[:_MAX_SHOWN]}…"


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise BadDocumentError(f"a whole number has more than {MAX_DIGITS} digits: {digits[:20]}…")
    return int(digits)


def _check_text(text: str, at: tuple[str, ...]) -> None:
    if len(text) > MAX_TEXT:
        raise BadDocumentError(f"{_place(at)}a text has more than {MAX_TEXT:,} characters")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadDocumentError(f"{_place(at)}a text holds half of a surrogate pair, which is no character") from error


def _place(at: tuple[str, ...]) -> str:
    return f"`{'.'.join(shown(key)[1:-1] for key in at[:8])}`: " if at else ""


_TOO_DEEP = f"its tables and lists are nested more than {MAX_DEPTH} deep"
