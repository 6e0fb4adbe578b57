"""A request whose body has no end."""

from __future__ import annotations

import socket
import time


def send_without_end(
    client: socket.socket, line: bytes, headers: bytes = b"", *, most_s: float
) -> tuple[bytes, int, float]:
    """Send chunks until the server ends the connection.

    Args:
        line: Method and path.
        most_s: When to give up.

    Returns:
        What it answered, the bytes that were sent of the body, and the seconds until the end.
    """
    client.sendall(line + b" HTTP/1.1\r\nHost: localhost\r\n" + headers + b"Transfer-Encoding: chunked\r\n\r\n")
    client.settimeout(0.02)
    answer, sent, began = b"", 0, time.perf_counter()
    while time.perf_counter() - began < most_s:
        try:
            client.sendall(b"2000\r\n" + b"a" * 0x2000 + b"\r\n")
            sent += 0x2000
            if not (received := client.recv(65_536)):
                break
            answer += received
        except TimeoutError:
            continue
        except ConnectionError:
            break
    return answer, sent, time.perf_counter() - began
