"""The images of one request on their way: through the queue, encoded, kept, and handed on."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

from sampan import __version__
from sampan.errors import ApiError, DeadlineExceeded, SampanError, StoreError
from sampan.pipeline import png
from sampan.pipeline.prompt import painted_prompt
from sampan.serve.engine import ImageEvent, ImageTask, Pixels
from sampan.serve.request import ServeRequest, check_painted
from sampan.serve.server import ServerState
from sampan.serve.store import ImageRecord, new_id

log = logging.getLogger("sampan.serve")
PARTIAL_QUALITY = 80  # of WebP and JPEG shown on the way


class ImageJob:
    """The tasks of one request, and what becomes of them; `close` it, whatever happens.

    Raises:
        ApiError: The scheduler does not take the request on.
    """

    def __init__(self, server: ServerState, request: ServeRequest):
        self.server, self.request = server, request
        self.created = int(time.time())
        # what an answer says beside each image
        self.notes: dict[str, str] = {"revised_prompt": request.image.prompt} if request.is_revised else {}
        self._loop = asyncio.get_running_loop()
        self._inbox: asyncio.Queue[ImageEvent | None] = asyncio.Queue()
        self._outbox: asyncio.Queue[ImageEvent] = asyncio.Queue()
        self._beginning: asyncio.Task[None] | None = None
        self._handling: asyncio.Task[None] | None = None
        self.tasks = server.scheduler.admit(request, self._tell)
        self._open = set(self.tasks)
        self.records: list[ImageRecord] = []  # one a task, since it is prepared

    async def prepare(self) -> bool:
        """Do what has to be done before the first byte of an answer; `close` it even where this is cancelled.

        Raises:
            ApiError: The language model for prompts fails, and the plain prompt is not to be used instead.
            StoreError: The images could not be kept.
        """
        await self._enhance_prompt()
        for task in self.tasks:
            task.request = self.request
        self.records = [self._new_record(task) for task in self.tasks]
        beginning = asyncio.to_thread(self.server.store.begin, self.records)
        self._beginning = asyncio.get_running_loop().create_task(beginning)
        await asyncio.shield(self._beginning)  # so that its end is noted after its beginning
        return True

    async def _enhance_prompt(self) -> None:
        """Let the server's language model write the prompt out, where the request wants that."""
        if not self.request.enhance:
            return
        assert self.server.enhance is not None, "checked with the request"
        image = self.request.image
        try:
            prompt = await self.server.enhance(image.prompt)
        except ApiError as error:
            if not self.request.enhance_fallback:
                raise
            self.notes |= {"warning": f"{error.message} The prompt was used as it is."}
            return
        pipeline = self.server.engine.pipeline
        prompt = painted_prompt(prompt, pipeline.config)
        self.request = dataclasses.replace(self.request, image=dataclasses.replace(image, prompt=prompt))
        self.notes = {"revised_prompt": prompt}
        await asyncio.to_thread(check_painted, self.request, pipeline)

    async def events(self, idle_s: float | None = None) -> AsyncIterator[ImageEvent | None]:
        """Start what was prepared and yield what happens, until every image is made or has failed; its errors are `ApiError`.

        Args:
            idle_s: Yield None whenever nothing happened for so long.
        """
        self._handling = asyncio.create_task(self._handle_events())
        self.server.scheduler.submit(self.tasks)
        num_open = len(self.tasks)
        while num_open:
            try:
                event = await asyncio.wait_for(self._outbox.get(), idle_s)
            except TimeoutError:
                yield None
                continue
            num_open -= event.partial is None
            yield event

    async def close(self) -> None:
        """Let go of what is not finished: nobody waits for it. What is painted already is kept."""
        for task in self.tasks:
            task.gone = True
            self.server.scheduler.leave(task)
        if self._handling is not None:
            self._inbox.put_nowait(None)
            await self._handling
        if self._open and self._beginning is not None:
            self._note_end(list(self._open), "cancelled")

    def _tell(self, event: ImageEvent) -> None:
        """Take an event from the engine's thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._inbox.put_nowait, event)

    async def _handle_events(self) -> None:
        """Encode and keep what comes, whether or not somebody reads on; one file at a time."""
        while (event := await self._inbox.get()) is not None:
            task = event.task
            if task not in self._open:
                continue
            state = "timed out" if isinstance(event.error, DeadlineExceeded) else "failed"
            try:
                event = await asyncio.to_thread(self._handle, event)
            except StoreError as error:
                log.warning("a picture could not be kept: %s", "; ".join([error.what, *error.because]))
                event = ImageEvent(task, error=error.answer())
            except Exception:
                log.exception("a picture could not be kept")
                error = ApiError(500, "not_kept", "The picture was painted and could not be kept.")
                event = ImageEvent(task, error=error)
            if event.partial is None:
                task.gone = True
                self._open.discard(task)
                self.server.scheduler.leave(task)
            self._outbox.put_nowait(event)
            if event.error is not None:
                self._note_end([task], state)

    def _note_end(self, tasks: list[ImageTask], state: str) -> None:
        """Note how images ended that were not finished; nobody waits for it, whatever state the store is in."""
        ids = [self.records[task.index].id for task in tasks]

        async def note() -> None:
            assert self._beginning is not None, "only what was begun ends"
            await asyncio.wait([self._beginning])
            if self._beginning.cancelled() or self._beginning.exception() is not None:
                return
            try:
                await asyncio.to_thread(self.server.store.end, ids, state)
            except StoreError as error:
                log.warning("how a picture ended could not be noted: %s", "; ".join([error.what, *error.because]))
            except Exception:
                log.exception("how a picture ended could not be noted")

        self.server.in_background(note())

    # --- in other threads ------------------------------------------------------------------------------------------------

    def _handle(self, event: ImageEvent) -> ImageEvent:
        """Return an event with its file, which is kept where it is the finished one, or with its error as it is answered."""
        task = event.task
        if event.error is not None:
            return dataclasses.replace(event, error=self._api_error(event.error))
        assert event.pixels is not None, "an event without an error has pixels"
        if event.partial is not None:
            content = self._encode(event.pixels, {"version": __version__}, PARTIAL_QUALITY)
        else:
            content = self._encode(event.pixels, self._facts(task), self.request.output_quality)
            self.server.store.finish(self.records[task.index], content)
        return dataclasses.replace(event, pixels=None, content=content)

    def _api_error(self, error: BaseException) -> ApiError:
        if isinstance(error, DeadlineExceeded):
            message = f"The picture was not ready after {self.server.settings.limits.timeout_s:g} seconds."
            return ApiError(503, "timed_out", message, retry_after_s=10)
        if isinstance(error, SampanError):
            return error if isinstance(error, ApiError) else ApiError.of(error)
        log.error("a picture failed", exc_info=error)
        return ApiError(500, "internal_error", "The server failed at this picture.")

    def _encode(self, pixels: Pixels, facts: dict[str, Any], quality: int) -> bytes:
        if self.request.label:
            pixels = png.labelled(pixels)
        return png.encoded(pixels, facts, self.request.output_format, quality)

    # --- what is known of an image -----------------------------------------------------------------------------------------

    def _new_record(self, task: ImageTask) -> ImageRecord:
        request, image = self.request, self.request.image
        assert image.num_inference_steps is not None and image.guidance_scale is not None, "a request has its defaults"
        return ImageRecord(
            id=new_id(),
            owner=request.owner,
            created=self.created,
            kind=request.kind,
            prompt=image.prompt,
            size=request.size,
            seed=task.seed,
            num_inference_steps=image.num_inference_steps,
            guidance_scale=image.guidance_scale,
            model=self.server.settings.model,
            reference_ids=request.reference_ids,
            output_format=request.output_format,
        )

    def _facts(self, task: ImageTask) -> dict[str, Any]:
        """Return what is written into a finished image's file."""
        image, pipeline = self.request.image, self.server.engine.pipeline
        return {
            "seed": task.seed,
            "picture": 0,
            "width_px": image.width_px,
            "height_px": image.height_px,
            "num_inference_steps": image.num_inference_steps,
            "guidance_scale": image.guidance_scale,
            "num_references": len(self.request.references),
            "model_hash": pipeline.folder.hash,
            "dtype": pipeline.dtype,
            "version": __version__,
            **task.proofread_facts,
            "prompt": image.prompt,
        }
