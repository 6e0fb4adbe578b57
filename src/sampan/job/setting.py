"""What a setting of a job is: its words, its kind, its range; read off the dataclasses in sampan.job.sections."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from sampan.job import toml


def say(meaning: str, default: Any = MISSING, **limits: Any) -> Any:
    """Return a dataclass field with its help text; for `limits` see `Setting`."""
    metadata = {"help": meaning, **limits}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting as the checks and the documents see it. Limits that are None do not bind."""

    name: str
    help: str
    kind: Any
    default: Any
    example: Any = None
    choices: tuple[str, ...] = ()
    pattern: str | None = None
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    @property
    def required(self) -> bool:
        """Whether a job without it is refused."""
        return self.default is MISSING

    def kinds(self) -> str:
        """Return what kind of value it takes, in words."""
        return " or ".join(_KINDS.get(kind, f'"{kind}"') for kind in kinds_in(self.kind))

    def limits(self) -> str:
        """Return the range or the choices, in words; "" where anything of its kind goes."""
        limits = (
            ("at least", self.at_least),
            ("more than", self.above),
            ("at most", self.at_most),
            ("below", self.below),
        )
        if self.at_least is not None and self.at_most is not None:
            return f"{self.at_least} to {self.at_most}"
        words = [f"{word} {limit}" for word, limit in limits if limit is not None]
        return ", ".join(words or self.choices)

    def problem(self, value: Any) -> str | None:
        """Return why a value of the right kind is out of range, in words, or None."""
        if isinstance(value, int | float):
            bounds = (
                (self.at_least is None or value >= self.at_least, f"at least {self.at_least}"),
                (self.above is None or value > self.above, f"more than {self.above}"),
                (self.at_most is None or value <= self.at_most, f"at most {self.at_most}"),
                (self.below is None or value < self.below, f"below {self.below}"),
            )
            return next((f"must be {limit}, got {toml.shown(value)}" for holds, limit in bounds if not holds), None)
        if self.kind == tuple[int, ...]:
            return next((f"must all be at least {self.at_least}" for n in value if n < (self.at_least or n)), None)
        if self.choices:
            for word in [value] if isinstance(value, str) else value:
                if word not in self.choices and not (self.pattern and re.fullmatch(self.pattern, word)):
                    return f"{toml.shown(word)} is not one of {', '.join(self.choices)}"
        return None


_KINDS = {
    int: "a whole number",
    float: "a number",
    str: "text in quotes",
    Path: "a path in quotes",
    tuple: "a list of texts in quotes",
    tuple[int, ...]: "a list of whole numbers",
    bool: "true or false",
    Mapping: "a table",
}


def address_problem(text: str) -> str | None:
    """Return why a text cannot be a path, in words, where it is an address with a scheme as `s3://…`; None for a path."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text)
    if scheme is None:
        return None
    return (
        f"is an address ({scheme[1]}), and files and folders of this machine are taken: copy it here, or mount it as a "
        "folder"
    )


def settings(section: type) -> dict[str, Setting]:
    """Return the settings of one section by name; sub-sections are no settings."""
    kinds, found = _hints(section), {}
    inherited = {f.name: f.metadata for base in reversed(section.__mro__[1:-1]) for f in dataclasses.fields(base)}
    for f in dataclasses.fields(section):
        # a section that only has another default takes words and limits from the one it extends
        if metadata := f.metadata or inherited.get(f.name):
            default = f.default if f.default_factory is MISSING else f.default_factory()
            found[f.name] = Setting(name=f.name, kind=kinds[f.name], default=default, **metadata)
    return found


def sections(section: type, name: str = "") -> Iterator[tuple[str, type]]:
    """Give the name and the class of every section that has settings: "" for the top, then "model", … "stage.vae", …"""
    if settings(section):
        yield name, section
    for key, inner in subsections(section).items():
        yield from sections(inner, f"{name}.{key}" if name else key)


def subsections(section: type) -> dict[str, Any]:
    """Return the classes of the sections directly below one, by name."""
    return {key: kind for key, kind in _hints(section).items() if dataclasses.is_dataclass(kind)}


@cache
def _hints(section: type) -> dict[str, Any]:
    return get_type_hints(section)


def kinds_in(annotation: Any) -> list[Any]:
    """Return the kinds in an annotation: `float | Literal["auto"] | None` has float and "auto"."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return [kind for part in get_args(annotation) if part is not type(None) for kind in kinds_in(part)]
    if annotation == tuple[int, ...]:
        return [annotation]
    return list(get_args(annotation)) if origin is Literal else [origin or annotation]
