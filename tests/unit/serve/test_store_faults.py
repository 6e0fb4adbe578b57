"""A store that is locked, full, read-only, damaged or removed while a server runs: every request ends, with that reason."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from sampan.errors import DataError, StoreError
from sampan.serve import database, keys
from sampan.serve.store import ImageStore
from unit.serve.test_store import kept, record

Start = Callable[..., Any]
LONG = {"num_inference_steps": 60}


def refused(answer: Any, status: int, code: str) -> str:
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    return answer.json()["error"]["message"]


def wait_until_painting(running: Any) -> None:
    until = time.monotonic() + 30
    while not running.server.engine.num_under_way and time.monotonic() < until:
        time.sleep(0.005)


def nothing_is_left(running: Any) -> None:
    until = time.monotonic() + 5
    while running.server.scheduler.num_under_way and time.monotonic() < until:
        time.sleep(0.01)
    assert running.server.scheduler.num_under_way == 0
    assert running.client.get("/health").status_code == 200


@contextmanager
def locked(data: Path) -> Iterator[None]:
    """Hold a store's database as another program would."""
    with closing(sqlite3.connect(data / "serve.sqlite", isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Mount something on a folder, where this user may."""
    folder.mkdir(parents=True, exist_ok=True)
    if sys.platform != "linux" or not shutil.which("mount"):
        pytest.skip("needs Linux's mount")
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this user may not mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Take every byte that is free."""
    handle = os.open(folder / "filler", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    size = 65_536
    while size:
        try:
            os.write(handle, b"x" * size)
        except OSError:
            size //= 2
    os.close(handle)


# ----------------------------------------------------------------------------------------------------------------- locked


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "WAIT_S", 0.4)


@pytest.mark.usefixtures("impatient")
def test_a_locked_store_is_said_and_reading_goes_on(start: Start, tmp_path: Path):
    running = start()
    made = running.paint().json()["data"][0]["id"]
    with locked(tmp_path / "data"):
        began = time.monotonic()
        answer = running.paint()
        assert "another program holds its database" in refused(answer, 503, "storage_locked")
        assert answer.headers["retry-after"] == "5" and time.monotonic() - began < 3
        assert [one["id"] for one in running.client.get("/v1/history").json()["data"]] == [made]
        assert running.client.get(f"/v1/images/{made}").status_code == 200
        nothing_is_left(running)
    assert running.paint().status_code == 200


@pytest.mark.usefixtures("impatient")
def test_a_store_that_is_locked_while_pictures_are_painted_ends_them_all(start: Start, tmp_path: Path):
    running = start()
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(running.paint(**LONG))) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_until_painting(running)
    with locked(tmp_path / "data"):
        for thread in threads:
            thread.join(30)
        assert len(answers) == 3
        for answer in answers:
            refused(answer, 503, "storage_locked")
        streamed = running.paint(stream=True)  # before its first byte, so that the status says it
        refused(streamed, 503, "storage_locked")
    nothing_is_left(running)
    assert not [path for path in (tmp_path / "data" / "pictures").rglob("*") if path.is_file()]


@pytest.mark.usefixtures("impatient")
def test_how_a_picture_failed_is_answered_before_the_store_is_told(start: Start, tmp_path: Path):
    running = start()
    noted = running.server.store.end
    begun = threading.Event()

    def end(*values: Any) -> None:
        begun.set()
        noted(*values)

    running.server.store.end = end
    joined = running.server.engine.writer.join
    with closing(
        sqlite3.connect(tmp_path / "data" / "serve.sqlite", isolation_level=None, check_same_thread=False)
    ) as db:

        def join(rows: Any) -> None:
            db.execute("BEGIN IMMEDIATE")  # from here on the store is held
            raise RuntimeError("the device gave up")

        running.server.engine.writer.join = join
        began = time.monotonic()
        answer = running.paint()
        assert answer.status_code == 500 and time.monotonic() - began < 0.35  # less than the store is waited for
        assert begun.wait(5)
        running.server.engine.writer.join = joined
        db.execute("ROLLBACK")
    nothing_is_left(running)


def test_a_transaction_that_fails_leaves_none_behind(tmp_path: Path):
    store = ImageStore(tmp_path / "data")

    def fail() -> None:
        with store.database.writing() as connection:
            connection.execute("INSERT INTO facts VALUES ('a', 'b')")
            connection.execute("ROLLBACK")  # as SQLite does by itself on a full disk
            connection.execute("INSERT INTO nothing VALUES (1)")

    with pytest.raises(StoreError, match="cannot be used"):
        fail()
    with store.database.writing() as connection:
        connection.execute("INSERT INTO facts VALUES ('c', 'd')")
    assert store.database.all("SELECT name FROM facts WHERE name IN ('a', 'c')") == [("c",)]


# ------------------------------------------------------------------------------------------------------------------- full


def test_on_a_full_disk_pictures_are_refused_and_can_be_deleted_to_make_room(start: Start, tmp_path: Path):
    data = tmp_path / "data"
    with mounted(data, "-t", "tmpfs", "-o", "size=4m", "tmpfs"):
        running = start()
        made = [running.paint(seed=seed).json()["data"][0]["id"] for seed in range(3)]
        fill(data)
        assert shutil.disk_usage(data).free == 0
        assert "its disk is full: deleting pictures makes room" in refused(running.paint(), 507, "storage_full")
        refused(running.paint(stream=True), 507, "storage_full")
        assert running.client.delete(f"/v1/images/{made[0]}").json() == {
            "id": made[0], "object": "image", "deleted": True,
        }  # fmt: skip
        assert running.client.get(f"/v1/images/{made[0]}").status_code == 404
        assert [one["id"] for one in running.client.get("/v1/history").json()["data"]] == made[:0:-1]
        assert shutil.disk_usage(data).free > 0
        nothing_is_left(running)
        (data / "filler").unlink()
        assert running.paint().status_code == 200
        running.server.store.sweep()
        assert running.server.store._removed == set()


def test_a_disk_that_fills_while_a_picture_is_painted_is_said(start: Start, tmp_path: Path):
    data = tmp_path / "data"
    with mounted(data, "-t", "tmpfs", "-o", "size=4m", "tmpfs"):
        running = start()
        answers: list[Any] = []
        thread = threading.Thread(target=lambda: answers.append(running.paint(**LONG)))
        thread.start()
        wait_until_painting(running)
        fill(data)
        thread.join(30)
        refused(answers[0], 507, "storage_full")
        nothing_is_left(running)


def test_a_row_that_cannot_be_removed_now_is_removed_later_and_its_picture_is_gone_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(database, "WAIT_S", 0.1)
    store = ImageStore(tmp_path / "data")
    one, other = kept(store, record()), kept(store, record())
    with locked(tmp_path / "data"):
        store.remove(one)
        assert store.record("alice", one.id) is None and store.content(one) is None
        assert [r.id for r in store.history("alice", 10, None)[0]] == [other.id]
    # and so it is when the process ended in between
    again = ImageStore(tmp_path / "data")
    again.recover()
    assert [r.id for r in again.history("alice", 10, None)[0]] == [other.id]
    assert again.database.all("SELECT count(*) FROM pictures") == [(1,)]
    assert [path.stem for path in (tmp_path / "data" / "pictures").rglob("*") if path.is_file()] == [other.id]


# ----------------------------------------------------------------------------------------- read-only, damaged and removed


def test_a_disk_that_becomes_read_only_is_said(start: Start, tmp_path: Path):
    data = tmp_path / "data"
    running = start()
    made = running.paint().json()["data"][0]["id"]
    with mounted(data, "--bind", str(data)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(data)], check=True)
        assert "its disk cannot be written" in refused(running.paint(), 503, "storage_read_only")
        refused(running.client.delete(f"/v1/images/{made}"), 503, "storage_read_only")
        assert running.client.get(f"/v1/images/{made}").status_code == 200
        nothing_is_left(running)
    assert running.paint().status_code == 200


def test_a_store_that_is_removed_under_a_server_ends_requests_and_does_not_open_it(start: Start, tmp_path: Path):
    data = tmp_path / "data"
    key: list[str] = []
    keys.change(data, add="alice", remove=None, put=key.append)
    running = start()
    running.client.headers["authorization"] = f"Bearer {key[0]}"
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(running.paint(**LONG)))
    thread.start()
    wait_until_painting(running)
    shutil.rmtree(data)
    thread.join(30)
    assert "its folder was removed while it ran" in refused(answers[0], 503, "storage_gone")
    refused(running.paint(), 503, "storage_gone")
    refused(running.client.get("/v1/history"), 503, "storage_gone")
    nothing_is_left(running)


def test_a_database_that_is_damaged_under_a_server_is_said(start: Start, tmp_path: Path):
    path = tmp_path / "data" / "serve.sqlite"
    running = start()
    running.paint()
    with running.server.store.database.writing():
        pass
    running.server.store.database._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with open(path, "r+b") as file:
        file.write(os.urandom(path.stat().st_size))
    for connection in (running.server.store.database._writer, running.server.store.database._reader):
        connection.execute("PRAGMA shrink_memory")
    assert "its database is damaged" in refused(running.paint(), 503, "storage_damaged")
    refused(running.client.get("/v1/history"), 503, "storage_damaged")
    nothing_is_left(running)


# ---------------------------------------------------------------------------------------------------------------- a start


def damaged(path: Path) -> None:
    path.write_bytes(os.urandom(20_000))


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def torn(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4096] + os.urandom(len(content) - 4096))


@pytest.mark.parametrize(
    ("harm", "why"),
    [(damaged, "file is not a database"), (half, ""), (torn, ""), (lambda path: path.write_bytes(b""), "never is")],
    ids=["no database", "cut in half", "torn", "empty"],
)
def test_a_damaged_database_ends_the_start_in_words_and_is_left_as_it_is(
    tmp_path: Path, harm: Callable[[Path], None], why: str
):
    data = tmp_path / "data"
    keys.change(data, add="alice", remove=None, put=lambda _: None)
    path = data / "serve.sqlite"
    keys.change(data, add=None, remove="alice", put=lambda _: None)
    harm(path)
    before = path.read_bytes()
    with pytest.raises(StoreError) as caught:
        ImageStore(data)
    assert caught.value.what.startswith(f"`{path}` is ") and why in caught.value.because[-1]
    assert caught.value.kind == "damaged"
    assert caught.value.hint is not None and caught.value.hint.endswith("or pass another --data DIR")
    assert path.read_bytes() == before


def test_a_store_whose_making_was_killed_is_made(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "serve.sqlite").touch()
    assert ImageStore(tmp_path / "data").history("anybody", 10, None) == ([], False)


def test_a_folder_in_the_place_of_the_database_is_said(tmp_path: Path):
    (tmp_path / "data" / "serve.sqlite").mkdir(parents=True)
    with pytest.raises(DataError, match=r"serve\.sqlite` cannot be used"):
        ImageStore(tmp_path / "data")


def test_a_store_of_the_first_version_is_read(tmp_path: Path):
    store = ImageStore(tmp_path / "data")
    store.close()
    with closing(sqlite3.connect(tmp_path / "data" / "serve.sqlite", isolation_level=None)) as old:
        old.execute("ALTER TABLE pictures DROP COLUMN begun")
        old.execute(
            "INSERT INTO pictures VALUES (1, 'img_000000000000000000000000', 'anybody', 1700000000, 'finished', "
            "'generation', 'a boat', '64x64', 3, 2, 1.5, 'tiny', '[]', 'png', 7)"
        )
    again = ImageStore(tmp_path / "data")
    assert [one.created for one in again.history("anybody", 10, None)[0]] == [1700000000]
