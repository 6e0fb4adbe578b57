"""A request for pictures on its way: through the queue, shown while it is painted, kept, and handed out."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sampan import __version__
from sampan.errors import SampanError
from sampan.job import MAX_SEED
from sampan.models import pixels
from sampan.models.config import ModelConfig
from sampan.models.text import glyph_texts
from sampan.pipeline import png as files
from sampan.pipeline.request import ImageRequest, check_size
from sampan.serve.engine import DeadlineExceeded, ImageTask, Pixels, TaskInputs
from sampan.serve.protocol import QUALITY_STEPS, SIZE, ImageFields
from sampan.serve.refusal import ApiError, refused
from sampan.serve.scheduler import QueueSlot, Scheduler
from sampan.serve.settings import Settings
from sampan.serve.store import ImageRecord, ImageStore, new_id

log = logging.getLogger("sampan.serve")
PARTIAL_QUALITY = 80  # of WebP and JPEG shown on the way


@dataclass(frozen=True)
class PartialImage:
    """A picture on its way."""

    index: int
    number: int
    content: bytes


@dataclass(frozen=True)
class FinishedImage:
    """A finished picture, kept already."""

    index: int
    record: ImageRecord
    content: bytes
    facts: dict[str, Any]


@dataclass(frozen=True)
class FailedImage:
    """A picture that was not made."""

    index: int
    refusal: ApiError


Event = PartialImage | FinishedImage | FailedImage


@dataclass(frozen=True)
class ImageOrder:
    """What is to be made, with every default in its place."""

    kind: str
    owner: str
    prompt: str
    asking: ImageFields
    width_px: int
    height_px: int
    images: tuple[Image.Image, ...] = ()
    mask: NDArray[np.bool_] | None = None
    reference_ids: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many pictures."""
        return self.asking.n or 1

    @property
    def output_format(self) -> str:
        """The files' format."""
        return self.asking.output_format or "png"

    @property
    def size(self) -> str:
        """As OpenAI writes it."""
        return f"{self.width_px}x{self.height_px}"


def size_of(
    asking: ImageFields, images: tuple[Image.Image, ...], config: ModelConfig, settings: Settings
) -> tuple[int, int]:
    """Return width and height of what is asked for.

    Raises:
        Refusal: The model cannot paint that, or it is larger than is painted here.
    """
    geometry = config.geometry
    if asking.size in (None, "auto"):
        width = height = geometry.default_px
        if images:
            try:
                height, width = pixels.reference_size(
                    images[0].height, images[0].width, config.processor, geometry.prior_px
                )
            except SampanError as error:
                raise refused(error, "image") from error
    else:
        found = SIZE.fullmatch(asking.size or "")
        assert found, "checked with the other fields"
        width, height = int(found[1]), int(found[2])
    most = settings.max_area_px or 4 * geometry.default_px**2
    try:
        check_size(height, width, config)
    except SampanError as error:
        raise refused(error, "size", code="invalid_size") from error
    if width * height > most:
        raise ApiError(
            400, "invalid_size", f"{width}x{height} are more than {most} pixels, the most painted here.", "size"
        )
    return width, height


def fitted(image: Image.Image, config: ModelConfig) -> Image.Image:
    """Return a reference at the size at which the model looks at it, so that what waits in the queue is no larger."""
    height, width = pixels.reference_size(image.height, image.width, config.processor, config.geometry.prior_px)
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BICUBIC)


class ServeJob:
    """The pictures of one request.

    Args:
        places: In the queue, one a picture.
        done: Called once with the pictures' number and how each ended.
    """

    def __init__(
        self, order: ImageOrder, places: list[QueueSlot], scheduler: Scheduler, store: ImageStore, settings: Settings
    ):
        self.order, self.settings = order, settings
        self._places, self._scheduler, self._store = places, scheduler, store
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        asking = order.asking
        seed = secrets.randbelow(MAX_SEED + 1) if asking.seed is None else asking.seed
        quality = QUALITY_STEPS.get(asking.quality or "auto", settings.default_steps)
        self.request = ImageRequest(
            prompt=order.prompt,
            width_px=order.width_px,
            height_px=order.height_px,
            num_inference_steps=asking.num_inference_steps or quality,
            guidance_scale=asking.guidance_scale,
            temperature=asking.temperature,
            top_p=asking.top_p,
        )
        self.created = int(time.time())
        steps = self.request.num_inference_steps
        assert steps is not None
        guidance_scale = self.request.guidance(scheduler.engine.pipeline.config.painting)
        self.records = [
            ImageRecord(
                id=new_id(),
                owner=order.owner,
                created=self.created,
                kind=order.kind,
                prompt=order.prompt,
                size=order.size,
                seed=(seed + number) % (MAX_SEED + 1),
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                model=settings.model,
                reference_ids=order.reference_ids,
                output_format=order.output_format,
            )
            for number in range(order.count)
        ]
        asked = TaskInputs(
            self.request,
            order.images,
            order.mask,
            num_partials=(asking.partial_images or 0) if asking.stream else 0,
            num_rows=(asking.proofread or settings.proofread)
            if glyph_texts(order.prompt)
            else 1,  # no words, nothing to read
        )
        deadline = time.monotonic() + settings.limits.timeout_s
        self.pictures = [
            ImageTask(
                asked,
                record.seed,
                deadline,
                partial=self._later(self._shown, index),
                finished=self._later(self._made, index),
                failed=self._later(self._failed, index),
            )
            for index, record in enumerate(self.records)
        ]

    async def begin(self) -> None:
        """Note the pictures, and put them into the queue."""
        await asyncio.to_thread(self._store.begin, self.records)
        self._scheduler.submit(self.pictures)

    async def events(self) -> AsyncIterator[Event]:
        """Yield what happens, until every picture is made or has failed."""
        open_ones = len(self.pictures)
        while open_ones:
            event = await self._events.get()
            open_ones -= not isinstance(event, PartialImage)
            yield event

    async def close(self) -> None:
        """Let go of what is not finished: nobody waits for it. What is being kept is kept."""
        left = [index for index, picture in enumerate(self.pictures) if not picture.gone]
        for picture in self.pictures:
            picture.gone = True
        for place in self._places:
            self._scheduler.leave(place)
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if left:
            await asyncio.to_thread(self._store.end, [self.records[index].id for index in left], "cancelled")

    # --- called from the engine's thread ---------------------------------------------------------------------------------

    def _later(self, what: Callable[..., Any], index: int) -> Callable[..., None]:
        """Return a function that calls a coroutine in the event loop, in the order in which it is called."""

        def call(*values: Any) -> None:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._start, what, index, *values)

        return call

    def _start(self, what: Callable[..., Any], *values: Any) -> None:
        task = self._loop.create_task(what(*values))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _shown(self, index: int, number: int, pixels: Pixels) -> None:
        facts = {"version": __version__}
        content = await asyncio.to_thread(self._encoded, pixels, facts, PARTIAL_QUALITY)
        self._events.put_nowait(PartialImage(index, number, content))

    async def _made(self, index: int, pixels: Pixels, facts: dict[str, Any]) -> None:
        record = self.records[index]
        try:
            quality = self.order.asking.output_compression
            content = await asyncio.to_thread(self._kept, record, pixels, facts, 100 if quality is None else quality)
        except Exception:
            log.exception("a finished picture could not be kept")
            refusal = ApiError(500, "not_kept", "The picture was painted and could not be kept.")
            self._over(index, FailedImage(index, refusal))
            return
        self._over(index, FinishedImage(index, record, content, facts))

    async def _failed(self, index: int, error: BaseException) -> None:
        if isinstance(error, DeadlineExceeded):
            seconds = f"{self.settings.limits.timeout_s:g}"
            refusal = ApiError(
                503, "timed_out", f"The picture was not ready after {seconds} seconds.", retry_after_s=10
            )
        elif isinstance(error, SampanError):
            refusal = refused(error)
        else:
            log.error("a picture failed", exc_info=error)
            refusal = ApiError(500, "internal_error", "The server failed at this picture.")
        state = "timed out" if isinstance(error, DeadlineExceeded) else "failed"
        try:
            await asyncio.to_thread(self._store.end, [self.records[index].id], state)
        except Exception:
            log.exception("how a picture ended could not be noted")
        self._over(index, FailedImage(index, refusal))

    def _over(self, index: int, event: FinishedImage | FailedImage) -> None:
        self.pictures[index].gone = True
        self._scheduler.leave(self._places[index])
        self._events.put_nowait(event)

    # --- in other threads --------------------------------------------------------------------------------------------------

    def _kept(self, record: ImageRecord, pixels: Pixels, facts: dict[str, Any], quality: int) -> bytes:
        request = self.request
        told = {
            "seed": record.seed,
            "picture": 0,
            "width_px": self.order.width_px,
            "height_px": self.order.height_px,
            "num_inference_steps": request.num_inference_steps,
            "guidance_scale": record.guidance_scale,
            "num_references": len(self.order.images),
            "model_hash": self._scheduler.engine.pipeline.folder.hash,
            "dtype": self._scheduler.engine.pipeline.dtype,
            "version": __version__,
            **{key: value for key, value in facts.items() if key.startswith("proofread")},
            "prompt": record.prompt,
        }
        content = self._encoded(pixels, told, quality)
        self._store.finish(record, content)
        return content

    def _encoded(self, pixels: Pixels, facts: dict[str, Any], quality: int) -> bytes:
        if self.settings.label or self.order.asking.label:
            pixels = files.labelled(pixels)
        return files.encoded(pixels, facts, self.order.output_format, quality)


def event_json(job: ServeJob, event: PartialImage | FinishedImage) -> dict[str, Any]:
    """Return an event as OpenAI's streams have it, with the picture's id and seed beside it."""
    record = job.records[event.index]
    prefix = "image_generation" if job.order.kind == "generation" else "image_edit"
    shared = {
        "b64_json": base64.b64encode(event.content).decode(),
        "created_at": int(time.time()),
        "size": job.order.size,
        "quality": job.order.asking.quality or "auto",
        "background": "opaque",
        "output_format": job.order.output_format,
        "id": record.id,
        "seed": record.seed,
        "index": event.index,
    }
    if isinstance(event, PartialImage):
        return {"type": f"{prefix}.partial_image", **shared, "partial_image_index": event.number}
    return {"type": f"{prefix}.completed", **shared, "usage": usage([event]), **proofread(event)}


def proofread(made: FinishedImage) -> dict[str, Any]:
    """Return what proofreading found."""
    return {key: value for key, value in made.facts.items() if key.startswith("proofread")}


def usage(made: list[FinishedImage]) -> dict[str, Any]:
    """Return the tokens that pictures took."""
    total = {key: sum(m.facts.get(key, 0) for m in made) for key in ("image_tokens", "text_tokens", "output_tokens")}
    read = total["image_tokens"] + total["text_tokens"]
    return {
        "input_tokens": read,
        "input_tokens_details": {"image_tokens": total["image_tokens"], "text_tokens": total["text_tokens"]},
        "output_tokens": total["output_tokens"],
        "total_tokens": read + total["output_tokens"],
    }


def past(record: ImageRecord, url: str) -> dict[str, Any]:
    """Return a picture as the history has it."""
    known = dataclasses.asdict(record)
    del known["owner"]
    return known | {"reference_ids": list(record.reference_ids), "url": url}
