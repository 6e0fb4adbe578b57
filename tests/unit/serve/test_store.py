"""Pictures and keys on the disk: what is finished stays, and what is one owner's is nobody else's."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from sampan.errors import DataError, RequestError
from sampan.serve import keys
from sampan.serve.clock import SteadyClock
from sampan.serve.settings import Retention
from sampan.serve.store import ImageRecord, ImageStore, new_id


def record(owner: str = "alice", **changes: object) -> ImageRecord:
    whole = ImageRecord(
        new_id(), owner, int(time.time()), "generation", "a boat", "64x64", 3, 2, 1.5, "tiny", (), "png"
    )
    return dataclasses.replace(whole, **changes)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "data")


def kept(store: ImageStore, one: ImageRecord, content: bytes = b"picture") -> ImageRecord:
    store.begin([one])
    store.finish(one, content)
    return one


def test_a_finished_picture_is_its_owners_alone(store: ImageStore):
    one = kept(store, record(reference_ids=(new_id(),)))
    assert store.record("alice", one.id) == one and store.content(one) == b"picture"
    assert store.record("bob", one.id) is None
    assert store.history("bob", 10, None) == ([], False)
    assert store.history("bob", 10, one.id) == ([], False)


def test_what_is_not_finished_is_not_there(store: ImageStore):
    one = record()
    store.begin([one])
    assert store.record("alice", one.id) is None and store.history("alice", 10, None) == ([], False)


def test_history_goes_page_by_page_from_the_newest(store: ImageStore):
    made = [kept(store, record()) for _ in range(5)]
    first, more = store.history("alice", 2, None)
    second, more_yet = store.history("alice", 2, first[-1].id)
    last, no_more = store.history("alice", 2, second[-1].id)
    assert [r.id for r in (*first, *second, *last)] == [r.id for r in reversed(made)]
    assert (more, more_yet, no_more) == (True, True, False)


@pytest.mark.parametrize(
    "picture_id", ["../../etc/passwd", "img_../../../../../../x", "", "img_" + "g" * 24, "img_" + "A" * 24]
)
def test_a_name_that_is_no_id_finds_nothing(store: ImageStore, picture_id: str):
    assert store.record("alice", picture_id) is None
    assert store.owner_of(picture_id) is None


def test_after_a_kill_what_was_written_is_finished_and_the_rest_is_interrupted(tmp_path: Path, store: ImageStore):
    written, lost, done = record(), record(), kept(store, record())
    store.begin([written, lost])
    path = store._path(written.id, "png")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"whole")  # killed between the file and the row
    half = store._path(lost.id, "png").with_name(f".{lost.id}.png.1.tmp")
    half.parent.mkdir(exist_ok=True)
    half.write_bytes(b"ha")
    again = ImageStore(tmp_path / "data")
    assert again.recover() == {"found": 1, "interrupted": 1}
    assert {r.id for r in again.history("alice", 10, None)[0]} == {written.id, done.id}
    assert not half.exists() and again.content(written) == b"whole"


def test_how_others_end_is_noted_and_a_finished_one_stays_finished(store: ImageStore):
    done, gone = kept(store, record()), record()
    store.begin([gone])
    store.end([done.id, gone.id], "cancelled")
    assert store.record("alice", done.id) is not None
    assert store.database.all("SELECT state FROM pictures WHERE id = ?", (gone.id,)) == [("cancelled",)]


def test_retention_removes_the_oldest(tmp_path: Path):
    store = ImageStore(tmp_path / "few", Retention(pictures=2))
    made = [kept(store, record()) for _ in range(4)]
    assert store.sweep() == 2
    assert [r.id for r in store.history("alice", 10, None)[0]] == [made[3].id, made[2].id]
    assert store.content(made[0]) is None
    store = ImageStore(tmp_path / "small", Retention(num_bytes=25))
    made = [kept(store, record(), b"x" * 10) for _ in range(4)]
    assert store.sweep() == 2 and store.content(made[1]) is None and store.content(made[2]) is not None
    seconds = [0.0]
    store = ImageStore(tmp_path / "young", Retention(days=1), SteadyClock(elapsed=lambda: seconds[0]))
    old = kept(store, record())
    seconds[0] = 90_000.0
    new = kept(store, record())
    assert store.sweep() == 1 and store.content(old) is None and store.content(new) is not None


def test_a_removed_picture_leaves_nothing(store: ImageStore):
    one = kept(store, record())
    store.remove(one)
    assert store.record("alice", one.id) is None and store.content(one) is None
    assert [path for path in (store.folder / "pictures").rglob("*") if path.is_file()] == []


def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot keep pictures"):
        ImageStore(tmp_path / "file")


def test_keys_are_kept_as_hashes_only(tmp_path: Path, store: ImageStore):
    said: list[str] = []
    keys.change(tmp_path / "data", add="alice", remove=None, put=said.append)
    keys.change(tmp_path / "data", add="bob", remove=None, put=said.append)
    assert all(key.startswith("sk-sampan-") and len(key) > 50 for key in said)
    for path in (tmp_path / "data").iterdir():
        assert path.is_dir() or not any(key.encode() in path.read_bytes() for key in said)
    names = [keys.owner(store, f"Bearer {key}") for key in said]
    assert [name.split(":")[1] for name in names if name] == ["alice", "bob"]
    assert [keys.owner(store, header) for header in (None, "", "Bearer ", f"Basic {said[0]}", "Bearer x", said[0])] == [
        None
    ] * 6
    with pytest.raises(RequestError, match="a key `alice` already"):
        keys.change(tmp_path / "data", add="alice", remove=None, put=said.append)
    keys.change(tmp_path / "data", add=None, remove="alice", put=said.append)
    assert keys.owner(store, f"Bearer {said[0]}") is None
    with pytest.raises(RequestError, match="no key `alice`"):
        keys.change(tmp_path / "data", add=None, remove="alice", put=said.append)
    with pytest.raises(RequestError, match="no name for a key"):
        keys.change(tmp_path / "data", add="../x", remove=None, put=said.append)


def test_signed_addresses_are_of_one_picture_and_end(store: ImageStore):
    secret, now = store.secret(), 1_800_000_000.5
    assert secret == store.secret() and len(secret) == 32
    one, other = new_id(), new_id()
    query = dict(part.split("=") for part in keys.sign(secret, one, now).split("&"))
    until, signature = query["until"], query["signature"]
    assert until == "1800003600" and keys.is_signed(secret, one, until, signature, now)
    assert not keys.is_signed(secret, other, until, signature, now)
    assert not keys.is_signed(secret, one, str(int(until) + 1), signature, now)
    assert not keys.is_signed(b"other", one, until, signature, now)
    assert not any(keys.is_signed(secret, one, bad, signature, now) for bad in (None, "", "x", "²", "9" * 400))
    assert keys.is_signed(secret, one, until, signature, now + 3599)
    assert not keys.is_signed(secret, one, until, signature, now + 3601)
    assert not keys.is_signed(secret, one, until, signature, now - 10 * 365 * 86400)  # a link of some other time
