"""Slow senders and slow readers are let go, and nobody waits for them."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from endless import send_without_end
from sampan.serve import connection, keys, middleware
from sampan.serve.connection import guarded

HEAD = (
    b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nContent-Length: 200000\r\n"
)


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with closing(socket.create_connection(("127.0.0.1", port), timeout=5)) as client:
        yield client


def dropped_after(client: socket.socket, send: bytes = b"", every_s: float = 0.1) -> float:
    """Return when the server closed a connection on which little by little is sent."""
    began = time.perf_counter()
    client.settimeout(every_s)
    while time.perf_counter() - began < 5:
        try:
            if send:
                client.sendall(send)
            if client.recv(1000) == b"":
                break
        except TimeoutError:
            continue
        except ConnectionError:
            break
    return time.perf_counter() - began


@pytest.mark.parametrize("first", [b"", b"GET / HTT", HEAD[:-2], HEAD])
def test_a_head_that_does_not_come_ends_the_connection_within_a_second(running: Any, first: bytes):
    with connected(running.port) as client:
        client.sendall(first)
        assert dropped_after(client) <= 1.0
    dropped = running.server.metrics.dropped.labels("head")
    assert dropped._value.get() == 1


@pytest.mark.parametrize("kind", ["generations", "edits"])
def test_a_body_that_trickles_ends_the_connection_within_a_second(running: Any, kind: str, caplog: Any):
    head = HEAD + b"\r\n"
    if kind == "edits":
        head = head.replace(b"generations", b"edits") + b"--x\r\nName: "
        head = head.replace(b"application/json", b"multipart/form-data; boundary=x")
    with connected(running.port) as client:
        client.sendall(head)
        assert dropped_after(client, b"a") <= 1.1
    assert running.server.metrics.dropped.labels("body")._value.get() == 1
    # counted as a client that left, and not as a failure of the server
    until, counted = time.monotonic() + 5, ""
    while f'/{kind}",status=' not in counted and time.monotonic() < until:
        counted = running.client.get("/metrics").text
    assert f'/{kind}",status="499"}} 1.0' in counted and 'status="500"' not in counted
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_body_at_a_fair_rate_is_waited_for(running: Any):
    with connected(running.port) as client:
        client.sendall(HEAD + b"\r\n")
        for _ in range(20):
            client.sendall(b"a" * 10_000)
            time.sleep(0.1)  # two seconds in all
        assert b"400 Bad Request" in client.recv(4000)


def test_a_request_after_another_on_the_same_connection_is_watched_too(running: Any):
    with connected(running.port) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in client.recv(4000)
        client.sendall(HEAD[:30])
        assert dropped_after(client) <= 1.1


def test_an_answer_that_nobody_takes_is_given_up(start: Callable[..., Any]):
    running = start(send_s=0.3)
    with closing(socket.socket()) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        client.connect(("127.0.0.1", running.port))
        client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)  # none of which is read
        until = time.monotonic() + 10
        while not running.server.metrics.dropped.labels("reader")._value.get() and time.monotonic() < until:
            time.sleep(0.05)
    assert running.server.metrics.dropped.labels("reader")._value.get() == 1
    assert running.client.get("/health").status_code == 200


def test_who_waits_because_the_server_does_not_read_on_is_not_slow(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    """A second request comes right behind the first, and the server leaves its body where it is until the first is done."""
    monkeypatch.setattr(
        connection, "MIN_BODY_BYTES_PER_S", 4_000_000
    )  # more than comes before the server stops reading
    body = b'{"prompt": "a boat", "size": "64x64", "num_inference_steps": 200}'
    first = HEAD.replace(b"200000", b"%d" % len(body)) + b"\r\n" + body
    head = HEAD.replace(b"200000", b"3000000").replace(b"generations", b"edits")
    head = head.replace(b"application/json", b"multipart/form-data; boundary=x")
    second = head + b"\r\n--x\r\n" + b"a" * 2_999_995
    with connected(start(header_s=0.2).port) as client:
        client.settimeout(60)
        sending = threading.Thread(target=client.sendall, args=(first + second,))
        sending.start()
        answers = b""
        while answers.count(b"HTTP/1.1 ") < 2:
            received = client.recv(1_000_000)
            assert received, "let go before both were answered"
            answers += received
        sending.join()
    assert answers.startswith(b"HTTP/1.1 200") and b"HTTP/1.1 400" in answers


def test_a_refused_body_that_comes_at_a_fair_rate_is_taken_until_its_answer_is_read(start: Callable[..., Any]):
    running = start()
    with connected(running.port) as client:
        client.sendall(HEAD.replace(b"localhost", b"elsewhere") + b"\r\n")
        for _ in range(20):
            client.sendall(b"a" * 10_000)
            time.sleep(0.06)
        answer = b""
        while received := client.recv(4000):
            answer += received
    assert answer.startswith(b"HTTP/1.1 403 Forbidden") and b"connection: close" in answer.lower()
    assert b"unknown_host" in answer


def test_a_refused_body_that_is_there_leaves_the_connection_open(start: Callable[..., Any]):
    with connected(start().port) as client:
        for _ in range(2):
            client.sendall(HEAD.replace(b"localhost", b"elsewhere").replace(b"200000", b"10") + b"\r\n" + b"a" * 10)
            answer = b""
            while not answer.endswith(b"}}"):
                received = client.recv(4000)
                assert received, "let go"
                answer += received
            assert answer.startswith(b"HTTP/1.1 403 Forbidden")


def test_a_body_that_goes_on_as_something_else_behind_its_answer_ends_the_connection(running: Any, caplog: Any):
    with connected(running.port) as client:
        client.sendall(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        answer = b""
        while not answer.endswith(b"}}"):
            answer += client.recv(4000)
        assert answer.startswith(b"HTTP/1.1 404")
        client.sendall(b"no chunk\r\n")
        assert dropped_after(client) <= 1
    assert running.client.get("/health").status_code == 200
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


KEY = b"Authorization: Bearer wrong\r\n"
JSON = b"Content-Type: application/json\r\n"
FORM = b"Content-Type: multipart/form-data; boundary=x\r\n"


@pytest.mark.parametrize(
    ("line", "headers", "status"),
    [
        (b"GET /health", b"", 200),
        (b"GET /nothing", b"", 404),
        (b"DELETE /health", b"", 405),
        (b"PUT /v1/images/generations", b"", 405),
        (b"POST /nothing", JSON, 404),
        (b"GET /v1/models", KEY, 401),
        (b"POST /v1/images/generations", KEY + JSON, 401),
        (b"POST /v1/images/edits", KEY + FORM, 401),
        (b"DELETE /v1/images/img_000000000000000000000000", KEY, 401),
        (b"POST /v1/images/generations", JSON, 413),
        (b"POST /v1/images/edits", FORM, 400),
        (b"HEAD /health", b"", 405),
    ],
)
def test_a_chunked_body_without_an_end_is_not_read_for_ever(
    start: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: bytes,
    headers: bytes,
    status: int,
):
    """The answer comes while the client still sends, and the connection ends soon after it."""
    monkeypatch.setattr(
        middleware, "_BEFORE_S", 0.1
    )  # the times themselves are held in tests/e2e/test_serve_reliability.py
    monkeypatch.setattr(middleware, "_AFTER_S", 0.3)
    if headers.startswith(KEY):
        keys.change(tmp_path / "data", add="alice", remove=None, put=lambda _: None)
    with connected(start().port) as client:
        answer, sent, took_s = send_without_end(client, line, headers, most_s=20)
    assert answer.startswith(b"HTTP/1.1 %d " % status) and b"connection: close" in answer.lower()
    assert took_s < 3 and sent < 40 * 2**20


def test_whatever_asyncio_tells_uvicorns_protocol_is_passed_on():
    """Fails when a release of uvicorn listens to more of asyncio than the guard passes on, or takes it otherwise."""
    guard = guarded(0.7, 30.0, lambda why: None)
    told = {name for name in dir(asyncio.Protocol) if not name.startswith("_")}
    listened = {name for name in told if getattr(H11Protocol, name) is not getattr(asyncio.Protocol, name)}
    assert listened == {name for name in told if name in vars(guard)}
    assert not issubclass(H11Protocol, asyncio.BufferedProtocol)
    assert uvicorn.Config(lambda: None, http=guard).http is guard
