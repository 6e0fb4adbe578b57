"""`sampan serve`: from its settings to a server that listens, and that ends in order."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI

from sampan import files
from sampan.checkpoint import lora
from sampan.errors import DataError, DeviceError, LockHeldError, RequestError
from sampan.metrics.ocr import find_reader
from sampan.pipeline.pipeline import Pipeline
from sampan.serve.app import build
from sampan.serve.connection import protocol
from sampan.serve.engine import Engine, Proofread
from sampan.serve.enhance import enhance
from sampan.serve.fetch import fetch
from sampan.serve.proofread import scorer
from sampan.serve.server import ServerState
from sampan.serve.settings import Settings
from sampan.serve.site import Pages
from sampan.serve.store import ImageStore

log = logging.getLogger("sampan.serve")


def serve(pipeline: Pipeline, settings: Settings, console: Any) -> None:
    """Answer requests until the process is told to end; then finish what is under way, and return.

    Raises:
        SampanError: The server cannot start.
    """
    store = ImageStore(settings.data, settings.retention)
    if not (settings.is_loopback or settings.open_to_all or store.known_keys()):
        raise RequestError(
            f"others than this machine could come to `{settings.host}`, and there is no key",
            "without keys everybody may paint, and sees everybody's pictures",
            "sampan serve --add-key NAME makes one; --open does without",
        )
    site = Pages(settings.plan_report, settings.bench_report)
    try:
        with files.locked(settings.data / "serve.lock"):
            found = store.recover()
            engine = Engine(pipeline, max_rows=settings.max_rows, proofread=_proofreading(settings))
            server = ServerState(settings, store, engine, site, fetch=_fetching(settings), enhance=_enhancing(settings))
            app = build(server)
            bound = _bound(settings)
            if found["interrupted"]:
                console.print(f"{found['interrupted']} pictures were under way when the server last ended")
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            console.print(f"model {settings.model} · {pipeline.device}, {pipeline.dtype}")
            for note in lora.notes(pipeline.loras):
                console.print(note, highlight=False, markup=False, soft_wrap=True)
            console.print(f"http://{host}:{bound.getsockname()[1]}/", highlight=False)
            DrainingServer(configured(app, server), server).run(sockets=[bound])
    except LockHeldError as error:
        raise DataError(
            f"`{settings.data}` is in use",
            f"a server keeps its pictures there: {error.who}",
            "pass another --data FOLDER",
        ) from error


def _fetching(settings: Settings) -> Callable[[str], Awaitable[bytes]] | None:
    """Return what fetches references by address, where that is allowed."""
    if not settings.fetch_urls:
        return None

    async def fetching(url: str) -> bytes:
        return await asyncio.to_thread(fetch, url, max_bytes=settings.max_body_bytes)

    return fetching


def _enhancing(settings: Settings) -> Callable[[str], Awaitable[str]] | None:
    """Return what writes prompts out, where there is a language model for it."""
    by = settings.enhancement
    if by is None:
        return None
    if urlsplit(by.url).scheme not in ("http", "https") or not urlsplit(by.url).hostname:
        raise RequestError(f"`{by.url}` is no address of a language model", (), "--enhance http://HOST:PORT/v1 MODEL")

    async def enhancing(prompt: str) -> str:
        return await asyncio.to_thread(enhance, prompt, by)

    return enhancing


def configured(app: FastAPI, server: ServerState) -> uvicorn.Config:
    """Return how uvicorn is to run an application."""
    settings = server.settings
    return uvicorn.Config(
        app,
        http=protocol(settings.header_s, settings.send_s, lambda why: server.metrics.dropped.labels(why).inc()),
        ws="none",
        loop="asyncio",
        log_level="warning",
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=16_384,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=max(1, round(settings.drain_s)),
        backlog=256,
    )


def _proofreading(settings: Settings) -> Proofread | None:
    """Return what scores pictures by the words in them: nothing where OCR is neither there nor asked for."""
    try:
        return scorer(find_reader())
    except DeviceError:
        if settings.proofread > 1:
            raise
        return None  # a request that asks for it is refused


class DrainingServer(uvicorn.Server):
    """uvicorn, which on a signal still finishes what was taken on, and takes nothing more on."""

    def __init__(self, config: uvicorn.Config, server: ServerState):
        super().__init__(config)
        self._server, self._asked = server, False
        self._drain: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: Any) -> None:
        if self._asked or not hasattr(self._server, "scheduler"):
            super().handle_exit(sig, frame)  # a second signal ends it at once
            return
        self._asked = True
        self._server.scheduler.draining = True

    async def on_tick(self, counter: int) -> bool:
        if self._asked and self._drain is None:
            self._drain = asyncio.create_task(self._server.scheduler.drain(self._server.settings.drain_s))
        if self._drain is not None and self._drain.done():
            self.should_exit = True
        return await super().on_tick(counter)


def _bound(settings: Settings) -> socket.socket:
    """Return a socket that is bound.

    Raises:
        RequestError: The address is not there, or taken.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((settings.host, settings.port))
    except (OSError, socket.gaierror) as error:
        bound.close()
        raise RequestError(
            f"cannot listen on {settings.host}:{settings.port}", str(error), "pass --port 0 for one that is free"
        ) from error
    return bound
