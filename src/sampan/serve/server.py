"""Everything that routes need, in one place; and whose a request is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from starlette.requests import Request

from sampan.errors import ApiError
from sampan.serve import keys
from sampan.serve.engine import Engine
from sampan.serve.metrics import Metrics
from sampan.serve.pages import Pages
from sampan.serve.scheduler import Scheduler
from sampan.serve.settings import Settings
from sampan.serve.store import ImageStore

URL_VALID_S = 3600


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
    scheduler: Scheduler = field(init=False)  # since there is a loop
    secret: bytes = b""
    started: int = 0
    had_keys: bool = False

    @property
    def needs_key(self) -> bool:
        """Whether requests need a key: since there was one, even if the last is removed."""
        self.had_keys = self.had_keys or bool(self.store.known_keys())
        return self.had_keys

    def owner(self, request: Request) -> str:
        """Return whose request this is.

        Raises:
            ApiError: A key is needed, and none that is known came along.
        """
        if not self.needs_key:
            return keys.ANYBODY
        owner = keys.owner(self.store, request.headers.get("authorization"))
        if owner is None:
            raise ApiError(401, "invalid_api_key", "This server needs an API key that it knows.")
        return owner

    def url(self, request: Request, picture_id: str) -> str:
        """Return an address of a picture that needs no key for a while."""
        query = f"?{keys.sign(self.secret, picture_id, URL_VALID_S)}" if self.needs_key else ""
        return f"{str(request.base_url).rstrip('/')}/v1/images/{picture_id}{query}"
