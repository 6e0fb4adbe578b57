"""Arrays in safetensors files, mapped: what the library writes is read, and what is written the library reads."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save_file

from sampan.data import memory_map
from sampan.errors import DamagedFileError

ARRAYS = st.dictionaries(
    st.text(st.characters(categories=["L", "Nd"]), min_size=1, max_size=5),
    st.sampled_from([np.float32, np.float64, np.int32, np.int64, np.uint8]).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    ),
    max_size=4,
)


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert array.dtype == other[name].dtype and array.shape == other[name].shape
        assert array.tobytes() == other[name].tobytes()


@given(ARRAYS)
def test_both_ways_with_the_library(tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, np.ndarray]):
    folder = tmp_path_factory.mktemp("mapped")
    memory_map.write(folder / "ours", memory_map.file_of(arrays, {"a": "b"}))
    same(arrays, load_file(folder / "ours"))
    same(arrays, memory_map.open_arrays(folder / "ours"))
    save_file(arrays, folder / "theirs")
    same(arrays, memory_map.open_arrays(folder / "theirs"))
    for name, array in arrays.items():
        same({name: array}, {name: memory_map.read_array(folder / "ours", name)})


def test_arrays_are_read_only_views_of_one_map(tmp_path: Path):
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "ids": np.zeros((2, 16), np.uint8)}
    memory_map.write(tmp_path / "f", memory_map.file_of(arrays, {}))
    found = memory_map.open_arrays(tmp_path / "f")
    for array in found.values():
        assert isinstance(array, np.memmap) and not array.flags.owndata and array.flags.aligned
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def header(entry: object, data: bytes = b"1234") -> bytes:
    text = json.dumps({"a": entry}).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "it is too short for a header"),
        (struct.pack("<Q", 1 << 60) + b"{}", f"its header would have {1 << 60} bytes, and the file has 10"),
        (struct.pack("<Q", 2) + b"[]", "its header is no JSON object"),
        (struct.pack("<Q", 2) + b"{]", None),
        (
            header({"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, b"123"),
            "incomplete: its header describes 73 bytes, and the file has 72",
        ),
        (
            header({"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}),
            "`a` has 4 bytes, not those of F32 numbers of shape (2,)",
        ),
        (
            header({"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}),
            "shape or place of `a` are no counts",
        ),
        (
            header({"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}),
            "`a` is of the dtype BF16, which is not stored",
        ),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, text: str | None):
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(DamagedFileError) as caught:
        memory_map.open_arrays(tmp_path / "f")
    assert text is None or str(caught.value) == text


def test_what_is_not_stored():
    with pytest.raises(ValueError) as caught:
        memory_map.file_of({"a": np.zeros(1, np.float16)}, {})
    assert str(caught.value) == "array `a` is of float16, which is not stored"


def test_an_array_that_is_not_there(tmp_path: Path):
    memory_map.write(tmp_path / "f", memory_map.file_of({"a": np.zeros(1, np.float32)}, {}))
    with pytest.raises(DamagedFileError, match="it has no `ids`"):
        memory_map.read_array(tmp_path / "f", "ids")
