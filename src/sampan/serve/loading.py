"""A server that answers while its model is loaded: /health says that it is alive, everything else when to come again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from sampan.errors import ApiError
from sampan.serve.metrics import Metrics
from sampan.serve.middleware import App, Middleware, Receive, Scope, Send, send_json
from sampan.serve.settings import Settings

if TYPE_CHECKING:  # it is imported while the server answers already
    from fastapi import FastAPI


class LoadingApp:
    """An application that is another one as soon as that is there.

    Args:
        load: Returns the application; called in a thread of its own.
        ready: Called when it is there, in the event loop.
        failed: Called with what `load`, or the start of the application, raised.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        load: Callable[[], FastAPI],
        *,
        ready: Callable[[], None],
        failed: Callable[[BaseException], None],
    ):
        self._load, self._ready, self._failed = load, ready, failed
        self._now: App = Middleware(_while_loading, settings, metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._now(scope, receive, send)
            return
        await receive()
        async with AsyncExitStack() as running:
            starting = asyncio.create_task(self._start(running))
            await send({"type": "lifespan.startup.complete"})
            await receive()
            starting.cancel()
            await asyncio.wait([starting])
        await send({"type": "lifespan.shutdown.complete"})

    async def _start(self, running: AsyncExitStack) -> None:
        try:
            app = await _in_thread(self._load)
            await running.enter_async_context(app.router.lifespan_context(app))
        except Exception as error:  # noqa: BLE001  # whatever it is, it ends the server and is told there
            self._failed(error)
            return
        self._now = app
        self._ready()


async def _in_thread(work: Callable[[], FastAPI]) -> FastAPI:
    """Return what some work returns; unlike asyncio's own threads, nothing waits for this one when the process ends."""
    loop, done = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

    def tell(result: FastAPI | None, error: BaseException | None) -> None:
        if not done.done():
            done.set_exception(error) if error is not None else done.set_result(result)

    def run() -> None:
        result: FastAPI | None = None
        raised: BaseException | None = None
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001  # raised again where it is waited for
            raised = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, result, raised)

    threading.Thread(target=run, name="loading", daemon=True).start()
    return await done


async def _while_loading(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/health":
        await send_json({"status": "ok"}, 200, {}, send)
        return
    raise ApiError(503, "not_ready", "The server loads the model.", retry_after_s=5)
