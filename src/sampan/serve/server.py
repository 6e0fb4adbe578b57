"""Everything that routes need, in one place; and whose a request is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from sampan.errors import ApiError
from sampan.serve import keys
from sampan.serve.engine import Engine
from sampan.serve.metrics import Metrics
from sampan.serve.pages import Pages
from sampan.serve.scheduler import Scheduler
from sampan.serve.settings import Settings
from sampan.serve.store import ImageStore


@dataclass
class ServerState:
    """Everything that routes need."""

    settings: Settings
    store: ImageStore
    engine: Engine
    pages: Pages
    metrics: Metrics = field(default_factory=Metrics)
    fetch: Callable[[str], Awaitable[bytes]] | None = None
    enhance: Callable[[str], Awaitable[str]] | None = None
    notes: tuple[str, ...] = ()  # about the model, for who starts the server
    scheduler: Scheduler = field(init=False)  # since there is a loop
    secret: bytes = b""
    started: int = 0
    had_keys: bool = False
    _background: set[asyncio.Task[None]] = field(default_factory=set)

    async def needs_key(self) -> bool:
        """Return whether requests need a key: since there was one, even if the last is removed.

        With `--open`, the keys that there were before this process count no longer.
        """
        if not self.had_keys:
            self.had_keys = await asyncio.to_thread(self._has_keys)
        return self.had_keys

    def _has_keys(self) -> bool:
        return bool(self.store.known_keys()) or (self.store.is_closed and not self.settings.open_to_all)

    async def owner(self, request: Request) -> str:
        """Return whose request this is.

        Raises:
            ApiError: A key is needed, and none that is known came along.
            StoreError: The keys cannot be read.
        """
        if not await self.needs_key():
            return keys.ANYBODY
        owner = await asyncio.to_thread(keys.owner, self.store, request.headers.get("authorization"))
        if owner is None:
            raise ApiError(401, "invalid_api_key", "This server needs an API key that it knows.")
        return owner

    def url(self, request: Request, picture_id: str) -> str:
        """Return an address of a picture that needs no key for a while."""
        query = f"?{keys.sign(self.secret, picture_id, self.store.clock.now())}" if self.had_keys else ""
        return f"{str(request.base_url).rstrip('/')}/v1/images/{picture_id}{query}"

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that no answer waits for; `finish_background` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def finish_background(self) -> None:
        """Wait for what goes on in the background."""
        while self._background:
            await asyncio.wait(self._background)
