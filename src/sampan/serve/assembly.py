"""A server put together from a model that is loaded: engine, pages, and what asks other programs."""

from __future__ import annotations

import asyncio

from sampan.checkpoint import lora
from sampan.errors import DeviceError
from sampan.metrics.ocr import find_reader
from sampan.pipeline.pipeline import Pipeline
from sampan.serve.engine import Engine, Proofread
from sampan.serve.enhance import enhance
from sampan.serve.fetch import fetch
from sampan.serve.metrics import Metrics
from sampan.serve.pages import Pages
from sampan.serve.proofread import scorer
from sampan.serve.server import ServerState
from sampan.serve.settings import Settings
from sampan.serve.store import ImageStore


def assemble(pipeline: Pipeline, settings: Settings, store: ImageStore, metrics: Metrics) -> ServerState:
    """Return everything that routes need.

    Raises:
        RequestError: A report cannot be read.
        DeviceError: Proofreading was asked for, and there is no OCR.
    """
    engine = Engine(pipeline, max_rows=settings.max_rows, proofread=_proofreading(settings))
    engine.load()
    pages = Pages(settings.plan_report, settings.bench_report)
    server = ServerState(settings, store, engine, pages, metrics)
    server.notes = tuple(lora.notes(pipeline.loras))
    if settings.fetch_urls:
        server.fetch = lambda url: asyncio.to_thread(fetch, url, max_bytes=settings.max_body_bytes)
    if (by := settings.enhancement) is not None:
        server.enhance = lambda prompt: asyncio.to_thread(enhance, prompt, by)
    return server


def _proofreading(settings: Settings) -> Proofread | None:
    """Return what scores pictures by the words in them: nothing where OCR is neither there nor asked for."""
    try:
        return scorer(find_reader())
    except DeviceError:
        if settings.proofread > 1:
            raise
        return None  # a request that asks for it is refused
