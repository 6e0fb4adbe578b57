"""Files as they arrive when something went wrong: cut, mistyped, with values of another kind or beyond all bounds.

Every mutant follows from a seed. They are harmless to other programs: nothing is larger than some kilobytes.
"""

from __future__ import annotations

import json
import random
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from sampan.errors import SampanError

MAX_S = 5.0  # of one mutant; a second, on a machine that others use too
DEEP = 3000
TOML_VALUES = (
    "0", "-1", "1" * 30, "9" * 5000, "0x" + "f" * 5000, "nan", "inf", "-inf", "1e999", "1e308", '""', '"x"',
    '"' + "a" * 5000 + '"', '"\\u0000"', "[]", "[1]", '["a"]', '[1, "a", []]', "[" * 80 + "]" * 80, "[" * DEEP + "]" * DEEP,
    "{}", "{a = {b = {c = 1}}}", "true", "false", "2026-01-01", "2026-13-01", "12:00:00", "2026-01-01T00:00:00+99:99",
    '"' + "../" * 2000 + '"', "1_000_000_000_000", str(2**63), '"\\uD800"', "." .join("a" * DEEP) + " = 1",
)  # fmt: skip
JSON_VALUES: tuple[Any, ...] = (
    0, -1, 1, 2, 10**9, 2**70, 0.5, 1e300, float("nan"), float("inf"), "", "x", "3", "a" * 5000, [], [1], ["a"], [None],
    [[1]], {}, {"a": 1}, True, False, None,
)  # fmt: skip
# what json.dumps does not write: too deep, too long, half of a character, no number
JSON_TEXTS = (
    "1" * 5000, "[" * DEEP + "]" * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP, "NaN", "-1e999", '"\\ud800"', "01", "",
)  # fmt: skip
_STRANGE = "\0\x01\t\n\"'=[]{}.,:\x7f\ud7ff\U0010ffff"


def toml_mutants(seed: int, count: int, texts: list[str]) -> Iterator[str]:
    """Yield TOML texts with one or two things wrong."""
    draw = random.Random(seed)
    for _ in range(count):
        text = draw.choice(texts)
        for _ in range(draw.choice((1, 1, 1, 1, 2))):
            text = _mutated_toml(draw, text)
        yield text


def json_mutants(seed: int, count: int, text: str) -> Iterator[bytes]:
    """Yield JSON files with one thing wrong."""
    draw = random.Random(seed)
    places = list(_places(json.loads(text)))
    for _ in range(count):
        kind = draw.random()
        if kind < 0.55 and places:
            yield json.dumps(_changed(json.loads(text), draw.choice(places), draw.choice(JSON_VALUES))).encode()
        elif kind < 0.65 and places:
            yield json.dumps(_changed(json.loads(text), draw.choice(places), None, remove=True)).encode()
        elif kind < 0.8 and places:
            marked = json.dumps(_changed(json.loads(text), draw.choice(places), "@@"))
            yield marked.replace('"@@"', draw.choice(JSON_TEXTS)).encode()
        elif kind < 0.87:
            yield text[: draw.randrange(len(text) + 1)].encode()
        elif kind < 0.92:
            yield draw.choice([*JSON_TEXTS, "null", "[]", "{}", "3", '"x"']).encode()
        else:
            data = bytearray(text.encode())
            for _ in range(draw.randrange(1, 6)):
                data[draw.randrange(len(data))] = draw.choice(
                    (0, 34, 44, 58, 91, 93, 123, 125, 255, draw.randrange(32, 127))
                )
            yield bytes(data)


def survives(use: Callable[[], Any], what: Any) -> bool:
    """Say whether a use succeeds, where it may end in a SampanError and in nothing else, within a time."""
    begun = time.process_time()
    try:
        use()
    except SampanError as error:
        error.render().encode()  # it can be printed
        return False
    except BaseException as error:
        raise AssertionError(f"{what!r:.2000} ends in\n{traceback.format_exc()[-3000:]}") from error
    finally:
        taken_s = time.process_time() - begun
        assert taken_s < MAX_S, f"{what!r:.2000} takes {taken_s:.1f} s"
    return True


def _mutated_toml(draw: random.Random, text: str) -> str:
    lines, kind = text.split("\n"), draw.random()
    settings = [number for number, line in enumerate(lines) if "=" in line]
    if kind < 0.5 and settings:
        number = draw.choice(settings)
        lines[number] = f"{lines[number].lstrip('# ').split('=')[0]}= {draw.choice(TOML_VALUES)}"
    elif kind < 0.6:
        del lines[draw.randrange(len(lines))]
    elif kind < 0.7:
        lines.insert(draw.randrange(len(lines)), draw.choice(lines))
    elif kind < 0.85 and text:
        letters = list(text)
        for _ in range(draw.randrange(1, 6)):
            letters[draw.randrange(len(letters))] = draw.choice(_STRANGE)
        return "".join(letters)
    else:
        return text[: draw.randrange(len(text) + 1)]
    return "\n".join(lines)


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value; of a list only to its first three, which are like the others."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, below in inner:
        yield (*at, key)
        yield from _places(below, (*at, key))


def _changed(value: Any, at: tuple[Any, ...], new: Any, *, remove: bool = False) -> Any:
    here = value
    for key in at[:-1]:
        here = here[key]
    if remove:
        del here[at[-1]]
    else:
        here[at[-1]] = new
    return value
