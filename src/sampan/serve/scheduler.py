"""Who gets a place in the queue, and the thread in which the engine works.

The queue is bounded in images. Who comes when it is full is told when to come again, and so is who has too many images
waiting, or asked too often within a minute.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from sampan.errors import ApiError
from sampan.job import MAX_SEED
from sampan.serve.engine import Engine, ImageEvent, ImageTask, prepare_request
from sampan.serve.keys import ANYBODY
from sampan.serve.request import ServeRequest
from sampan.serve.settings import AdmissionLimits

_MINUTE_S = 60.0
_IDLE_S = 0.5


class Scheduler:
    """The queue before an engine."""

    def __init__(self, engine: Engine, limits: AdmissionLimits):
        self.engine, self.limits = engine, limits
        self._change = threading.Condition()
        self._new: deque[ImageTask] = deque()
        self._stopping = False
        self.draining = self.loaded = False
        self.broken: BaseException | None = None
        self._under_way: set[ImageTask] = set()
        self._admitted: dict[str, deque[float]] = {}  # when an owner's images were asked for
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    @property
    def num_under_way(self) -> int:
        """Images that wait or are at work."""
        return len(self._under_way)

    @property
    def num_waiting(self) -> int:
        """Pictures of which nothing is done yet."""
        return len(self._new) + len(self.engine.waiting)

    def admit(self, request: ServeRequest, tell: Callable[[ImageEvent], None]) -> list[ImageTask]:
        """Return a task for each image of a request. Called in the event loop; each task is given back to `leave`.

        Raises:
            ApiError: 503 when the queue is full or the server is going down, 429 when the owner has too many.
        """
        if self.draining or self._stopping or self.broken is not None:
            raise ApiError(503, "shutting_down", "The server is shutting down.", retry_after_s=10)
        now, limits, owner, count = time.monotonic(), self.limits, request.owner, request.image.count
        has_key = owner != ANYBODY
        recent = self._admitted.setdefault(owner, deque())
        while recent and now - recent[0] > _MINUTE_S:
            recent.popleft()
        if has_key and limits.per_minute is not None and len(recent) + count > limits.per_minute:
            wait_s = max(1, round(_MINUTE_S - (now - recent[0]))) if recent else 60
            message = f"This key may ask for {limits.per_minute} pictures a minute."
            raise ApiError(429, "rate_limit_exceeded", message, retry_after_s=wait_s)
        mine = sum(task.request.owner == owner for task in self._under_way)
        if has_key and limits.per_key is not None and mine + count > limits.per_key:
            message = f"This key has {mine} pictures under way and may have {limits.per_key}."
            raise ApiError(429, "too_many_pictures", message, retry_after_s=5)
        if self.num_under_way + count > limits.queue:
            message = f"The queue has {self.num_under_way} of {limits.queue} pictures, and {count} more do not fit."
            raise ApiError(503, "queue_full", message, retry_after_s=5)
        recent.extend([now] * count)
        tasks = [ImageTask(request, (request.image.seed + k) % (MAX_SEED + 1), k, tell) for k in range(count)]
        self._under_way.update(tasks)
        return tasks

    def submit(self, tasks: Sequence[ImageTask]) -> None:
        """Put the tasks of one request, which `admit` has let in, into the queue."""
        subject = prepare_request(self.engine.pipeline, tasks[0].request)
        with self._change:
            for task in tasks:
                task.subject, task.deadline = subject, time.monotonic() + self.limits.timeout_s
                self._new.append(task)
            if self.broken is not None:
                self._give_up(self.broken)  # nobody takes them out of the queue any more
            self._change.notify()

    def leave(self, task: ImageTask) -> None:
        """Free a task's place; may be repeated."""
        self._under_way.discard(task)

    async def drain(self, timeout_s: float) -> None:
        """Take nothing new on, and wait until what was taken on is done; what is not by then ends with an error."""
        self.draining = True
        until = time.monotonic() + timeout_s
        while self._under_way and time.monotonic() < until:
            await asyncio.sleep(0.05)
        for task in list(self._under_way):
            task.gone = True
            late = ApiError(503, "shutting_down", "The server ended before the picture was ready.", retry_after_s=10)
            task.tell(ImageEvent(task, error=late))

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
            with self._change:
                self.broken = error  # /ready says so
                self._give_up(error)
            raise

    def _give_up(self, error: BaseException) -> None:
        self.engine.waiting.extend(self._new)
        self._new.clear()
        self.engine.fail_all(error)
