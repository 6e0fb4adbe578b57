"""What the sections of a model's config share: kinds and ranges of their values, reading the released config files, and
refusing what is not implemented."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from sampan.documents import shown
from sampan.errors import CheckpointError

JSON = dict[str, Any]
MAX_PARAMETERS = 4 * 10**12  # of one part; a few hundred times the release
MAX_LAYERS = 512
MAX_WHOLE = 2**31 - 1
_WORDS = {"int": "a whole number", "float": "a number", "table": "a table"}


class ConfigSection:
    """One section of a model's config: a frozen dataclass whose fields are named as in the released file.

    A section whose file needs more than its own fields overrides `from_json` and `to_json`.
    """

    NAME: ClassVar[str]  # what errors call it
    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {}  # least and most, where they are not those of `_limits`

    def __post_init__(self) -> None:
        """Raise ValueError for a value that is not of its field's kind, or out of its range."""
        for f in _fields(type(self)):
            value, kind = getattr(self, f.name), str(f.type)
            if not kind.startswith(("int", "float", "tuple")):
                continue  # a section, which has checked itself
            low, high = self.LIMITS.get(f.name) or _limits(f.name, kind)
            items = (value,)
            if kind.startswith("tuple"):
                kind = kind.removeprefix("tuple[").partition(",")[0]
                if not isinstance(value, tuple) or not value:
                    raise ValueError(f"{f.name} must be a list of numbers, got {shown(value)}")
                items = value
            for item in items:
                check_kind(f.name, item, kind)
                if not low <= item <= high:
                    bound = f"at least {low:g}" if item < low else f"at most {high:.10g}"
                    raise ValueError(f"{f.name} must be {bound}, got {shown(item)}")

    def check_size(self, num_parameters: int) -> None:
        """Raise ValueError where sizes that are each in range make a part together that no machine holds."""
        if num_parameters > MAX_PARAMETERS:
            raise ValueError(
                f"its sizes make about {num_parameters:.1e} parameters, and at most {MAX_PARAMETERS:.0e} are taken"
            )

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Self:
        """Return the section that a config file states.

        Raises:
            CheckpointError: A value is missing, is of the wrong kind or out of range, or changes the mathematics in a way
                that is not implemented.
        """
        return cls.pick(config)

    def to_json(self) -> JSON:
        """Return what `from_json` reads, in the form of the release."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]  # every section is a dataclass

    @classmethod
    def pick(cls, config: Mapping[str, Any], **given: Any) -> Self:
        """Return the section from the keys of `config` that are its fields; values of `given` count first."""
        values: dict[str, Any] = {}
        for f in _fields(cls):
            if f.name in given:
                values[f.name] = given[f.name]
            elif config.get(f.name) is not None:
                value = config[f.name]
                values[f.name] = tuple(value) if isinstance(value, list) else value
            elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
                raise CheckpointError(
                    f"the {cls.NAME} of this checkpoint cannot be built",
                    f"its config.json has no `{f.name}`",
                    "write the folder again with the tool that made it, or add the key by hand",
                )
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"the {cls.NAME} of this checkpoint cannot be built", str(error)) from error

    @classmethod
    def require(cls, config: Mapping[str, Any], **wanted: Any) -> None:
        """Refuse a config whose value changes the mathematics in a way that is not implemented."""
        for key, value in wanted.items():
            if config.get(key, value) != value:
                raise CheckpointError(
                    f"the {cls.NAME} of this checkpoint cannot be run",
                    f"its config.json has {key} = {shown(config[key])}; sampan implements {key} = {value!r} only",
                    "GLM-Image-class checkpoints keep the released value; is this another kind of model?",
                )

    @classmethod
    def require_stated(cls, config: Mapping[str, Any], but: tuple[str, ...] = ()) -> Mapping[str, Any]:
        """Refuse a config that leaves a size to a default; return it."""
        missing = [f.name for f in _fields(cls) if f.name not in but and config.get(f.name) is None]
        if missing:
            raise CheckpointError(
                f"the {cls.NAME} of this checkpoint cannot be built",
                f"its config.json has no {', '.join(f'`{name}`' for name in missing)}",
                "write the folder again with the tool that made it, or add the keys by hand",
            )
        return config

    @classmethod
    def require_kinds(cls, config: Mapping[str, Any], **kinds: str) -> None:
        """Refuse keys that are there and are not of a kind ("int", "float", "table", "list"), before they are used."""
        for key, kind in kinds.items():
            if config.get(key) is not None:
                try:
                    check_kind(key, config[key], kind)
                except ValueError as error:
                    raise CheckpointError(f"the {cls.NAME} of this checkpoint cannot be built", str(error)) from error


def check_kind(name: str, value: Any, kind: str) -> None:
    """Raise ValueError unless a value is of a kind. A truth value is no number, and neither is one that is not finite."""
    match kind:
        case "int":
            fits = type(value) is int
        case "float":
            fits = type(value) is int or (isinstance(value, float) and math.isfinite(value))
        case "table":
            fits = isinstance(value, Mapping)
        case _:
            fits = isinstance(value, list | tuple)
    if not fits:
        raise ValueError(f"{name} must be {_WORDS.get(kind, 'a list')}, got {shown(value)}")


def _limits(name: str, kind: str) -> tuple[float, float]:
    """Return the range of a field that states none: ids from 0, sizes from 1, any finite decimal number."""
    if "float" in kind:
        return -1e30, 1e30
    return (0 if name.endswith("_id") else 1), MAX_WHOLE


def _fields(section: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(section)
