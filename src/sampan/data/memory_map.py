"""Arrays in safetensors files, mapped into memory instead of read: nothing is copied before it is used.

Only what this package stores is known here: a few dtypes, little-endian, no bf16. Weights go through `frameworks.io`. The
safetensors library copies arrays for NumPy, and its files of the same arrays differ in the order of their metadata, whereas
a shard is named by the hash of its bytes.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampan.errors import DamagedFileError
from sampan.files import replacing
from sampan.frameworks.safetensors_header import TensorPlace, read_header

Array = NDArray[Any]

_DTYPES = {
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "U8": np.dtype("u1"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


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
    entries = _header(path)
    whole = np.memmap(path, np.uint8, "r")
    return {
        name: whole[place.begin : place.end].view(dtype).reshape(place.shape)
        for name, (dtype, place) in entries.items()
    }


def read_array(path: Path, name: str) -> Array:
    """Return one array of a file, read into memory, so that the file need not stay open.

    Raises:
        DamagedFileError: As `open_arrays`, or there is no such array.
        OSError: The file cannot be read.
    """
    entries = _header(path)
    if name not in entries:
        raise DamagedFileError(f"it has no `{name}`")
    dtype, place = entries[name]
    with open(path, "rb") as file:
        file.seek(place.begin)
        data = file.read(place.end - place.begin)
    return np.frombuffer(data, dtype).reshape(place.shape)


def _header(path: Path) -> dict[str, tuple[np.dtype[Any], TensorPlace]]:
    """Return each array's dtype and its place in the file."""
    tensors = read_header(path).tensors
    for name, place in tensors.items():
        if place.dtype not in _DTYPES:
            raise DamagedFileError(f"`{name}` is of the dtype {place.dtype}, which is not stored")
    return {name: (_DTYPES[place.dtype], place) for name, place in tensors.items()}
