"""What every request passes before and after a route: names it may ask under, size of its body, headers, counting."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from sampan.errors import ApiError
from sampan.serve.metrics import Metrics
from sampan.serve.settings import LOOPBACK, Settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_BEFORE_S = 0.5  # before an answer: who has sent all by then keeps the connection
_AFTER_S = 2.0  # behind an answer that ends the connection
_DISCARD_BYTES = 16 * 2**20
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}


class Middleware:
    """The application between the connection and the routes."""

    def __init__(self, app: App, settings: Settings, metrics: Metrics):
        self.app, self.settings, self.metrics = app, settings, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                return  # there are none; closing says so
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500
        started = False
        body = _Body(scope, receive)

        async def answer(message: MutableMapping[str, Any]) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                await body.discard(_BEFORE_S)
                there = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *((k.encode(), v.encode()) for k, v in _HEADERS.items() if k.encode() not in there),
                    *([] if body.complete or b"connection" in there else [(b"connection", b"close")]),
                ]
            elif not body.complete and not message.get("more_body"):
                # the whole answer now, and its end when the client had time to read it: who is still sending when a
                # connection ends may see no answer
                await send({**message, "more_body": True})
                await body.discard(_AFTER_S)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        try:
            self._check_names(scope)
            await self.app(scope, self._bounded(scope, body.receive), answer)
        except ApiError as refusal:
            if started:
                raise
            await send_json(refusal.body(), refusal.status, refusal.headers, answer)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, _method(scope), str(status)).inc()
            self.metrics.request_s.labels(route).observe(time.perf_counter() - began)

    def _check_names(self, scope: Scope) -> None:
        """Refuse what a foreign page may send from a browser on this machine: names that are not ours."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = _name(f"//{headers.get(b'host', '')}")
        allowed = {*LOOPBACK, *self.settings.hosts, self.settings.host}
        if "*" not in self.settings.hosts and host not in allowed:
            raise ApiError(403, "unknown_host", "The server is not known under this name; see --allow-host.")
        origin = headers.get(b"origin")
        if origin is not None and scope["method"] not in ("GET", "HEAD") and _name(origin) != host:
            raise ApiError(403, "foreign_origin", "Pages of other sites may not use this server.")

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """Return a receive that ends a body when it is longer than is taken."""
        headers = dict(scope["headers"])
        form = headers.get(b"content-type", b"").strip().lower().startswith(b"multipart/form-data")
        has_pictures = form or scope["path"] == "/v1/images/edits"  # in JSON as data: addresses
        most = self.settings.max_body_bytes if has_pictures else self.settings.max_json_bytes
        refusal = ApiError(413, "body_too_large", f"The body may have {most} bytes.")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length[:18]) > most:
            raise refusal
        total = 0

        async def bounded() -> MutableMapping[str, Any]:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > most:
                raise refusal
            return message

        return bounded


class _Body:
    """The body of one request, of which a route may read a part or nothing: how far it came, and the rest of it."""

    def __init__(self, scope: Scope, receive: Receive):
        headers = dict(scope["headers"])
        self._receive = receive
        # without either header there is none
        self.complete = headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers
        self._waits = b"expect" in headers  # for being told whether to send; nothing comes where it is not told

    async def receive(self) -> MutableMapping[str, Any]:
        self._waits = False  # uvicorn tells it now
        message = await self._receive()
        if message["type"] != "http.request" or not message.get("more_body"):
            self.complete = True
        return message

    async def discard(self, seconds: float) -> None:
        """Read on for a while and forget what comes."""
        if self.complete or self._waits:
            return
        total = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self.complete and total < _DISCARD_BYTES:
                    total += len((await self.receive()).get("body", b""))


async def send_json(content: Any, status: int, headers: Mapping[str, str], send: Send) -> None:
    """Send a whole answer."""
    body = json.dumps(content).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


def _name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _method(scope: Scope) -> str:
    return (
        scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS") else "other"
    )
