"""A store of shards: found by name, mapped, whole after every kill, and never served damaged."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from sampan import files
from sampan.data import encoded_cache, memory_map
from sampan.data.encoded_cache import EncodedCache
from sampan.errors import DataError

KEY = {"encoder": "abc", "dtype": "fp32"}


def rows(*values: float) -> dict[str, np.ndarray]:
    return {"x": np.array([[v, v + 0.5] for v in values], np.float32)}


def filled(folder: Path) -> EncodedCache:
    store = EncodedCache(folder, "latents", KEY)
    with store.writing():
        store.append("8x8", ["a", "b"], rows(1, 2))
        store.append("8x16", ["a"], rows(3))
    return store


def test_items_are_found_by_group_and_name(tmp_path: Path):
    for store in (filled(tmp_path), EncodedCache(tmp_path, "latents", KEY)):
        assert len(store) == 3 and not store.problems
        assert store.locate("8x8", ["b", "none", "a"]).tolist() == [[0, 1], [-1, -1], [0, 0]]
        assert store.locate("8x16", ["a", "b"]).tolist() == [[1, 0], [-1, -1]]
        assert store.missing("8x16", ["c", "a", "b", "c"]) == ["c", "b"]
        assert store.get((0, 1))["x"].tolist() == [2, 2.5]
        assert store.get((1, 0))["x"].tolist() == [3, 3.5]


def test_an_empty_store_has_nothing_and_makes_no_folder(tmp_path: Path):
    store = EncodedCache(tmp_path, "latents", KEY)
    assert len(store) == 0 and store.shards == ()
    assert store.missing("8x8", ["a"]) == ["a"] and store.missing("8x8", []) == []
    assert store.locate("8x8", []).shape == (0, 2)
    assert not list(tmp_path.iterdir())


def test_the_key_and_the_kind_name_the_folder(tmp_path: Path):
    store = filled(tmp_path)
    assert store.path.name.startswith("latents-")
    for kind, key in (("tokens", KEY), ("latents", {**KEY, "encoder": "abd"})):
        assert len(EncodedCache(tmp_path, kind, key)) == 0
    assert len(EncodedCache(tmp_path, "latents", {"dtype": "fp32", "encoder": "abc"})) == 3  # in any order


def test_what_is_read_is_a_view_of_the_mapped_file(tmp_path: Path):
    array = filled(tmp_path).get((0, 1))["x"]
    assert isinstance(array, np.memmap) and not array.flags.writeable and not array.flags.owndata
    base = array
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert type(base.base).__name__ == "mmap"


def test_arrays_of_different_lengths(tmp_path: Path):
    store = EncodedCache(tmp_path, "glyph", KEY)
    parts = [np.full((n, 3), n, np.float32) for n in (2, 0, 5)]
    with store.writing():
        store.append("words", ["a", "b", "c"], {"n": np.arange(3)}, {"embeds": parts})
    for row, part in enumerate(parts):
        found = EncodedCache(tmp_path, "glyph", KEY).get((0, row))
        assert found["embeds"].tolist() == part.tolist() and found["n"] == row
        assert isinstance(found["embeds"], np.memmap) or not len(part)


def test_more_shards_than_maps_are_kept_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encoded_cache, "_MAX_OPEN", 2)
    store = EncodedCache(tmp_path, "latents", KEY)
    with store.writing():
        for n in range(5):
            store.append("g", [str(n)], rows(n))
    for n in (0, 1, 2, 3, 4, 0, 2):
        assert store.get(store.locate("g", [str(n)])[0])["x"][0] == n


def test_the_manifest_says_what_there_is(tmp_path: Path):
    store = filled(tmp_path)
    manifest = json.loads((store.path / "manifest.json").read_text())
    assert list(manifest) == ["format", "kind", "sampan", "num_items", "key", "shards"]
    assert manifest["num_items"] == 3 and manifest["key"] == KEY
    first = manifest["shards"][0]
    assert list(first) == ["file", "group", "num_items", "bytes", "sha256"]
    assert first["file"] == first["sha256"][:32] + ".safetensors"
    assert first["bytes"] == (store.path / first["file"]).stat().st_size
    assert sorted(path.name for path in store.path.iterdir()) == sorted(
        ["manifest.json", *(s["file"] for s in manifest["shards"])]
    )


# --- kills -------------------------------------------------------------------------------------------------------------


def test_what_a_killed_writer_left_is_not_seen_and_swept(tmp_path: Path):
    store = filled(tmp_path)
    extra = store.path / "0123.safetensors"
    shutil.copy(store.path / store.shards[0].file, extra)  # whole, but the manifest was not written any more
    half = store.path / f".{store.shards[0].file}.77.tmp"
    half.write_bytes(b"half")
    mine = store.path / "notes.txt"
    mine.write_text("not ours")
    again = EncodedCache(tmp_path, "latents", KEY)
    assert len(again) == 3 and not again.problems
    assert extra.exists()  # reading changes nothing: it may be the file of a writer at work
    with again.writing():
        assert not extra.exists() and not half.exists() and mine.exists()
    assert len(again) == 3


@pytest.mark.parametrize("when", ["before the file", "before the manifest", "in the manifest"])
def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str):
    store = filled(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with store.writing():
        if when == "before the file":
            monkeypatch.setattr(memory_map, "write", full)
        elif when == "before the manifest":
            monkeypatch.setattr(store, "_write_manifest", full)
        else:
            monkeypatch.setattr(files.os, "replace", full)
        with pytest.raises(DataError) as caught:
            store.append("8x8", ["z"], rows(9))
    monkeypatch.undo()
    assert str(caught.value) == (
        f"error: the store `{store.path}` cannot be written\n"
        "  because [Errno 28] No space left on device\n\n"
        "hint: make room, or set data.cache elsewhere"
    )
    for seen in (store, EncodedCache(tmp_path, "latents", KEY)):
        assert seen.missing("8x8", ["a", "b", "z"]) == ["z"] and not seen.problems
    with store.writing():
        store.append("8x8", ["z"], rows(9))
    assert EncodedCache(tmp_path, "latents", KEY).missing("8x8", ["a", "b", "z"]) == []


# --- damage ------------------------------------------------------------------------------------------------------------


def test_a_missing_or_short_shard_is_dropped_and_said(tmp_path: Path):
    store = filled(tmp_path)
    short, gone = (store.path / shard.file for shard in store.shards)
    short.write_bytes(short.read_bytes()[:-1])
    gone.unlink()
    again = EncodedCache(tmp_path, "latents", KEY)
    size = store.shards[0].bytes
    assert again.problems == [
        f"`{short}` is not used: it has {size - 1} bytes and not {size}; its 2 items are made again",
        f"`{gone}` is not used: it is not there; its 1 items are made again",
    ]
    assert len(again) == 0 and again.missing("8x8", ["a"]) == ["a"]
    with again.writing():
        assert not short.exists()
        again.append("8x8", ["a", "b"], rows(1, 2))
    assert len(again.problems) == 2  # still to be said by who opened it
    assert EncodedCache(tmp_path, "latents", KEY).problems == [] and len(EncodedCache(tmp_path, "latents", KEY)) == 2


def test_a_header_that_lies_is_found_when_it_is_opened(tmp_path: Path):
    store = filled(tmp_path)
    path = store.path / store.shards[0].file
    content = path.read_bytes()
    path.write_bytes(content[:8] + b"[" + content[9:])
    assert len(EncodedCache(tmp_path, "latents", KEY)) == 1


def test_a_shard_that_changes_while_it_is_in_use(tmp_path: Path):
    store = filled(tmp_path)
    path = store.path / store.shards[1].file
    path.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        store.get((1, 0))
    assert str(caught.value) == (
        f"error: `{path}` cannot be read any more\n"
        "  because its size has changed\n\n"
        "hint: start again: what is missing is made again"
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m | {"format": 2}, "it is of another store"),
        (lambda m: m | {"key": {}}, "it is of another store"),
        (lambda m: {k: v for k, v in m.items() if k != "shards"}, "'shards'"),
        (lambda m: m | {"shards": [m["shards"][0] | {"file": "../x"}]}, "a shard's `file` is '../x'"),
        (lambda m: m | {"shards": [m["shards"][0] | {"bytes": True}]}, "a shard's `bytes` is True"),
    ],
)
def test_a_manifest_that_was_changed(tmp_path: Path, change, reason: str):
    store = filled(tmp_path)
    path = store.path / "manifest.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    again = EncodedCache(tmp_path, "latents", KEY)
    assert again.problems == [f"`{path}` is not used: {reason}; what it lists is made again"]
    assert len(again) == 0
    with again.writing():
        assert [p.name for p in again.path.iterdir() if p.suffix == ".safetensors"] == []
    assert EncodedCache(tmp_path, "latents", KEY).problems == []


def test_a_number_of_items_that_is_not_right(tmp_path: Path):
    store = filled(tmp_path)
    path = store.path / "manifest.json"
    path.write_text(path.read_text().replace('"num_items": 2', '"num_items": 1'))
    assert EncodedCache(tmp_path, "latents", KEY).problems == [
        f"`{store.path / store.shards[0].file}` is not used: its ids are (2, 16) for 1 items; its 1 items are made again"
    ]


# --- two writers -------------------------------------------------------------------------------------------------------


def test_a_second_writer_is_refused_and_a_later_one_sees_what_was_written(tmp_path: Path):
    store, other = filled(tmp_path), EncodedCache(tmp_path, "latents", KEY)
    with store.writing():
        with pytest.raises(DataError) as caught, other.writing():
            pass
        store.append("8x8", ["z"], rows(9))
    assert str(caught.value) == (
        f"error: the store `{store.path}` cannot be written\n"
        f"  because process {os.getpid()} is writing it\n\n"
        "hint: wait for it, then go on"
    )
    assert other.missing("8x8", ["z"]) == ["z"]
    with other.writing():
        assert other.missing("8x8", ["z"]) == []
