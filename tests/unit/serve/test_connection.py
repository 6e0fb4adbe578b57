"""Slow senders and slow readers are let go, and nobody waits for them."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from sampan.serve import connection
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


def test_a_refused_body_is_still_taken_at_a_fair_rate(start: Callable[..., Any]):
    running = start()
    with connected(running.port) as client:
        client.sendall(HEAD.replace(b"localhost", b"elsewhere") + b"\r\n")
        for _ in range(20):
            client.sendall(b"a" * 10_000)
            time.sleep(0.06)
        assert b"403 Forbidden" in client.recv(4000)
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in client.recv(4000)


def test_whatever_asyncio_tells_uvicorns_protocol_is_passed_on():
    """Fails when a release of uvicorn listens to more of asyncio than the guard passes on, or takes it otherwise."""
    guard = guarded(0.7, 30.0, lambda why: None)
    told = {name for name in dir(asyncio.Protocol) if not name.startswith("_")}
    listened = {name for name in told if getattr(H11Protocol, name) is not getattr(asyncio.Protocol, name)}
    assert listened == {name for name in told if name in vars(guard)}
    assert not issubclass(H11Protocol, asyncio.BufferedProtocol)
    assert uvicorn.Config(lambda: None, http=guard).http is guard
