"""`sampan serve`: from its settings to a server that listens, loads its model and answers, and that ends in order.

The order is that of the errors: what costs nothing to find out (the port, the store, the keys) is said before anything is
loaded. Whatever computes is imported in the thread that loads, while /health is answered already.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import uvicorn

from sampan import files
from sampan.errors import DataError, LockHeldError, RequestError
from sampan.serve.connection import guarded
from sampan.serve.enhance import check_address
from sampan.serve.listening import BACKLOG, allow_many_connections, listen
from sampan.serve.loading import LoadingApp
from sampan.serve.metrics import Metrics
from sampan.serve.settings import Settings
from sampan.serve.signals import EndSignals
from sampan.serve.store import ImageStore

if TYPE_CHECKING:  # see above
    from fastapi import FastAPI

    from sampan.pipeline.pipeline import Pipeline
    from sampan.serve.server import ServerState

log = logging.getLogger("sampan.serve")
# Python lets a thread compute for 5 ms before another has its turn, and an answer takes several turns while the engine and
# those that write pictures compute. An echo beside two busy threads: median 35 and 16 ms at 5 ms, 1.8 and 0.8 ms at this
_SWITCH_S = 0.0005
_ANSWER_S = 10.0  # for the last bytes of answers, once nothing is painted any more


def serve(load: Callable[[], Pipeline], settings: Settings, console: Any) -> None:
    """Answer requests until the process is told to end; then finish what is under way, and return.

    Args:
        load: Returns the model, ready to paint; called in a thread.

    Raises:
        SampanError: The server cannot start.
    """
    signals = EndSignals()
    with signals.heard():
        sockets = listen(settings.host, settings.port)
        try:
            if settings.enhancement is not None:
                check_address(settings.enhancement.url)
            store = ImageStore(settings.data, settings.retention)
            try:
                _check_keys(store, settings, console)
                with files.locked(settings.data / "serve.lock"):
                    if num_interrupted := store.recover()["interrupted"]:
                        console.print(f"{num_interrupted} pictures were under way when the server last ended")
                    _Run(load, settings, store, signals, console).run(sockets)
            except LockHeldError as error:
                raise DataError(
                    f"`{settings.data}` is in use",
                    f"a server keeps its pictures there: {error.who}",
                    "pass another --data FOLDER",
                ) from error
            finally:
                store.close()
        finally:
            for one in sockets:
                one.close()


def _check_keys(store: ImageStore, settings: Settings, console: Any) -> None:
    """Refuse to be open to others by mistake, and say when nobody can come.

    Raises:
        RequestError: Others could come, and nobody would be asked for a key.
    """
    if settings.open_to_all or store.known_keys():
        return
    if not settings.is_loopback:
        raise RequestError(
            f"others than this machine could come to `{settings.host}`, and there is no key",
            "without keys everybody may paint, and sees everybody's pictures",
            "sampan serve --add-key NAME makes one; --open does without",
        )
    if store.is_closed:
        words = "there were keys and none is left: every request is refused, until --add-key NAME or with --open"
        console.print(words, highlight=False, markup=False, soft_wrap=True)


class _Run:
    """One run of a server, from its sockets to its end."""

    def __init__(
        self,
        load: Callable[[], Pipeline],
        settings: Settings,
        store: ImageStore,
        signals: EndSignals,
        console: Any,
    ):
        self._load, self._settings, self._store = load, settings, store
        self._signals, self._console = signals, console
        self._metrics = Metrics()
        self._url = ""
        self._draining: asyncio.Task[None] | None = None  # kept, since the loop alone would forget it
        self._state: ServerState | None = None
        self._error: BaseException | None = None
        app = LoadingApp(settings, self._metrics, self._make, ready=self._ready, failed=self._fail)
        self._server = EndingServer(configured(app, settings, self._metrics), signals)

    def run(self, sockets: list[socket.socket]) -> None:
        """Answer until the end.

        Raises:
            SampanError: The model cannot be loaded.
        """
        host = f"[{self._settings.host}]" if ":" in self._settings.host else self._settings.host
        allow_many_connections()
        sys.setswitchinterval(_SWITCH_S)
        self._url = f"http://{host}:{sockets[0].getsockname()[1]}/"
        self._server.run(sockets=sockets)
        if self._error is not None:
            raise self._error

    def _make(self) -> FastAPI:
        from sampan.serve import app, assembly  # load what computes

        self._state = assembly.assemble(self._load(), self._settings, self._store, self._metrics)
        return app.build(self._state)

    def _ready(self) -> None:
        """Say that pictures are taken on; from now on a signal lets them be finished."""
        assert self._state is not None, "made before"
        from sampan.frameworks import device as dev

        pipeline, loop = self._state.engine.pipeline, asyncio.get_running_loop()
        num = dev.set_threads(None)
        threads = f", {num} thread{'' if num == 1 else 's'}" if pipeline.device == "cpu" else ""
        self._console.print(f"model {self._settings.model} · {pipeline.device}, {pipeline.dtype}{threads}")
        for note in self._state.notes:
            self._console.print(note, highlight=False, markup=False, soft_wrap=True)

        self._console.print(self._url, highlight=False)

        def start_draining() -> None:
            self._draining = loop.create_task(self._drain())

        def drain() -> None:  # called by a signal, between any two steps of the loop
            loop.call_soon_threadsafe(start_draining)

        self._signals.drain = drain

    def _fail(self, error: BaseException) -> None:
        self._error = error
        self._server.should_exit = True

    async def _drain(self) -> None:
        assert self._state is not None, "made before"
        if num := self._state.scheduler.num_under_way:
            words = (
                f"ending: {num} pictures are finished before, in {self._settings.drain_s:g} s at most; a second signal "
            )
            self._console.print(f"{words}ends at once", highlight=False, soft_wrap=True)
        await self._state.scheduler.drain(self._settings.drain_s)
        self._server.should_exit = True


def configured(app: Any, settings: Settings, metrics: Metrics) -> uvicorn.Config:
    """Return how uvicorn is to run an application."""
    return uvicorn.Config(
        app,
        http=guarded(settings.header_s, settings.send_s, lambda why: metrics.dropped.labels(why).inc()),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=16_384,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=round(_ANSWER_S),
        backlog=BACKLOG,
    )


class EndingServer(uvicorn.Server):
    """uvicorn, whose signals are heard by `EndSignals`: its own handler ends with the signal, and a second has no effect."""

    def __init__(self, config: uvicorn.Config, signals: EndSignals):
        super().__init__(config)
        self._signals = signals

    def handle_exit(self, sig: int, frame: Any) -> None:
        self._signals.handle(sig, frame)
