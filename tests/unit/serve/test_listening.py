"""Where a server listens, and what is said when it cannot."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import textwrap
from contextlib import closing

import pytest

from sampan.errors import RequestError
from sampan.serve import listening
from sampan.serve.listening import listen


def refusal(host: str, port: int = 0) -> RequestError:
    with pytest.raises(RequestError) as caught:
        listen(host, port)
    return caught.value


def can_connect(host: str, port: int) -> bool:
    with closing(socket.create_connection((host, port), timeout=5)):
        return True


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "::1", "::"])
def test_it_listens_where_it_is_told_before_anything_accepts(host: str):
    if ":" in host and not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    sockets = listen(host, 0)
    ports = {one.getsockname()[1] for one in sockets}
    try:
        assert len(ports) == 1
        assert can_connect("::1" if ":" in host else "127.0.0.1", ports.pop())
    finally:
        for one in sockets:
            one.close()


def test_its_connections_send_at_once():
    """asyncio turns Nagle's algorithm off for sockets that say that they are TCP alone."""
    (one,) = listen("127.0.0.1", 0)
    with one:
        assert one.proto == socket.IPPROTO_TCP


def test_a_port_that_another_listens_on_is_said():
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        error = refusal("127.0.0.1", port)
        assert error.what == f"cannot listen on 127.0.0.1:{port}"
        assert error.because == ("another program listens there (Address already in use)",)
        assert error.hint == "end it, or pass another --port; pass --port 0 for one that is free"


def test_two_servers_never_have_one_port():
    first = listen("127.0.0.1", 0)
    try:
        assert "another program listens there" in refusal("127.0.0.1", first[0].getsockname()[1]).because[0]
    finally:
        first[0].close()


def test_a_name_that_is_none_is_said():
    assert "no address belongs to this name" in refusal("nosuch.invalid").because[0]
    assert "no address belongs to this name" in refusal("a" * 70 + ".invalid").because[0]
    assert refusal("[::1]").hint == "an IPv6 address stands without brackets: pass --host ::1"


def test_an_address_of_another_machine_is_said():
    error = refusal("192.0.2.1")
    assert error.because == ("this machine has no such address (Cannot assign requested address)",)
    assert error.hint is not None and error.hint.startswith("pass --host 127.0.0.1")


@pytest.mark.skipif(not hasattr(os, "setuid") or os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.process
def test_a_privileged_port_is_said():
    """As a user who may not: in a process that becomes one, in a place where the kernel still holds such ports back."""
    program = """
        import encodings.idna, os, socket, sys  # the first is looked for later, where it may not be read
        from sampan.errors import RequestError
        from sampan.serve.listening import listen
        os.setuid(65534)
        try:
            socket.socket().bind(("127.0.0.1", 81))
        except PermissionError:
            pass
        else:
            sys.exit(3)
        try:
            listen("127.0.0.1", 81)
        except RequestError as error:
            print(error.render())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip("here everybody may listen on every port")
    assert done.stdout.splitlines()[0] == "error: cannot listen on 127.0.0.1:81", done.stderr
    assert "only the system's administrator may listen below some port" in done.stdout
    assert "hint: pass --port 8000" in done.stdout


def test_a_kind_of_address_that_the_machine_does_not_speak_is_said(monkeypatch: pytest.MonkeyPatch):
    def none(*_: object) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr(listening.socket, "socket", none)
    assert "does not speak this kind of address" in refusal("::1").because[0]
