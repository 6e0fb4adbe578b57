"""JSON files that carry a checksum of their own content: a changed bit is found though nothing else has their hash.

The content is what the file says, not how it is written: the same keys and values in another order or with other spaces have
the same checksum. It guards against disks, copies and slips of an editor, not against somebody who makes a new checksum.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sampan import files

KEY = "checksum"


def content_hash(values: Any) -> str:
    """Return the sha256 of JSON values, however they were written."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def seal(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with their checksum, in the place of one that they have."""
    content = unsealed(values)
    return {**content, KEY: content_hash(content)}


def unsealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values without their checksum."""
    return {key: value for key, value in values.items() if key != KEY}


def is_sealed(values: Mapping[str, Any]) -> bool:
    """Say whether values carry a checksum, right or wrong."""
    return KEY in values


def defect(values: Mapping[str, Any], *, required: bool) -> str | None:
    """Return in words what is wrong with the checksum of a file's values, or None.

    Args:
        required: Whoever wrote the file gave it one.
    """
    if not is_sealed(values):
        return "it has no checksum of its content, and was written with one" if required else None
    if values[KEY] != content_hash(unsealed(values)):
        return "its content is not that of its checksum: it was changed since it was written"
    return None


def text(values: Mapping[str, Any]) -> str:
    """Return the text of a JSON file with the values and their checksum."""
    return json.dumps(seal(values), indent=2, ensure_ascii=False)


def write(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file with its checksum, whole or not at all."""
    files.write_text(path, text(values))
