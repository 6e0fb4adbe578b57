"""What the sections of a model's config share: reading the released config files, and refusing what is not implemented."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from sampan.errors import CheckpointError

JSON = dict[str, Any]


class ConfigSection:
    """One section of a model's config: a frozen dataclass whose fields are named as in the released file.

    A section whose file needs more than its own fields overrides `from_json` and `to_json`.
    """

    NAME: ClassVar[str]  # what errors call it

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Self:
        """Return the section that a config file states.

        Raises:
            CheckpointError: A value is missing, or changes the mathematics in a way that is not implemented.
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
                    f"its config.json has {key} = {config[key]!r}; sampan implements {key} = {value!r} only",
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

    def require_positive(self) -> None:
        """Raise ValueError unless every integer field is at least 1."""
        for f in _fields(type(self)):
            value = getattr(self, f.name)
            if isinstance(value, int) and not isinstance(value, bool) and not f.name.endswith("_id") and value < 1:
                raise ValueError(f"{f.name} must be at least 1, got {value}")


def _fields(section: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(section)
