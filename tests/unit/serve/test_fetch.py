"""Addresses in requests: public machines alone, resolved once, redirections too."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from sampan.errors import ApiError
from sampan.serve.fetch import fetch, is_public

PRIVATE = [
    "127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0",
    "fc00::1", "fd12::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::",
    "2001:db8::1", "2001:0:4136:e378:8000:63bf:f5ff:fffe", "not an address", "",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_known(address: str):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "1.1.1.1", "2606:4700:4700::1111", "::ffff:1.1.1.1"])
def test_public_ones_too(address: str):
    assert is_public(address)


class Web:
    """Machines behind public addresses, all of them one listener of loopback."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.answers: dict[bytes, bytes] = {}
        self.pause_s = 0.0
        self.names = {"pictures.example": ["93.184.216.34"], "other.example": ["93.184.216.35"]}
        self.asked: list[str] = []
        self.connected: list[tuple[str, int]] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def resolve(self, name: str, port: int) -> list[str]:
        self.asked.append(name)
        return self.names.get(name, [name])

    def connect(self, address: str, port: int, timeout_s: float) -> socket.socket:
        self.connected.append((address, port))
        return socket.create_connection(self.listener.getsockname(), timeout=timeout_s)

    def fetch(self, url: str, **changes: float) -> bytes:
        settings = {"max_bytes": 1000, "timeout_s": 2.0, **changes}
        return fetch(url, resolve=self.resolve, connect=self.connect, **settings)  # type: ignore[arg-type]

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with client:
                head = client.recv(4096)
                answer = self.answers.get(head.split(b" ")[1], b"HTTP/1.1 404 no\r\nContent-Length: 0\r\n\r\n")
                try:
                    for start in range(0, len(answer), 400):
                        client.sendall(answer[start : start + 400])
                        time.sleep(self.pause_s)
                except OSError:
                    pass


@pytest.fixture
def web() -> Iterator[Web]:
    found = Web()
    yield found
    found.listener.close()


def ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def to(url: str) -> bytes:
    return b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: %s\r\n\r\n" % url.encode()


def refused(call: Callable[[], bytes]) -> str:
    with pytest.raises(ApiError) as caught:
        call()
    assert caught.value.status == 400 and caught.value.code == "address_not_fetched"
    return caught.value.message.removeprefix("The address of a reference ")


def test_a_public_picture_is_fetched_from_the_address_that_was_checked(web: Web):
    web.answers[b"/a.png?b=1"] = ok(b"picture")
    assert web.fetch("http://pictures.example/a.png?b=1") == b"picture"
    assert web.asked == ["pictures.example"]  # once: a name that answers differently later gains nothing
    assert web.connected == [("93.184.216.34", 80)]


@pytest.mark.parametrize(
    "name", ["localhost", "127.0.0.1", "[::1]", "169.254.169.254", "0x7f.1", "2130706433", "internal"]
)
def test_private_names_are_refused_before_anything_is_connected(web: Web, name: str):
    system = {
        "localhost": ["127.0.0.1"],
        "0x7f.1": ["127.0.0.1"],
        "2130706433": ["127.0.0.1"],
        "internal": ["10.1.2.3"],
    }
    web.names |= system
    assert refused(lambda: web.fetch(f"http://{name}/")) == "is not that of a public machine."
    assert web.connected == []


def test_one_private_address_among_public_ones_is_enough(web: Web):
    web.names["mixed.example"] = ["93.184.216.34", "127.0.0.1"]
    assert refused(lambda: web.fetch("http://mixed.example/")) == "is not that of a public machine."


def test_redirections_are_checked_as_well(web: Web):
    web.names["internal"] = ["10.0.0.1"]
    web.answers[b"/1"] = to("http://other.example/2")
    web.answers[b"/2"] = ok(b"there")
    assert web.fetch("http://pictures.example/1") == b"there"
    for target in ("http://127.0.0.1/", "http://internal/", "http://[::1]/", "//169.254.169.254/latest"):
        web.answers[b"/1"] = to(target)
        assert refused(lambda: web.fetch("http://pictures.example/1")) == "is not that of a public machine."
    web.answers[b"/1"] = to("file:///etc/passwd")
    assert refused(lambda: web.fetch("http://pictures.example/1")) == "is not an http or https address."
    web.answers[b"/1"] = to("/1")
    assert refused(lambda: web.fetch("http://pictures.example/1")) == "redirects more than 3 times."


def test_too_much_and_too_slow_are_given_up(web: Web):
    web.answers[b"/big"] = ok(b"x" * 2000)
    assert refused(lambda: web.fetch("http://pictures.example/big")) == "gives more than 1000 bytes."
    web.pause_s = 0.3
    web.answers[b"/slow"] = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 4000
    began = time.perf_counter()
    assert (
        refused(lambda: web.fetch("http://pictures.example/slow", max_bytes=10_000, timeout_s=0.5)) == "takes too long."
    )
    assert time.perf_counter() - began < 1.5


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://pictures.example/", "is not an http or https address."),
        ("http:///x", "is not an http or https address."),
        ("http://user:word@pictures.example/", "has a user name."),
        ("http://pictures.example:22/", "names port 22, and only 80 and 443 are asked."),
        ("http://pictures.example/\r\nHost: x", "has a space or a control character."),
        ("http://pictures.example:99999/", "cannot be reached, or does not speak HTTP."),
        ("http://" + "a" * 3000, "is too long."),
        ("http://pictures.example/nothing", "answers with status 404."),
    ],
)
def test_addresses_that_are_none(web: Web, url: str, why: str):
    assert refused(lambda: web.fetch(url)) == why
