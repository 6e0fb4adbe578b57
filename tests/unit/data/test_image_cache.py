"""Pictures by number: at their bucket's size, kept as memory allows, opened ahead."""

from __future__ import annotations

import hashlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sampan.data import image_cache
from sampan.data.image_cache import ImageCache
from sampan.data.image_source import FileSource
from sampan.data.pictures import fit, load_rgb, to_array
from sampan.errors import DataError


@dataclass
class Counted:
    """A picture in memory that counts how often it is read."""

    name: str
    data: bytes
    wait: threading.Event | None = None
    reads: list[str] = field(default_factory=list)

    def fingerprint(self) -> str:
        return "1"

    def read(self) -> bytes:
        if self.wait is not None:
            assert self.wait.wait(10)
        self.reads.append(threading.current_thread().name)
        return self.data


def painted(folder: Path, count: int, width: int = 40, height: int = 20) -> list[Counted]:
    draw = np.random.default_rng(0)
    found = []
    for number in range(count):
        path = folder / f"{number}.png"
        Image.fromarray(draw.integers(0, 256, (height, width, 3), np.uint8)).save(path)
        found.append(Counted(path.as_posix(), path.read_bytes()))
    return found


def gathered(sources: list[Any], size: tuple[int, int] = (16, 16), **settings: Any) -> ImageCache:
    digests = [hashlib.blake2b(source.read(), digest_size=16).hexdigest() for source in sources]
    for source in sources:
        if isinstance(source, Counted):
            source.reads.clear()
    return ImageCache(sources, [(20, 40)] * len(sources), [size] * len(sources), digests, **settings)


def test_a_picture_is_brought_to_its_bucket(tmp_path: Path):
    sources = painted(tmp_path, 3)
    pictures = gathered([FileSource(Path(source.name)) for source in sources])
    assert len(pictures) == 3
    wanted = fit(load_rgb(sources[1].data), 16, 16)
    assert pictures[1].tobytes() == wanted.tobytes()
    assert pictures.size_of(1) == (16, 16) and pictures.crop_of(1) == (0, 8)
    assert pictures.name_of(1) == sources[1].name
    arrays = pictures.arrays([2, 1])
    assert arrays.shape == (2, 3, 16, 16) and arrays.dtype == np.float32
    assert np.array_equal(arrays[1], to_array(wanted))


def test_pictures_of_two_sizes_make_no_array(tmp_path: Path):
    sources = painted(tmp_path, 2)
    one = gathered(sources)
    pictures = ImageCache(sources, one.shapes, [(16, 16), (16, 32)], one.digests)
    assert pictures[1].size == (32, 16)
    with pytest.raises(AssertionError, match="one size"):
        pictures.arrays([0, 1])
    with pytest.raises(ValueError) as caught:
        ImageCache(sources, [], [(16, 16)], [])
    assert str(caught.value) == "2 sources, 0 shapes, 1 sizes and 0 digests"


def test_pictures_are_kept_until_the_room_is_full(tmp_path: Path):
    sources = painted(tmp_path, 3)
    pictures = gathered(sources, cache_bytes=2 * 16 * 16 * 3)
    for _ in range(3):
        for index in range(3):
            assert pictures[index].size == (16, 16)
    assert [len(source.reads) for source in sources] == [1, 1, 3]


def test_pictures_are_opened_ahead_on_other_threads(tmp_path: Path):
    sources = painted(tmp_path, 3)
    gate = threading.Event()
    pictures = gathered(sources)
    for source in sources:
        source.wait = gate
    pictures.prefetch([0, 1])
    pictures.prefetch([1, 0])
    assert not any(source.reads for source in sources)  # nobody waited for it
    gate.set()
    wanted = [fit(load_rgb(source.data), 16, 16).tobytes() for source in sources]
    assert [pictures[i].tobytes() for i in range(3)] == wanted
    assert [source.reads[0].split("_")[0] for source in sources] == ["pictures", "pictures", "MainThread"]
    pictures.prefetch([0, 1, 2])
    assert [len(source.reads) for source in sources] == [1, 1, 1]


def test_what_is_ahead_is_bounded_and_what_nobody_takes_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(image_cache, "_AHEAD_BYTES", 2 * 16 * 16 * 3)
    sources = painted(tmp_path, 5)
    pictures = gathered(sources, cache_bytes=0)
    pictures.prefetch([0, 1, 2])
    assert sorted(pictures._ahead) == [0, 1]
    pictures.prefetch([1, 3, 4])
    assert sorted(pictures._ahead) == [1, 3]
    for index in range(5):
        assert pictures[index].tobytes() == fit(load_rgb(sources[index].data), 16, 16).tobytes()
    assert not pictures._ahead


def test_what_goes_wrong_ahead_is_said_when_it_is_asked_for(tmp_path: Path):
    sources = painted(tmp_path, 2)
    pictures = gathered([sources[0], FileSource(Path(sources[1].name))])
    Path(sources[1].name).unlink()
    pictures.prefetch([0, 1])
    assert pictures[0].size == (16, 16)
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            _ = pictures[1]
        assert str(caught.value) == f"error: picture `{sources[1].name}` cannot be used\n  because it is not there"


def test_a_picture_that_changed_is_refused(tmp_path: Path):
    sources = painted(tmp_path, 2)
    pictures = gathered(sources)
    sources[0].data = sources[1].data
    with pytest.raises(DataError) as caught:
        _ = pictures[0]
    assert str(caught.value) == (
        f"error: picture `{sources[0].name}` cannot be used\n"
        "  because it has changed since it was examined\n\n"
        "hint: start again: what has changed is examined again"
    )


def test_a_picture_that_is_none_is_named(tmp_path: Path):
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(DataError) as caught:
        _ = gathered([FileSource(tmp_path / "a.png")])[0]
    assert str(caught.value) == (
        f"error: picture `{(tmp_path / 'a.png').as_posix()}` cannot be used\n"
        "  because it is not a picture of a known format (AVIF, BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP)"
    )


def test_many_threads_get_the_same_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(image_cache, "_AHEAD_BYTES", 3 * 16 * 16 * 3)  # so that much is taken back
    sources = painted(tmp_path, 8)
    wanted = [fit(load_rgb(source.data), 16, 16).tobytes() for source in sources]
    pictures = gathered(sources, cache_bytes=3 * 16 * 16 * 3)

    def look(seed: int) -> bool:
        for index in np.random.default_rng(seed).integers(0, 8, 60).tolist():
            pictures.prefetch([index, (index + 1) % 8, (index + 2) % 8])
            if pictures[index].tobytes() != wanted[index]:
                return False
        return True

    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(look, range(8)))
    assert time.monotonic() - began < 20
