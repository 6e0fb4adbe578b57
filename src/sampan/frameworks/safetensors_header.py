"""The header of a safetensors file, read and held against the file before any library maps it.

A file is 8 bytes with the header's length, the header (JSON: tensor name to dtype, shape and place; `__metadata__` to texts),
and the tensors' bytes without a gap. What breaks this is refused here, in a bounded time and memory whatever the length
fields claim: the header is read only where it can be one. Source: https://github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import json
import math
import stat
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sampan.errors import DamagedFileError
from sampan.files import FileMark, file_mark

# bits of an element; the 4 and 6 bit ones are packed
BITS_PER_ELEMENT = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
# the format allows 100 MB; 60 thousand tensors and a trainer's tag lists need less than this, and are read within a second
MAX_HEADER_BYTES = 16 * 2**20
_MAX_BRACKETS, _MAX_COMMAS = 200_000, 1_000_000  # a tensor has three brackets; more of them than bytes take the time
_METADATA = "__metadata__"


@dataclass(frozen=True)
class TensorPlace:
    """One tensor as the header describes it.

    Args:
        dtype: In the file format's words: "F32", "BF16" …
        begin, end: Its first byte and the byte after its last, from the beginning of the file.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class SafetensorsHeader:
    """A header that fits its file.

    Args:
        tensors: By name, in the order of their bytes.
        metadata: The texts beside them.
        num_bytes: Of the header itself, its 8 bytes of length included.
    """

    tensors: dict[str, TensorPlace]
    metadata: dict[str, str]
    num_bytes: int


def read_header(path: Path) -> SafetensorsHeader:
    """Return the header of a file.

    Raises:
        DamagedFileError: It is no whole safetensors file; the reason in words.
        OSError: It cannot be read.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise DamagedFileError("it is no regular file")
    mark = file_mark(path)
    return _read(path, status.st_size) if mark is None else _read_once(path, mark)


@lru_cache(maxsize=32)  # a file is opened for each tensor that is read alone
def _read_once(path: Path, mark: FileMark) -> SafetensorsHeader:
    return _read(path, mark.num_bytes)


def _read(path: Path, size: int) -> SafetensorsHeader:
    with open(path, "rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise DamagedFileError("it is too short for a header")
        length = int.from_bytes(start, "little")
        if length > size - 8:
            raise DamagedFileError(f"its header would have {length} bytes, and the file has {size}")
        if length > MAX_HEADER_BYTES:
            raise DamagedFileError(f"its header would have {length} bytes, and at most {MAX_HEADER_BYTES} are read")
        text = file.read(length)
    values = _parse(text)
    metadata = values.pop(_METADATA, None)
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict) or not all(isinstance(word, str) for word in metadata.values()):
        raise DamagedFileError("its metadata are not texts by key")
    tensors = sorted(
        ((name, _place(name, entry, 8 + length)) for name, entry in values.items()),
        key=lambda pair: (pair[1].begin, pair[1].end),
    )
    reached = 8 + length
    for name, place in tensors:
        if place.begin != reached:
            kind = "overlap those before" if place.begin < reached else "leave a gap before them"
            raise DamagedFileError(f"the bytes of `{_short(name)}` {kind}")
        reached = place.end
    if reached != size:
        raise DamagedFileError(f"incomplete: its header describes {reached} bytes, and the file has {size}")
    return SafetensorsHeader(dict(tensors), metadata, 8 + length)


def _parse(text: bytes) -> dict[str, Any]:
    if text.count(b"{") + text.count(b"[") > _MAX_BRACKETS or text.count(b",") > _MAX_COMMAS:
        raise DamagedFileError(f"its header has more than {_MAX_BRACKETS} lists and objects, or {_MAX_COMMAS} commas")
    try:
        values = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise DamagedFileError(f"its header is not JSON: {why}") from error
    if not isinstance(values, dict):
        raise DamagedFileError("its header is no JSON object")
    return values


def _place(name: str, entry: Any, offset: int) -> TensorPlace:
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise DamagedFileError(f"`{_short(name)}` has no dtype, shape and place in its header")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS_PER_ELEMENT:
        raise DamagedFileError(f"`{_short(name)}` is of the dtype {str(dtype)[:40]!r}, which there is not")
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise DamagedFileError(f"shape or place of `{_short(name)}` are no counts")
    begin, end = offsets
    if (end - begin) * 8 != math.prod(shape) * BITS_PER_ELEMENT[dtype]:
        raise DamagedFileError(
            f"`{_short(name)}` has {end - begin} bytes, not those of {dtype} numbers of shape {str(tuple(shape))[:80]}"
        )
    return TensorPlace(dtype, tuple(shape), offset + begin, offset + end)


def _are_counts(values: Any) -> bool:
    # 64 bits, as every reader counts; more dimensions than 64 no framework has, and their product would take time
    return (
        isinstance(values, list)
        and len(values) <= 64
        and all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**63 for n in values)
    )


def _short(name: str) -> str:
    return name if len(name) <= 200 else f"{name[:200]}…"
