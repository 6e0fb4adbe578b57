"""A server in this process with a tiny model of random weights, on a port of loopback."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from browser import chromium
from sampan.checkpoint.folder import open_folder
from sampan.pipeline.pipeline import Pipeline
from sampan.serve.app import build
from sampan.serve.engine import Engine
from sampan.serve.listening import listen
from sampan.serve.pages import Pages
from sampan.serve.server import ServerState
from sampan.serve.settings import Settings
from sampan.serve.store import ImageStore
from sampan.serve.verb import configured
from serve_page import Open, open_page

MODEL = "tiny"


@pytest.fixture(scope="session")
def pipeline(tiny_folder: Path) -> Pipeline:
    return Pipeline(open_folder(tiny_folder), "cpu", "fp32")


@dataclasses.dataclass
class Running:
    """A server at work.

    Args:
        client: Asks it.
    """

    server: ServerState
    client: httpx.Client
    port: int

    def paint(self, **fields: Any) -> httpx.Response:
        return self.client.post(
            "/v1/images/generations", json={"prompt": "a boat", "num_inference_steps": 2, "size": "64x64", **fields}
        )


@pytest.fixture
def start(pipeline: Pipeline, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start a server with settings; it ends with the test."""
    ending: list[Callable[[], None]] = []

    def starting(fetch: Any = None, enhance: Any = None, proofread: Any = None, **changes: Any) -> Running:
        settings = Settings("127.0.0.1", 0, tmp_path / "data", MODEL, **changes)
        store = ImageStore(settings.data, settings.retention)
        store.recover()
        engine = Engine(pipeline, max_rows=settings.max_rows, proofread=proofread)
        pages = Pages(settings.plan_report, settings.bench_report)
        server = ServerState(settings, store, engine, pages, fetch=fetch, enhance=enhance)
        running = uvicorn.Server(configured(build(server), settings, server.metrics))
        (bound,) = listen("127.0.0.1", 0)
        port = bound.getsockname()[1]
        thread = threading.Thread(target=running.run, kwargs={"sockets": [bound]})
        thread.start()
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)

        def end() -> None:
            client.close()
            running.should_exit = True
            thread.join(30)
            bound.close()

        ending.append(end)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                if client.get("/ready").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.02)
        return Running(server, client, port)

    yield starting
    for end in ending:
        end()


@pytest.fixture
def running(start: Callable[..., Running]) -> Running:
    """A server with its defaults."""
    return start()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def opened(browser: Any) -> Open:
    """Open the page of a server, in a browser."""
    return partial(open_page, browser)
