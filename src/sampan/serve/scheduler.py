"""Who gets a place in the queue, and the thread in which the engine works.

The queue is bounded in pictures. Who comes when it is full is told when to come again, and so is who has too many pictures
waiting, or asked too often within a minute. Callbacks of a picture are called in the event loop.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from sampan.serve.engine import Engine, ImageTask, prepare_task
from sampan.serve.keys import ANYBODY
from sampan.serve.refusal import ApiError

_MINUTE_S = 60.0
_IDLE_S = 0.5


@dataclass(eq=False)
class QueueSlot:
    """A picture's place, from its request until it is over."""

    owner: str


@dataclass(frozen=True)
class AdmissionLimits:
    """How much is taken on.

    Args:
        queue: Pictures that wait or are at work, in all.
        per_key: The same, of one key.
        per_minute: Pictures that one key may ask for within a minute; None is no limit.
        timeout_s: A picture's time from its request on.
    """

    queue: int = 64
    per_key: int | None = 16
    per_minute: int | None = None
    timeout_s: float = 600.0


class Scheduler:
    """The queue before an engine.

    Args:
        loop: Where callbacks are called.
    """

    def __init__(self, engine: Engine, limits: AdmissionLimits, loop: asyncio.AbstractEventLoop):
        self.engine, self.limits, self._loop = engine, limits, loop
        self._change = threading.Condition()
        self._new: deque[ImageTask] = deque()
        self._stopping = False
        self.draining = self.loaded = False
        self.broken: BaseException | None = None
        self._places: set[QueueSlot] = set()
        self._asked: dict[str, deque[float]] = {}  # when an owner's pictures were asked for
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    @property
    def num_under_way(self) -> int:
        """Pictures that wait or are at work."""
        return len(self._places)

    @property
    def num_waiting(self) -> int:
        """Pictures of which nothing is done yet."""
        return len(self._new) + len(self.engine.waiting)

    def admit(self, owner: str, count: int) -> list[QueueSlot]:
        """Return places for so many pictures. Called in the event loop; each place is given back to `leave`.

        Raises:
            Refusal: 503 when the queue is full or the server is going down, 429 when the owner has too many.
        """
        if self.draining or self._stopping or self.broken is not None:
            raise ApiError(503, "shutting_down", "The server is shutting down.", retry_after_s=10)
        now, limits = time.monotonic(), self.limits
        has_key = owner != ANYBODY
        recent = self._asked.setdefault(owner, deque())
        while recent and now - recent[0] > _MINUTE_S:
            recent.popleft()
        if has_key and limits.per_minute is not None and len(recent) + count > limits.per_minute:
            wait_s = max(1, round(_MINUTE_S - (now - recent[0]))) if recent else 60
            message = f"This key may ask for {limits.per_minute} pictures a minute."
            raise ApiError(429, "rate_limit_exceeded", message, retry_after_s=wait_s)
        mine = sum(place.owner == owner for place in self._places)
        if has_key and limits.per_key is not None and mine + count > limits.per_key:
            message = f"This key has {mine} pictures under way and may have {limits.per_key}."
            raise ApiError(429, "too_many_pictures", message, retry_after_s=5)
        if len(self._places) + count > limits.queue:
            message = f"The queue has {len(self._places)} of {limits.queue} pictures, and {count} more do not fit."
            raise ApiError(503, "queue_full", message, retry_after_s=5)
        recent.extend([now] * count)
        places = [QueueSlot(owner) for _ in range(count)]
        self._places.update(places)
        return places

    def submit(self, pictures: Sequence[ImageTask]) -> None:
        """Put pictures of one request into the queue; `admit` has let them in."""
        subject = prepare_task(self.engine.pipeline, pictures[0].asked)
        with self._change:
            for picture in pictures:
                picture.subject = subject
                self._new.append(picture)
            self._change.notify()

    def leave(self, place: QueueSlot) -> None:
        """Give a place back; may be repeated."""
        self._places.discard(place)

    async def drain(self, timeout_s: float) -> None:
        """Take nothing new on, and wait until what was taken on is done."""
        self.draining = True
        until = time.monotonic() + timeout_s
        while self._places and time.monotonic() < until:
            await asyncio.sleep(0.05)

    def stop(self) -> None:
        """End the thread after the step it is at."""
        with self._change:
            self._stopping = True
            self._change.notify()
        if self._thread.is_alive():
            self._thread.join(timeout=60)

    def _work(self) -> None:
        try:
            self.engine.load()
            self.loaded = True
            while not self._stopping:
                with self._change:
                    self.engine.waiting.extend(self._new)
                    self._new.clear()
                if not self.engine.turn():
                    with self._change:
                        if not self._new and not self._stopping:
                            self._change.wait(_IDLE_S)
        except BaseException as error:
            self.broken = error  # /ready says so
            raise
