"""What is at an address that a request names: asked for only where that is allowed, and never of a private machine.

A name is resolved once, every address it has must be public, and the connection goes to the very address that was checked;
so a name that answers differently the second time gains nothing. Each redirection is checked the same way. No cookies, no
credentials, no proxy.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from urllib.parse import urljoin, urlsplit

from sampan.errors import ApiError

MAX_REDIRECTIONS = 3
MAX_ADDRESS_CHARS = 2048
_PORTS = {"http": 80, "https": 443}
_PIECE_BYTES = 65_536
# addresses that carry an IPv4 address inside: the one inside counts
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]
Connect = Callable[[str, int, float], socket.socket]


def fetch(
    url: str, *, max_bytes: int, timeout_s: float = 10.0, resolve: Resolve | None = None, connect: Connect | None = None
) -> bytes:
    """Return what is at an address.

    Args:
        timeout_s: For everything together, redirections too.
        resolve, connect: Of the system; for tests.

    Raises:
        ApiError: The address is not one that is fetched, or gives nothing that can be used.
    """
    until = time.monotonic() + timeout_s
    resolve, connect = resolve or _resolve, connect or _connect
    for _ in range(MAX_REDIRECTIONS + 1):
        try:
            with closing(_ask(url, resolve, connect, until)) as asked, asked.getresponse() as answer:
                if answer.status == 200:
                    return _body(answer, max_bytes, until)
                target = answer.getheader("Location")
                if answer.status not in (301, 302, 303, 307, 308) or not target:
                    raise _refusal(f"answers with status {answer.status}")
                url = urljoin(url, target)
        except TimeoutError as error:
            raise _refusal("takes too long") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _refusal("cannot be reached, or does not speak HTTP") from error
    raise _refusal(f"redirects more than {MAX_REDIRECTIONS} times")


def is_public(text: str) -> bool:
    """Say whether an IP address is one that anybody on the internet can be at."""
    try:
        address: Address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inside = address.ipv4_mapped or address.sixtofour
        if inside is None and address in _NAT64:
            inside = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inside is None and address.teredo is not None:
            inside = address.teredo[1]
        if inside is not None:
            return is_public(str(inside))
    return address.is_global and not address.is_multicast and not address.is_reserved


def _ask(url: str, resolve: Resolve, connect: Connect, until: float) -> http.client.HTTPConnection:
    """Return a connection on which an address was asked for."""
    if len(url) > MAX_ADDRESS_CHARS:
        raise _refusal("is too long")
    if any(ord(letter) <= 32 or ord(letter) == 127 for letter in url):
        raise _refusal("has a space or a control character")
    where = urlsplit(url)
    if where.scheme not in _PORTS or not where.hostname:
        raise _refusal("is not an http or https address")
    if where.username is not None or where.password is not None:
        raise _refusal("has a user name")
    port = where.port or _PORTS[where.scheme]
    if port not in _PORTS.values():
        raise _refusal(f"names port {port}, and only 80 and 443 are asked")
    addresses = resolve(where.hostname, port)
    if not addresses or not all(is_public(address) for address in addresses):
        raise _refusal("is not that of a public machine")
    asked = http.client.HTTPConnection(where.hostname, port)
    asked.sock = connect(addresses[0], port, _left(until))  # the address that was checked; the name is only said
    try:
        if where.scheme == "https":
            asked.sock = ssl.create_default_context().wrap_socket(asked.sock, server_hostname=where.hostname)
        target = (where.path or "/") + (f"?{where.query}" if where.query else "")
        asked.request("GET", target, headers={"Host": where.netloc, "Accept": "image/png, image/jpeg, image/webp"})
    except BaseException:
        asked.close()
        raise
    return asked


def _body(answer: http.client.HTTPResponse, max_bytes: int, until: float) -> bytes:
    pieces, total = [], 0
    while piece := answer.read1(_PIECE_BYTES):
        total += len(piece)
        if total > max_bytes:
            raise _refusal(f"gives more than {max_bytes} bytes")
        _left(until)
        pieces.append(piece)
    return b"".join(pieces)


def _left(until: float) -> float:
    """Return the seconds that are left."""
    left = until - time.monotonic()
    if left <= 0:
        raise _refusal("takes too long")
    return left


def _resolve(name: str, port: int) -> list[str]:
    return [str(answer[4][0]) for answer in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)]


def _connect(address: str, port: int, timeout_s: float) -> socket.socket:
    return socket.create_connection((address, port), timeout=min(timeout_s, 5.0))


def _refusal(what: str) -> ApiError:
    return ApiError(400, "address_not_fetched", f"The address of a reference {what}.", "image")
