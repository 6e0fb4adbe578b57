"""A connection that does not wait for ever: whoever sends or takes too slowly is let go.

uvicorn has no limit of time for a connection's first request, for the rest of a head or of a body, or for a client that
takes nothing of an answer; `timeout_keep_alive` is about the pause between two requests alone. So each connection's
uvicorn protocol gets what asyncio tells it through the protocol below, which follows the request with a parser of h11 of
its own. Of uvicorn it uses that `Config(http=…)` takes a class of asyncio's protocols and makes one a connection; of the
class that it wraps, nothing but asyncio's own methods.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MIN_BODY_BYTES_PER_S = 16_384
_HELD_UP_S = 0.1


def guarded(header_s: float, send_s: float, dropped: Callable[[str], None]) -> type[asyncio.Protocol]:
    """Return the class of a server's connections.

    Args:
        header_s: Time for the head of a request, and after which a body's rate is looked at.
        send_s: Time in which a client has to take something of what is sent.
        dropped: Called with the reason when a connection is let go.
    """

    class Connection(asyncio.Protocol):
        """One connection."""

        _transport: asyncio.Transport
        _awaited: str | None = None  # "head" or "body", of which the client has sent a part or nothing
        _since: float = 0.0
        _num_bytes: int = 0  # since then
        _watch: asyncio.TimerHandle | None = None
        _stuck: asyncio.TimerHandle | None = None

        def __init__(self, **values: Any):
            self._http = H11Protocol(**values)
            self._loop = asyncio.get_running_loop()
            self._parser = h11.Connection(h11.SERVER)

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport), "HTTP comes over a stream"
            self._transport = transport
            self._await("head")
            self._http.connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            for timer in (self._watch, self._stuck):
                if timer is not None:
                    timer.cancel()
            self._http.connection_lost(exc)

        def eof_received(self) -> None:
            self._http.eof_received()

        def data_received(self, data: bytes) -> None:
            self._parse(data)
            state = self._parser.their_state
            in_head = state is h11.IDLE and self._parser.trailing_data[0]
            self._await("head" if in_head else "body" if state is h11.SEND_BODY else None)
            self._num_bytes += len(data)
            try:
                self._http.data_received(data)
            except h11.LocalProtocolError:
                # the rest of a body is no HTTP, and uvicorn would say so in an answer of its own behind one that has begun
                self._drop("body")

        def _parse(self, data: bytes) -> None:
            """Follow requests to the one of which a part is still to come."""
            try:
                self._parser.receive_data(data)
                while (event := self._parser.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                    if isinstance(event, h11.EndOfMessage):
                        following, _ = self._parser.trailing_data
                        self._parser = h11.Connection(h11.SERVER)
                        if following:
                            self._parser.receive_data(following)
            except h11.RemoteProtocolError:
                pass  # uvicorn answers it

        def _await(self, part: str | None) -> None:
            if part != self._awaited:
                self._awaited, self._since, self._num_bytes = part, self._loop.time(), 0
                if part is not None:
                    self._look_in(header_s)

        def _look_in(self, seconds: float) -> None:
            if self._watch is None:
                self._watch = self._loop.call_later(seconds, self._look)

        def _look(self) -> None:
            """Let go of a sender that is too slow; else look again later, as long as something is being sent."""
            assert self._watch is not None, "it called this"
            due, self._watch = self._watch.when(), None
            now = self._loop.time()
            if self._awaited is None:
                return
            if now - due > _HELD_UP_S:
                # this process was held up, and what the client sent may still wait to be read
                self._since += now - due if self._awaited == "body" else 0.0
                self._look_in(_HELD_UP_S)
            elif not self._transport.is_reading():  # the server is the slow one: from here on anew
                self._since, self._num_bytes = now, 0
                self._look_in(header_s)
            elif (left := self._since + header_s - now) > 0.001:
                self._look_in(left)
            elif self._awaited == "head" or self._num_bytes < MIN_BODY_BYTES_PER_S * (now - self._since):
                self._drop(self._awaited)
            else:
                self._look_in(header_s / 4)

        def pause_writing(self) -> None:
            self._http.pause_writing()
            if self._stuck is None:
                self._stuck = self._loop.call_later(send_s, self._drop, "reader")

        def resume_writing(self) -> None:
            self._http.resume_writing()
            if self._stuck is not None:
                self._stuck.cancel()
                self._stuck = None

        def _drop(self, why: str) -> None:
            if not self._transport.is_closing():
                dropped(why)
                self._transport.abort()

    return Connection
