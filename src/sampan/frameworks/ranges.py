"""Parts of tensors on the host, on their way into a safetensors file that several ranks write side by side.

Loads no framework. The file is the one that the safetensors library would write of the whole tensors, byte for byte.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from sampan.frameworks.safetensors_header import BITS_PER_ELEMENT

# the library sorts by the width of a number first, so that all are aligned, and by name then
_ORDER = (
    "BOOL",
    "U8",
    "I8",
    "F8_E5M2",
    "F8_E4M3",
    "I16",
    "U16",
    "F16",
    "BF16",
    "I32",
    "U32",
    "F32",
    "F64",
    "I64",
    "U64",
)


@dataclass(frozen=True)
class HostRange:
    """Neighbouring values of a tensor.

    Args:
        name, dtype, shape: Of the whole tensor; the dtype in the file's words.
        first: Place of the first value in the flat tensor.
        content: Their bytes; none where another rank writes them.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    first: int
    content: memoryview


def plan(ranges: Sequence[HostRange], metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int], int]:
    """Return the beginning of a file of these tensors, the place of each, and the file's length."""
    kinds = {one.name: (one.dtype, one.shape) for one in ranges}
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    places, end = {}, 0
    for name in sorted(kinds, key=lambda name: (-_ORDER.index(kinds[name][0]), name)):
        dtype, shape = kinds[name]
        size = prod(shape) * BITS_PER_ELEMENT[dtype] // 8
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        places[name], end = end, end + size
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    beginning = len(text).to_bytes(8, "little") + text
    return beginning, {name: len(beginning) + place for name, place in places.items()}, len(beginning) + end


def begin_file(path: Path, ranges: Sequence[HostRange], metadata: Mapping[str, str]) -> None:
    """Make a file as long as it will be, with its header, for ranks to write into.

    Raises:
        OSError: It cannot be made, or there is no room for it.
    """
    beginning, _, size = plan(ranges, metadata)
    with open(path, "xb") as file:
        file.write(beginning)
        file.truncate(size)
        if hasattr(os, "posix_fallocate"):  # a disk that is full says so now
            os.posix_fallocate(file.fileno(), 0, size)


def write_ranges(path: Path, ranges: Sequence[HostRange], metadata: Mapping[str, str]) -> int:
    """Write this rank's values into a file that was begun, make them durable, and return how many bytes they are.

    Raises:
        OSError: They cannot be written.
    """
    _, places, _ = plan(ranges, metadata)
    written = 0
    with open(path, "rb+", buffering=0) as file:
        for one in ranges:
            rest = one.content
            file.seek(places[one.name] + one.first * BITS_PER_ELEMENT[one.dtype] // 8)
            while rest.nbytes:
                count = file.write(rest)
                assert count, "a file that blocks"
                written, rest = written + count, rest[count:]
        os.fsync(file.fileno())
    return written
