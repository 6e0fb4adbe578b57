"""A connection that does not wait for ever: whoever sends or takes too slowly is let go.

uvicorn waits without an end for the first request of a connection and for the rest of a body. Here a request's head is
whole within a moment, a body comes at a least rate, and what is sent is taken within a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MIN_BODY_BYTES_PER_S = 16_384
_HELD_UP_S = 0.1


def protocol(header_s: float, send_s: float, dropped: Callable[[str], None]) -> type[H11Protocol]:
    """Return the class of a server's connections.

    Args:
        header_s: Time for the head of the first request, and after which a body's rate is looked at.
        send_s: Time in which a client has to take something of what is sent.
        dropped: Called with the reason when a connection is let go.
    """

    class Connection(H11Protocol):
        """One connection."""

        _watch: asyncio.TimerHandle | None = None
        _stuck: asyncio.TimerHandle | None = None
        _head_since: float | None = None  # since when a head is waited for
        _body_since: float | None = None
        _body_bytes = 0

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._head_since = self.loop.time()
            self._look_in(header_s)

        def connection_lost(self, exc: Exception | None) -> None:
            for timer in (self._watch, self._stuck):
                if timer is not None:
                    timer.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self.conn.their_state is h11.IDLE and self._head_since is None:
                self._head_since = self.loop.time()  # the next request of a connection that was kept
                self._look_in(header_s)
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._head_since = None
            if self.conn.their_state is h11.SEND_BODY:
                if self._body_since is None:
                    self._body_since, self._body_bytes = self.loop.time(), 0
                    self._look_in(header_s)
                self._body_bytes += len(data)
            else:
                self._body_since = None

        def _look_in(self, seconds: float) -> None:
            if self._watch is None:
                self._watch = self.loop.call_later(seconds, self._look)

        def _look(self) -> None:
            """Let go of a sender that is too slow; else look again later, as long as something is being sent."""
            assert self._watch is not None, "it called this"
            due, self._watch = self._watch.when(), None
            now = self.loop.time()
            if now - due > _HELD_UP_S:
                # this process was held up, and what the client sent may still wait to be read
                if self._body_since is not None:
                    self._body_since += now - due
                self._look_in(_HELD_UP_S)
                return
            if self._head_since is not None:
                left = header_s - (now - self._head_since)
                if left <= 0.001:
                    self._drop("head")
                else:
                    self._look_in(left)
            elif self._body_since is not None:
                seconds = now - self._body_since
                too_slow = self._body_bytes < MIN_BODY_BYTES_PER_S * seconds
                if self.flow.read_paused:  # the server is the slow one: from here on anew
                    self._body_since, self._body_bytes = now, 0
                    self._look_in(header_s)
                elif seconds >= header_s - 0.001 and too_slow:
                    self._drop("body")
                else:
                    self._look_in(max(header_s - seconds, header_s / 4))

        def pause_writing(self) -> None:
            super().pause_writing()
            if self._stuck is None:
                self._stuck = self.loop.call_later(send_s, self._drop, "reader")

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._stuck is not None:
                self._stuck.cancel()
                self._stuck = None

        def _drop(self, why: str) -> None:
            if not self.transport.is_closing():
                dropped(why)
                self.transport.abort()

    return Connection
