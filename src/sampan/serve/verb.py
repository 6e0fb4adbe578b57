"""`sampan serve`: from its settings to a server that listens, and that ends in order."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import Future
from typing import Any

import uvicorn
from fastapi import FastAPI

from sampan import files
from sampan.checkpoint import lora
from sampan.errors import DataError, DeviceError, LockHeldError, RequestError
from sampan.frameworks import device as dev
from sampan.metrics.ocr import find_reader
from sampan.pipeline.pipeline import Pipeline
from sampan.serve.app import build
from sampan.serve.connection import guarded
from sampan.serve.engine import Engine, Proofread
from sampan.serve.enhance import check_address, enhance
from sampan.serve.fetch import fetch
from sampan.serve.pages import Pages
from sampan.serve.proofread import scorer
from sampan.serve.server import ServerState
from sampan.serve.settings import Settings
from sampan.serve.store import ImageStore


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
    pages = Pages(settings.plan_report, settings.bench_report)
    try:
        with files.locked(settings.data / "serve.lock"):
            num_interrupted = store.recover()["interrupted"]
            engine = Engine(pipeline, max_rows=settings.max_rows, proofread=_proofreading(settings))
            server = ServerState(settings, store, engine, pages)
            if settings.fetch_urls:
                server.fetch = lambda url: asyncio.to_thread(fetch, url, max_bytes=settings.max_body_bytes)
            if (by := settings.enhancement) is not None:
                check_address(by.url)
                server.enhance = lambda prompt: asyncio.to_thread(enhance, prompt, by)
            app = build(server)
            bound = _bound(settings)
            if num_interrupted:
                console.print(f"{num_interrupted} pictures were under way when the server last ended")
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            threads = f", {dev.set_threads(None)} threads" if pipeline.device == "cpu" else ""
            console.print(f"model {settings.model} · {pipeline.device}, {pipeline.dtype}{threads}")
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


def configured(app: FastAPI, server: ServerState) -> uvicorn.Config:
    """Return how uvicorn is to run an application."""
    settings = server.settings
    return uvicorn.Config(
        app,
        http=guarded(settings.header_s, settings.send_s, lambda why: server.metrics.dropped.labels(why).inc()),
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
        self._server = server
        self._draining: Future[None] | None = None

    def handle_exit(self, sig: int, frame: Any) -> None:
        if self._draining is not None or not hasattr(self._server, "scheduler"):
            super().handle_exit(sig, frame)  # a second signal ends it at once
            return
        self._draining = asyncio.run_coroutine_threadsafe(self._drain(), asyncio.get_running_loop())

    async def _drain(self) -> None:
        await self._server.scheduler.drain(self._server.settings.drain_s)
        self.should_exit = True


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
