"""A request for pictures answered: all of them in one answer, or as a stream of events; given up when its client goes."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
from typing import Any

from fastapi.responses import JSONResponse
from starlette.requests import Request
from starlette.responses import Response

from sampan.serve import making
from sampan.serve.making import FailedImage, FinishedImage, ImageOrder, ServeJob, event_json
from sampan.serve.refusal import ApiError
from sampan.serve.server import ServerState

_KEEP_ALIVE_S = 10.0


async def make(server: ServerState, request: Request, order: ImageOrder) -> Response:
    """Make what is ordered, and return the answer.

    Raises:
        Refusal: It is not taken on, or a picture failed.
    """
    settings, asking = server.settings, order.asking
    if order.count > settings.max_n:
        raise ApiError(400, "invalid_value", f"`n` is {settings.max_n} at most.", "n")
    rows = asking.proofread or settings.proofread
    if rows > 1 and server.engine.proofread is None:
        raise ApiError(
            400, "no_proofreading", "This server has no OCR to proofread with; see --proofread.", "proofread"
        )
    if rows > settings.max_rows:
        raise ApiError(400, "invalid_value", f"`proofread` is {settings.max_rows} at most.", "proofread")
    if asking.enhance and server.enhance is None:
        raise ApiError(
            400, "no_enhancement", "This server has no language model for prompts; see --enhance.", "enhance"
        )
    places = server.scheduler.admit(order.owner, order.count)
    told: dict[str, Any] = {}
    try:
        gone = asyncio.create_task(_disconnected(request))
        try:
            if server.enhance is not None and asking.enhance is not False:
                order, told = await _enhanced(server, order)
            job = ServeJob(order, places, server.scheduler, server.store, settings)
        except BaseException:
            gone.cancel()
            raise
    except BaseException:
        for place in places:
            server.scheduler.leave(place)
        raise
    if asking.stream:
        return _Stream(server, job, told, gone)
    try:
        return await _answer(server, request, job, told, gone)
    finally:
        gone.cancel()
        await job.close()


async def _answer(
    server: ServerState, request: Request, job: ServeJob, told: dict[str, Any], gone: asyncio.Task[None]
) -> Response:
    """Return every picture of a job in one answer."""

    async def all_made() -> list[FinishedImage]:
        await job.begin()
        made = []
        async for event in job.events():
            if isinstance(event, FailedImage):
                raise event.refusal
            if isinstance(event, FinishedImage):
                made.append(event)
        return sorted(made, key=lambda m: m.index)

    making_them = asyncio.create_task(all_made())
    try:
        await asyncio.wait([making_them, gone], return_when=asyncio.FIRST_COMPLETED)
    finally:
        making_them.cancel()  # which does nothing to one that is done
    if not making_them.done():
        server.metrics.pictures.labels("cancelled").inc(job.order.count)
        return Response(status_code=499)  # nobody reads it
    try:
        made = making_them.result()
    except ApiError:
        server.metrics.pictures.labels("failed").inc()
        raise
    server.metrics.pictures.labels("finished").inc(len(made))
    asking, data = job.order.asking, []
    for one in made:
        as_url = asking.response_format == "url"
        data.append(
            {
                "id": one.record.id,
                "seed": one.record.seed,
                **({"url": server.url(request, one.record.id)} if as_url else {}),
                **({} if as_url else {"b64_json": base64.b64encode(one.content).decode()}),
                **told,
                **making.proofread(one),
            }
        )
    return JSONResponse(
        {
            "created": job.created,
            "background": "opaque",
            "data": data,
            "output_format": job.order.output_format,
            "quality": asking.quality or "auto",
            "size": job.order.size,
            "usage": making.usage(made),
        }
    )


async def _disconnected(request: Request) -> None:
    """Return when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _Stream(Response):
    """A job's events as server-sent events, sent as they happen."""

    media_type = "text/event-stream"

    def __init__(self, server: ServerState, job: ServeJob, told: dict[str, Any], gone: asyncio.Task[None]):
        super().__init__()
        self.server, self.job, self.told, self.gone = server, job, told, gone
        del self.headers["content-length"]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        sending = asyncio.create_task(self._send(send))
        try:
            await asyncio.wait([sending, self.gone], return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            if not sending.done():
                self.server.metrics.pictures.labels("cancelled").inc()
            sending.cancel()
            self.gone.cancel()
            await self.job.close()

    async def _send(self, send: Any) -> None:
        async def put(data: bytes, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await self.job.begin()
        events = self.job.events()
        coming: asyncio.Task[Any] = asyncio.ensure_future(anext(events, None))
        try:
            while True:
                done, _ = await asyncio.wait([coming], timeout=_KEEP_ALIVE_S)
                if not done:
                    await put(b": waiting\n\n")  # so that nobody in between takes the connection for dead
                    continue
                event = coming.result()
                if event is None:
                    break
                if isinstance(event, FailedImage):
                    self.server.metrics.pictures.labels("failed").inc()
                    await put(_sse("error", event.refusal.body()))
                else:
                    body = event_json(self.job, event)
                    if isinstance(event, FinishedImage):
                        self.server.metrics.pictures.labels("finished").inc()
                        body |= self.told
                    await put(_sse(body["type"], body))
                coming = asyncio.ensure_future(anext(events, None))
        finally:
            coming.cancel()
        await put(b"", more=False)


def _sse(name: str, body: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(body)}\n\n".encode()


async def _enhanced(server: ServerState, order: ImageOrder) -> tuple[ImageOrder, dict[str, Any]]:
    """Return the order with its prompt written out, and what the answer says of that."""
    assert server.enhance is not None
    try:
        prompt = await server.enhance(order.prompt)
    except ApiError as refusal:
        if not order.asking.enhance_fallback:
            raise
        return order, {"warning": f"{refusal.message} The prompt was used as it is."}
    return dataclasses.replace(order, prompt=prompt), {"revised_prompt": prompt}
