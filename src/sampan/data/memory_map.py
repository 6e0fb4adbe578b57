"""Arrays in safetensors files, mapped into memory instead of read: nothing is copied before it is used.

Only what this package stores is known here: a few dtypes, little-endian, no bf16. Weights go through `frameworks.io`. The
safetensors library copies arrays for NumPy, and its files of the same arrays differ in the order of their metadata, whereas
a shard is named by the hash of its bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampan.errors import DamagedFileError
from sampan.files import replacing

Array = NDArray[Any]

_DTYPES = {
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "U8": np.dtype("u1"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit


def file_of(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> list[bytes | memoryview]:
    """Return the pieces of a safetensors file; the same arrays give the same bytes.

    Wide items come first, so that each array begins at a multiple of its item's size.

    Raises:
        ValueError: A dtype that is not stored.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    pieces: list[bytes | memoryview] = []
    end = 0
    for name in sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name)):
        array = np.ascontiguousarray(arrays[name])
        stored = array.astype(array.dtype.newbyteorder("<"), copy=False)
        if stored.dtype not in _NAMES:
            raise ValueError(f"array `{name}` is of {array.dtype}, which is not stored")
        begin, end = end, end + stored.nbytes
        header[name] = {"dtype": _NAMES[stored.dtype], "shape": list(arrays[name].shape), "data_offsets": [begin, end]}
        pieces.append(stored.reshape(-1).view(np.uint8).data if stored.size else b"")
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return [struct.pack("<Q", len(text)), text, *pieces]


def write(path: Path, pieces: list[bytes | memoryview]) -> None:
    """Write the pieces of a file; it is whole and synced, or absent.

    Raises:
        OSError: It cannot be written.
    """
    with replacing(path) as beside, open(beside, "wb") as file:
        for piece in pieces:
            file.write(piece)


def sha256(pieces: list[bytes | memoryview]) -> str:
    """Return the hash, in hexadecimal, of a file's pieces."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def open_arrays(path: Path) -> dict[str, Array]:
    """Return the arrays of a file, read-only views of one memory map.

    Raises:
        DamagedFileError: The header is not one, or the file is shorter or longer than it says.
        OSError: The file cannot be read.
    """
    entries, begin = _header(path)
    whole = np.memmap(path, np.uint8, "r")
    return {
        name: whole[begin + first : begin + last].view(dtype).reshape(shape)
        for name, (dtype, shape, first, last) in entries.items()
    }


def read_array(path: Path, name: str) -> Array:
    """Return one array of a file, read into memory, so that the file need not stay open.

    Raises:
        DamagedFileError: As `open_arrays`, or there is no such array.
        OSError: The file cannot be read.
    """
    entries, begin = _header(path)
    if name not in entries:
        raise DamagedFileError(f"it has no `{name}`")
    dtype, shape, first, last = entries[name]
    with open(path, "rb") as file:
        file.seek(begin + first)
        data = file.read(last - first)
    return np.frombuffer(data, dtype).reshape(shape)


def _header(path: Path) -> tuple[dict[str, tuple[np.dtype[Any], tuple[int, ...], int, int]], int]:
    """Return each array's dtype, shape, first and last byte behind the header, and where the header ends."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else _MAX_HEADER_BYTES + 1
        if length > min(_MAX_HEADER_BYTES, size - 8):
            raise DamagedFileError("it has no safetensors header")
        text = file.read(length)
    entries: dict[str, tuple[np.dtype[Any], tuple[int, ...], int, int]] = {}
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        for name, entry in header.items():
            dtype, shape = _DTYPES[entry["dtype"]], tuple(int(n) for n in entry["shape"])
            first, last = (int(n) for n in entry["data_offsets"])
            if min((first, *shape), default=0) < 0 or last - first != math.prod(shape) * dtype.itemsize:
                raise DamagedFileError(f"the bytes of `{name}` are not as many as its shape {shape} needs")
            entries[name] = (dtype, shape, first, last)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, DamagedFileError):
            raise
        raise DamagedFileError(f"its safetensors header cannot be read: {error}") from error
    end = 8 + length + max((last for *_, last in entries.values()), default=0)
    if end != size:
        raise DamagedFileError(f"it has {size} bytes and its header says {end}")
    return entries, 8 + length
