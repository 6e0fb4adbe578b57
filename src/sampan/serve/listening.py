"""The sockets of a server: bound and listening before anything is loaded, so that a port that is taken is said at once."""

from __future__ import annotations

import errno
import socket
import sys
from contextlib import ExitStack, suppress

from sampan.errors import RequestError

BACKLOG = 1024
_FILES = 65_536
_FREE = "pass --port 0 for one that is free"
_HINTS = {
    errno.EADDRINUSE: ("another program listens there", f"end it, or pass another --port; {_FREE}"),
    errno.EACCES: (
        "only the system's administrator may listen below some port, often 1024",
        f"pass --port 8000, or another from 1024 on; {_FREE}",
    ),
    errno.EADDRNOTAVAIL: (
        "this machine has no such address",
        "pass --host 127.0.0.1 for this machine alone, 0.0.0.0 or :: for every address it has",
    ),
    errno.EAFNOSUPPORT: ("this machine does not speak this kind of address", "pass --host 127.0.0.1 or 0.0.0.0"),
}


def listen(host: str, port: int) -> list[socket.socket]:
    """Return sockets that listen on every address of a host name, all on one port.

    Args:
        host: A name, an IPv4 address, or an IPv6 address without brackets.
        port: 0 is one that is free.

    Raises:
        RequestError: There is no such host, or it cannot be listened on.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        hint = "pass --host 127.0.0.1 for this machine alone, 0.0.0.0 for every address it has"
        if host.startswith("["):
            hint = f"an IPv6 address stands without brackets: pass --host {host.strip('[]')}"
        why = f"no address belongs to this name: {error}"
        raise RequestError(f"cannot listen on `{host}`", why, hint) from error
    places = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    failed: OSError | None = None
    with ExitStack() as undo:
        bound: list[socket.socket] = []
        for family, address in places:
            try:
                # named as TCP, or asyncio leaves Nagle's algorithm on, and each answer waits 40 ms for its second part
                one = undo.enter_context(socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP))
                _bind(one, (address[0], port, *address[2:]), alone=len(places) > 1)
                port = one.getsockname()[1]
                bound.append(one)
            except OSError as error:
                failed = error
                # a name such as localhost often has an IPv6 address on machines that have no IPv6
                if len(places) == 1 or error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    break
        else:
            if bound:
                undo.pop_all()
                return bound
    assert failed is not None, "a host without an address was refused above"
    why, hint = _HINTS.get(failed.errno or 0, ("the system refuses it", _FREE))
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    raise RequestError(f"cannot listen on {where}", f"{why} ({failed.strerror or failed})", hint) from failed


def _bind(one: socket.socket, address: tuple[object, ...], alone: bool) -> None:
    if sys.platform != "win32":  # where it would let two programs listen on one port
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if alone and one.family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a socket of its own
    one.bind(address)  # type: ignore[arg-type]
    one.listen(BACKLOG)  # bound alone would not keep another program from the port


def allow_many_connections() -> None:
    """Raise the number of files this process may have open as far as the system lets it: each connection is one."""
    try:
        import resource
    except ImportError:  # Windows has no such bound
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # some systems have a lower bound than they say
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
