"""Reading a job file: TOML, then what `--set` puts over it, then one check of every value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from sampan import documents
from sampan.errors import BadDocumentError, JobError, did_you_mean
from sampan.job import toml
from sampan.job.sections import LORA_STAGES, STAGES, Job
from sampan.job.setting import Setting, address_problem, kinds_in, settings, subsections

_MAX_BYTES = 2**18  # a file that `sampan init` explains has some 20 KB
_MAX_SHOWN = 80
_MAX_WHOLE = 2**53  # what a float still holds exactly
_MAX_PATH_BYTES, _MAX_NAME_BYTES = 4096, 255  # as Linux has them
_MAX_KEYS = 8  # of a --set: no setting lies deeper
_BACKSLASH = r'"[^"\n]*\\'
_PATH_HINT = (
    "in double quotes a backslash has a meaning of its own; write a path with / or in single quotes: 'C:\\pictures'"
)


def read(path: Path, overrides: Sequence[str] = ()) -> Job:
    """Read a job file and check it once.

    Args:
        overrides: "section.field=value" texts put over the file, in order. A value is read as TOML, or else as text.

    Raises:
        JobError: "FILE:LINE: section.field: …" for the first thing that is wrong; "--set: …" where an override is.
    """
    if path.is_dir():
        raise JobError(f"`{path}` is a folder, not a job file")
    try:
        text = documents.read_text(path, _MAX_BYTES)
    except FileNotFoundError as error:
        raise JobError(f"there is no job file `{path}`", (), f"`sampan init {path}` writes one") from error
    except (OSError, BadDocumentError) as error:
        raise JobError(f"the job file `{path}` cannot be read", str(error)) from error
    return parse(text, overrides, name=str(path))


def parse(text: str, overrides: Sequence[str] = (), *, name: str = "job") -> Job:
    """Check the text of a job file as `read` does; errors call it `name`."""
    try:
        table = documents.parse_toml(text)
    except BadDocumentError as error:
        hint = "text stands in quotes, true and false do not" if str(error) == "Invalid value" else None
        if error.line is None:  # it is TOML, and beyond the bounds
            raise JobError(f"{name}: {error}", (), hint) from error
        if re.search(_BACKSLASH, text.split("\n")[error.line - 1]):
            hint = _PATH_HINT
        raise JobError(f"{name}:{error.line}: this is not TOML: {error}", (), hint) from error
    parts = [_override(override) for override in overrides]
    source = _Source(name, text, tuple(at for at, _ in parts))
    for at, value in parts:
        inner = table
        for depth, key in enumerate(at[:-1], start=1):
            inner = inner.setdefault(key, {})
            if not isinstance(inner, dict):
                source.refuse(at[:depth], f"must be a section, got {toml.shown(inner)}")
        inner[at[-1]] = value
    job = _build(Job, table, (), source, text=text, overrides=tuple(overrides))
    _agree(job, source)
    return job


@dataclass(frozen=True)
class _Source:
    """Where values came from, so that an error can say so."""

    name: str
    text: str
    overridden: tuple[toml.Key, ...]

    def refuse(self, at: toml.Key, problem: str, hint: str | None = None) -> NoReturn:
        """Raise the JobError of one setting."""
        line = toml.line_of(self.text, at)
        over = any(at[: len(key)] == key for key in self.overridden)
        if over or (line is None and any(key[: len(at)] == at for key in self.overridden)):
            where = "--set"
        else:
            above = (toml.line_of(self.text, at[:depth]) for depth in range(len(at) - 1, 0, -1))
            line = line or next(filter(None, above), None)
            where = f"{self.name}:{line}" if line else self.name
        raise JobError(f"{where}: {'.'.join(at)}: {problem}", (), hint)


def _override(text: str) -> tuple[toml.Key, Any]:
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(rf"{toml.BARE_KEY}(\.{toml.BARE_KEY})*", key.strip()):
        raise JobError(f"--set: `{text}` is not KEY=VALUE", (), "--set stage.ar.lr=1e-4")
    at = tuple(key.strip().split("."))
    if len(at) > _MAX_KEYS:
        raise JobError(f"--set: `{text[:_MAX_SHOWN]}…` has more keys than any setting", (), "--set stage.ar.lr=1e-4")
    try:
        table = documents.parse_toml(f"value = {value}")
    except BadDocumentError as error:
        if error.line is None:
            raise JobError(f"--set: {key.strip()}: {error}") from error
        if re.fullmatch(rf"{_BACKSLASH}.*\"", value.strip()):
            raise JobError(f"--set: {key.strip()}: {value.strip()} is not TOML", (), _PATH_HINT) from None
        return at, value.strip()
    # no setting is a date, and more than one key is text that happens to look like a file
    known = len(table) == 1 and isinstance(table["value"], bool | int | float | str | list | dict)
    return at, table["value"] if known else value.strip()


def _build(section: type, table: Mapping[str, Any], at: toml.Key, source: _Source, **record: Any) -> Any:
    known, inner = settings(section), subsections(section)
    for key in table:
        if key not in known and key not in inner:
            place = f"[{'.'.join(at)}]" if at else "a job"
            source.refuse((*at, key), f"{place} has no such setting", did_you_mean(key, [*known, *inner]))
    values: dict[str, Any] = {}
    for key, setting in known.items():
        here = (*at, key)
        if key in table:
            values[key] = _value(table[key], setting, here, source)
        elif setting.required:
            place = f"below [{'.'.join(at)}]" if at else "at the top"
            source.refuse(here, "is missing", f"add `{key} = {toml.value(setting.example)}` {place}")
    for key, kind in inner.items():
        below = table.get(key, {})
        if not isinstance(below, dict):
            source.refuse((*at, key), f"must be a section, got {toml.shown(below)}")
        values[key] = _build(kind, below, (*at, key), source)
    return section(**values, **record)


def _value(value: Any, setting: Setting, at: toml.Key, source: _Source) -> Any:
    converted = next((found for kind in kinds_in(setting.kind) if (found := _as_kind(value, kind)) is not None), None)
    if converted is None:
        source.refuse(at, f"must be {setting.kinds()}, got {toml.shown(value)}")
    if isinstance(converted, Path) and (signs := re.findall(r"[\b\t\n\f\r]", value)):
        # "C:\new" is read as C:, a line end, and ew
        source.refuse(at, f"has {toml.value(signs[0])} in it, got {toml.shown(value)}", _PATH_HINT)
    if problem := _address_problem(value, converted, at) or _beyond(converted) or setting.problem(value):
        near = did_you_mean(converted, setting.choices) if setting.choices and isinstance(converted, str) else None
        source.refuse(at, problem, near if near and near.startswith("did") else None)
    if isinstance(converted, Mapping):
        for key, part in converted.items():
            if not isinstance(part, Mapping):
                source.refuse((*at, key), f"must be a table, got {toml.shown(part)}")
            if any(hasattr(leaf, "isoformat") for leaf in toml.leaves(part)):
                source.refuse((*at, key), "must hold no dates and times")
    return converted


def _beyond(value: Any) -> str | None:
    """Return why a value is more than any machine holds, in words, or None."""
    if isinstance(value, Path):
        parts = value.parts
        is_long = len(str(value).encode()) > _MAX_PATH_BYTES or any(
            len(part.encode()) > _MAX_NAME_BYTES for part in parts
        )
        return "is too long for a path" if is_long else None
    for number in value if isinstance(value, tuple) else (value,):
        if type(number) is int and abs(number) > _MAX_WHOLE:
            return f"must be at most {_MAX_WHOLE}, got {toml.shown(number)}"
    return None


def _address_problem(value: Any, converted: Any, at: toml.Key) -> str | None:
    problem = address_problem(value) if isinstance(converted, Path) else None
    hub = '; a set of the Hub is named owner/name, with data.reader = "hub"' if at == ("data", "path") else ""
    hub = "; a model of the Hub is named owner/name" if at == ("model", "start") else hub
    return problem and f"{toml.value(value)} {problem}{hub}"


def _as_kind(value: Any, kind: Any) -> Any:
    """Return a TOML value as `kind`, or None where it is not one. A truth value is no number here."""
    if kind is bool:
        return value if type(value) is bool else None
    if kind == tuple[int, ...]:
        return tuple(value) if isinstance(value, list) and all(type(n) is int for n in value) else None
    if kind is int:
        return value if type(value) is int else None
    if kind is float:
        fits = type(value) in (int, float) and abs(value) <= 1e300  # neither infinite nor nan
        return float(value) if fits else None
    if kind in (str, Path):
        return kind(value) if isinstance(value, str) and value and "\0" not in value else None
    if kind is tuple:
        return tuple(value) if isinstance(value, list) and all(isinstance(word, str) for word in value) else None
    if kind is Mapping:
        return value if isinstance(value, dict) else None
    return value if value == kind else None


def _agree(job: Job, source: _Source) -> None:
    """Refuse stages that are out of the one order there is."""
    stages = job.train.stages
    if job.train.method == "lora":
        wrong = [name for name in stages if name not in LORA_STAGES]
        if wrong:
            source.refuse(
                ("train", "stages"),
                f'`{wrong[0]}` has no low-rank additions; with train.method = "lora" only ar and decoder are trained',
                'stages = ["decoder"]',
            )
        if job.model.start is None:
            source.refuse(("train", "method"), "`lora` adapts a model, and model.start names none")
    if not stages or stages != tuple(name for name in STAGES if name in stages):
        source.refuse(("train", "stages"), f"must be one or more of {', '.join(STAGES)}, in this order, each once")
