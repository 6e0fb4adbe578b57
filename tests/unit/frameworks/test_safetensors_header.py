"""Headers that are none are refused by every reader, in words, at once, and without the memory that they claim."""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sampan.checkpoint import lora, weights
from sampan.data import memory_map
from sampan.errors import DamagedFileError, SampanError
from sampan.frameworks import weight_files
from sampan.frameworks.safetensors_header import MAX_HEADER_BYTES, read_header
from sampan.models import presets
from sampan.pipeline.inject import read_injected
from sampan.pipeline.request import ImageRequest

CONFIG = presets.get("nano", {})


def file_of(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: list[Any] = [1], begin: Any = 0, end: Any = 4, dtype: Any = "F32") -> dict[str, Any]:  # noqa: B006  # read
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


MALFORMED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "it is too short for a header"),
    "four bytes": (lambda: b"\0\0\0\0", "it is too short for a header"),
    "a length of all ones": (
        lambda: file_of({}, length=2**64 - 1),
        f"its header would have {2**64 - 1} bytes, and the file",
    ),
    "a length past the end": (lambda: file_of({}, length=3), "its header would have 3 bytes, and the file has 10"),
    "a negative length": (lambda: file_of({}, length=2**63), "its header would have"),
    "no JSON": (lambda: file_of(b"{]"), "its header is not JSON"),
    "no UTF-8": (lambda: file_of(b'{"\xff":1}'), "its header is not JSON"),
    "nested": (lambda: file_of(b'{"a":' + b"[" * 100_000), "its header is not JSON: nested too deeply"),
    "many lists": (
        lambda: file_of(b"[" + b"[]," * 300_000 + b"1]"),
        "its header has more than 200000 lists and objects",
    ),
    "a list": (lambda: file_of([]), "its header is no JSON object"),
    "a long number": (lambda: file_of(b'{"a":' + b"9" * 100_000 + b"}"), "its header is not JSON"),
    "metadata of numbers": (lambda: file_of({"__metadata__": {"a": 1}}), "its metadata are not texts by key"),
    "an entry that is none": (lambda: file_of({"a": 3}), "`a` has no dtype, shape and place in its header"),
    "no shape": (
        lambda: file_of({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, b"1234"),
        "`a` has no dtype, shape and",
    ),
    "another dtype": (
        lambda: file_of({"a": entry(dtype="F33")}, b"1234"),
        "`a` is of the dtype 'F33', which there is not",
    ),
    "a dtype that is a list": (
        lambda: file_of({"a": entry(dtype=["F32"])}, b"1234"),
        "`a` is of the dtype \"['F32']\"",
    ),
    "a dtype of other width": (
        lambda: file_of({"a": entry(dtype="F64")}, b"1234"),
        "`a` has 4 bytes, not those of F64",
    ),
    "overlapping": (
        lambda: file_of({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)),
        "the bytes of `b` overlap those before",
    ),
    "the same bytes twice": (lambda: file_of({"a": entry(), "b": entry()}, b"1234"), "the bytes of `b` overlap those"),
    "a gap": (lambda: file_of({"a": entry(), "b": entry(begin=8, end=12)}, bytes(12)), "`b` leave a gap before them"),
    "backwards": (lambda: file_of({"a": entry(begin=4, end=0)}, b"1234"), "`a` has -4 bytes, not those of F32"),
    "negative": (lambda: file_of({"a": entry(begin=-4, end=0)}, b"1234"), "shape or place of `a` are no counts"),
    "fractions": (lambda: file_of({"a": entry(end=4.0)}, b"1234"), "shape or place of `a` are no counts"),
    "truth": (lambda: file_of({"a": entry([True])}, b"1234"), "shape or place of `a` are no counts"),
    "a huge shape": (lambda: file_of({"a": entry([2**62, 2**62])}, b"1234"), "`a` has 4 bytes, not those of F32"),
    "a shape past 64 bits": (lambda: file_of({"a": entry([2**64])}, b"1234"), "shape or place of `a` are no counts"),
    "many dimensions": (lambda: file_of({"a": entry([1] * 65)}, b"1234"), "shape or place of `a` are no counts"),
    "three offsets": (lambda: file_of({"a": {**entry(), "data_offsets": [0, 2, 4]}}, b"1234"), "shape or place of `a`"),
    "past the end": (lambda: file_of({"a": entry([2], 0, 8)}, b"1234"), "incomplete: its header describes"),
    "bytes behind": (lambda: file_of({"a": entry()}, b"12345"), "incomplete: its header describes"),
}


def readers(path: Path) -> dict[str, Callable[[], Any]]:
    """Return everything that reads the header of a file."""
    request = ImageRequest(prompt="x", inject=path)
    return {
        "weights": lambda: weights.read_header(path),
        "metadata": lambda: weights.read_metadata(path),
        "header digest": lambda: weights.header_digest(path),
        "tensor digests": lambda: weights.tensor_digests(path),
        "tensors": lambda: weight_files.open_safetensors(path, "pt").__enter__(),
        "lora": lambda: lora.read(path, CONFIG),
        "inject": lambda: read_injected(request, (128, 128), CONFIG),
        "map": lambda: memory_map.open_arrays(path),
    }


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_files_are_refused_by_every_reader(kind: str, tmp_path: Path):
    content, said = MALFORMED[kind]
    path = tmp_path / "x.safetensors"
    path.write_bytes(content())
    with pytest.raises(DamagedFileError) as caught:
        read_header(path)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 500
    for name, read in readers(path).items():
        with pytest.raises(DamagedFileError if name == "map" else SampanError) as refused:
            read()
        assert said in str(refused.value), name


def test_lengths_and_great_headers_take_no_time_and_no_memory(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    sparse = 200 * 2**20  # a file with holes, which takes no disk
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", sparse - 8))
        file.truncate(sparse)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, read in readers(path).items():
        begun_s = time.perf_counter()
        with pytest.raises((SampanError, DamagedFileError), match=f"at most {MAX_HEADER_BYTES} are read"):
            read()
        assert time.perf_counter() - begun_s < 1, name
    kib = 1024 if sys.platform == "darwin" else 1
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / kib < 30 * 1024


def test_a_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DamagedFileError, match="it is no regular file"):
        read_header(tmp_path / "pipe")


def test_what_the_library_writes_is_read(tmp_path: Path):
    tensors = {
        "b": torch.ones(2, 3),
        "a": torch.ones(4, dtype=torch.bfloat16),
        "none": torch.ones(0, 3),
        "s": torch.tensor(1),
    }
    save_file(tensors | {"s": torch.tensor(1)}, tmp_path / "x.safetensors", {"word": "ä"})
    header = read_header(tmp_path / "x.safetensors")
    assert header.metadata == {"word": "ä"}
    assert {name: (place.dtype, place.shape) for name, place in header.tensors.items()} == {
        "a": ("BF16", (4,)), "b": ("F32", (2, 3)), "none": ("F32", (0, 3)), "s": ("I64", ())
    }  # fmt: skip
    place, data = header.tensors["b"], (tmp_path / "x.safetensors").read_bytes()
    assert np.frombuffer(data[place.begin : place.end], np.float32).tolist() == [1.0] * 6


def test_a_file_that_is_written_again_is_read_again(tmp_path: Path):
    for shape in ((1,), (2,), (3,)) * 4:
        save_file({"a": torch.zeros(shape)}, tmp_path / "x.safetensors")
        assert read_header(tmp_path / "x.safetensors").tensors["a"].shape == shape
