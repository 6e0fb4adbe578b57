"""Once a store had a key, its server is closed to whoever has none, however the keys went away."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sampan.errors import RequestError, StoreError
from sampan.serve import keys
from sampan.serve.settings import Settings
from sampan.serve.store import ImageStore
from sampan.serve.verb import _check_keys
from unit.serve.test_store import kept, record

Start = Callable[..., Any]
ROUTES = (
    ("POST", "/v1/images/generations"),
    ("POST", "/v1/images/edits"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/tiny"),
    ("GET", "/v1/history"),
    ("GET", "/v1/images/img_000000000000000000000000"),
    ("DELETE", "/v1/images/img_000000000000000000000000"),
)


def add(data: Path, name: str = "alice") -> str:
    said: list[str] = []
    keys.change(data, add=name, remove=None, put=said.append)
    return said[0]


def run_sql(data: Path, sql: str) -> None:
    with closing(sqlite3.connect(data / "serve.sqlite", isolation_level=None)) as other:
        other.execute(sql)


HOW = {
    "removed": lambda data: keys.change(data, add=None, remove="alice", put=lambda _: None),
    "emptied by hand": lambda data: run_sql(data, "DELETE FROM keys"),
    "their table dropped": lambda data: run_sql(data, "DROP TABLE keys"),
    "the database moved away": lambda data: [path.unlink() for path in data.glob("serve.sqlite*")],
}


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
def test_without_the_last_key_the_next_start_is_closed(start: Start, tmp_path: Path, how: Callable[[Path], Any]):
    data = tmp_path / "data"
    key = add(data)
    how(data)
    running = start()
    for headers in ({}, {"authorization": f"Bearer {key}"}):
        for method, path in ROUTES:
            answer = running.client.request(method, path, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key"), path
    assert running.client.get("/v1/capabilities").json()["needs_key"] is True
    # a new key opens it, at once
    again = add(data, "bob")
    assert running.client.get("/v1/models", headers={"authorization": f"Bearer {again}"}).status_code == 200


def test_removed_while_it_runs_the_last_key_leaves_it_closed(start: Start, tmp_path: Path):
    key = add(tmp_path / "data")
    running = start()
    header = {"authorization": f"Bearer {key}"}
    assert running.client.get("/v1/models", headers=header).status_code == 200
    keys.change(tmp_path / "data", add=None, remove="alice", put=lambda _: None)
    assert running.client.get("/v1/models", headers=header).status_code == 401
    assert running.client.get("/v1/models").status_code == 401


def test_open_says_otherwise_until_there_is_a_key_again(start: Start, tmp_path: Path):
    data = tmp_path / "data"
    add(data)
    keys.change(data, add=None, remove="alice", put=lambda _: None)
    running = start(open_to_all=True)
    assert running.client.get("/v1/models").status_code == 200
    add(data)
    assert running.client.get("/v1/models").status_code == 401


def test_a_store_that_never_had_a_key_is_open_on_loopback(start: Start):
    assert start().client.get("/v1/models").status_code == 200


def test_a_store_of_an_earlier_version_whose_pictures_have_keys_is_closed(tmp_path: Path):
    data = tmp_path / "data"
    add(data)
    store = ImageStore(data)
    (data / "keys-were-used").unlink()  # which that version did not make
    store.close()
    assert ImageStore(data).is_closed
    (data / "keys-were-used").unlink()
    store = ImageStore(data)
    kept(store, record(owner="key:alice:1"))
    run_sql(data, "DELETE FROM keys")
    store.close()
    (data / "keys-were-used").unlink()
    assert ImageStore(data).is_closed


def test_keys_that_cannot_be_read_open_nothing(start: Start, tmp_path: Path):
    add(tmp_path / "data")
    running = start()

    def unreadable(*_: Any) -> Any:
        raise StoreError("it cannot be used", "failed", "disk I/O error")

    running.server.store.known_keys = unreadable
    for method, path in ROUTES:
        answer = running.client.request(method, path, headers={"authorization": "Bearer x"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_failed"), path


def test_a_picture_of_another_key_is_not_there_on_any_route(start: Start, tmp_path: Path):
    alice, bob = ({"authorization": f"Bearer {add(tmp_path / 'data', name)}"} for name in ("alice", "bob"))
    running = start()
    running.client.headers.update(alice)
    made = running.paint().json()["data"][0]["id"]
    asked = [
        running.client.get(f"/v1/images/{made}", headers=bob),
        running.client.get(f"/v1/images/{made}?until=9999999999&signature={'0' * 64}", headers=bob),
        running.client.delete(f"/v1/images/{made}", headers=bob),
        running.client.post("/v1/images/edits", data={"prompt": "x", "reference_ids": made}, files={}, headers=bob),
    ]
    assert [answer.status_code for answer in asked] == [404] * 4
    assert {answer.json()["error"]["code"] for answer in asked} == {"picture_not_found"}
    assert running.client.get("/v1/history", headers=bob).json() == {"data": [], "has_more": False}
    assert running.client.get(f"/v1/history?before={made}", headers=bob).json()["data"] == []
    assert running.client.get(f"/v1/images/{made}", headers=alice).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_others_are_let_in_with_a_key_or_open_alone(tmp_path: Path, host: str):
    said: list[str] = []
    store = ImageStore(tmp_path / "data")

    class Console:
        def print(self, text: str, **_: Any) -> None:
            said.append(text)

    closed = Settings(host, 0, tmp_path / "data", "tiny")
    with pytest.raises(RequestError, match="there is no key"):
        _check_keys(store, closed, Console())
    _check_keys(store, Settings(host, 0, tmp_path / "data", "tiny", open_to_all=True), Console())
    store.add_key("alice", "digest")
    _check_keys(store, closed, Console())
    store.remove_key("alice")
    with pytest.raises(RequestError, match="there is no key"):
        _check_keys(store, closed, Console())
    assert said == []
    _check_keys(store, Settings("127.0.0.1", 0, tmp_path / "data", "tiny"), Console())
    assert said == ["there were keys and none is left: every request is refused, until --add-key NAME or with --open"]
