"""A request for images answered: all of them in one answer, or as a stream of events; given up when the client goes."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from fastapi.responses import JSONResponse
from starlette.requests import Request
from starlette.responses import Response

from sampan.errors import ApiError
from sampan.serve.engine import ImageEvent, ImageTask
from sampan.serve.jobs import ImageJob
from sampan.serve.request import ServeRequest
from sampan.serve.server import ServerState

T = TypeVar("T")
Receive = Callable[[], Awaitable[Any]]
_KEEP_ALIVE_S = 10.0


async def respond(server: ServerState, http_request: Request, request: ServeRequest) -> Response:
    """Make the images of a request, and return the answer.

    Raises:
        ApiError: The request is not taken on, or an image failed.
        StoreError: The images could not be kept.
    """
    job = ImageJob(server, request)
    prepared = None
    try:
        prepared = await _unless_gone(job.prepare(), http_request.receive)
    finally:
        if not prepared:
            await job.close()
    if not prepared:
        return Response(status_code=499)  # nobody reads it
    if request.stream:
        return EventStream(job)  # which closes the job
    try:
        body = await _unless_gone(_images(job, http_request), http_request.receive)
    except ApiError:
        server.metrics.pictures.labels("failed").inc()
        raise
    finally:
        await job.close()
    server.metrics.pictures.labels("cancelled" if body is None else "finished").inc(request.image.count)
    return Response(status_code=499) if body is None else await asyncio.to_thread(JSONResponse, body)


async def _unless_gone(work: Coroutine[Any, Any, T], receive: Receive) -> T | None:
    """Return the result of some work, or None when the client goes before it is there."""

    async def wait_until_gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working, gone = asyncio.create_task(work), asyncio.create_task(wait_until_gone())
    try:
        await asyncio.wait([working, gone], return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        gone.cancel()


async def _images(job: ImageJob, http_request: Request) -> dict[str, Any]:
    """Return every image of a job in one answer."""
    events = []
    async for event in job.events():
        assert event is not None, "it was not asked to say that nothing happens"
        if event.error is not None:
            raise event.error
        events.append(event)
    events.sort(key=lambda event: event.task.index)
    return {
        "created": job.created,
        "background": "opaque",
        "data": [await asyncio.to_thread(_image, job, event, http_request) for event in events],
        "output_format": job.request.output_format,
        "quality": job.request.quality,
        "size": job.request.size,
        "usage": _usage([event.task for event in events]),
    }


def _image(job: ImageJob, event: ImageEvent, http_request: Request) -> dict[str, Any]:
    record = job.records[event.task.index]
    as_url = job.request.response_format == "url"
    file = {"url": job.server.url(http_request, record.id)} if as_url else {"b64_json": _base64(event.content)}
    return {"id": record.id, "seed": record.seed, **file, **job.notes, **event.task.proofread_facts}


class EventStream(Response):
    """A job's events as server-sent events, sent as they happen."""

    media_type = "text/event-stream"

    def __init__(self, job: ImageJob):
        super().__init__()
        self.job = job
        del self.headers["content-length"]

    async def __call__(self, scope: Any, receive: Receive, send: Any) -> None:
        try:
            if not await _unless_gone(self._send(send), receive):
                self.job.server.metrics.pictures.labels("cancelled").inc()
        finally:
            await self.job.close()

    async def _send(self, send: Any) -> bool:
        async def put(data: bytes, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for event in self.job.events(_KEEP_ALIVE_S):
            # a comment, so that nobody in between takes the connection for dead
            await put(b": waiting\n\n" if event is None else await asyncio.to_thread(self._encode, event))
        await put(b"", more=False)
        return True

    def _encode(self, event: ImageEvent) -> bytes:
        """Return an event as OpenAI's streams have it, with the image's id and seed beside it."""
        job, metrics = self.job, self.job.server.metrics
        if event.error is not None:
            assert isinstance(event.error, ApiError), "a job's events have no other"
            metrics.pictures.labels("failed").inc()
            return _sse("error", event.error.body())
        prefix = "image_generation" if job.request.kind == "generation" else "image_edit"
        record = job.records[event.task.index]
        body = {
            "type": f"{prefix}.{'completed' if event.partial is None else 'partial_image'}",
            "b64_json": _base64(event.content),
            "created_at": int(time.time()),
            "size": job.request.size,
            "quality": job.request.quality,
            "background": "opaque",
            "output_format": job.request.output_format,
            "id": record.id,
            "seed": record.seed,
            "index": event.task.index,
        }
        if event.partial is None:
            metrics.pictures.labels("finished").inc()
            body |= {"usage": _usage([event.task]), **event.task.proofread_facts, **job.notes}
        else:
            body["partial_image_index"] = event.partial
        return _sse(body["type"], body)


def _sse(name: str, body: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(body)}\n\n".encode()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _usage(tasks: Sequence[ImageTask]) -> dict[str, Any]:
    """Return the tokens that images took."""
    image, text, output = (sum(t.facts.get(f"{kind}_tokens", 0) for t in tasks) for kind in ("image", "text", "output"))
    return {
        "input_tokens": image + text,
        "input_tokens_details": {"image_tokens": image, "text_tokens": text},
        "output_tokens": output,
        "total_tokens": image + text + output,
    }
