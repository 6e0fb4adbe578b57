"""The model at work on several pictures, one step at a time.

A picture is read into the generator's batch, its tokens are written beside those of others, and then it is painted alone,
in the order in which tokens were finished. Between two steps the engine looks who has gone; nothing waits longer for that
than one step takes. Writing and painting share the time equally while both have something to do.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sampan.data.pictures import to_uint8
from sampan.errors import DeadlineExceeded
from sampan.models.positions import Grid
from sampan.pipeline.denoise import DenoiseState
from sampan.pipeline.pipeline import Pipeline
from sampan.pipeline.prepare import Prepared
from sampan.pipeline.tokens import BatchedDecoder, TokenSequence
from sampan.serve.request import ServeRequest

Pixels = NDArray[np.uint8]
Proofread = Callable[[Sequence[Pixels], str], list[float]]
# of the decoder, for a look at the generator's preview and for proofreading
_PREVIEW: dict[str, Any] = {"num_steps": 4, "guidance_scale": 1.0}
_READING_S = 0.005


@dataclass(frozen=True)
class ImageEvent:
    """What became of a task.

    Args:
        partial: Number of an image shown on the way; None for the task's end.
        pixels: (height, width, 3); None where the task failed.
        error: Why it failed.
        content: The image's file, once the pixels are encoded.
    """

    task: ImageTask
    partial: int | None = None
    pixels: Pixels | None = None
    error: BaseException | None = None
    content: bytes = b""


@dataclass(eq=False)  # each is itself: two may ask for the same
class ImageTask:
    """One image under way, which holds a place in the queue until it is over.

    Args:
        request: Shared with the other images of the request.
        seed: Gives this image alone.
        index: Number among the images of the request.
        tell: Called from the engine's thread with what becomes of the task.
        deadline: On the monotonic clock; later it is given up.
    """

    request: ServeRequest
    seed: int
    index: int
    tell: Callable[[ImageEvent], None]
    deadline: float = math.inf
    subject: Prepared | None = None
    rows: list[TokenSequence] = field(default_factory=list)
    gone: bool = False  # set from any thread: nobody waits for it any more
    previewed: bool = False
    num_shown: int = 0
    reading: Future[list[float]] | None = None  # what proofreading is at
    facts: dict[str, Any] = field(default_factory=dict)  # tokens, and what proofreading chose

    @property
    def is_read(self) -> bool:
        """Whether painting waits for proofreading."""
        return self.reading is not None and not self.reading.done()

    @property
    def proofread_facts(self) -> dict[str, Any]:
        """What proofreading chose; empty where nothing was read."""
        return {key: value for key, value in self.facts.items() if key.startswith("proofread")}


def prepare_request(pipeline: Pipeline, request: ServeRequest) -> Prepared:
    """Return what the images of one request have in common, computed when it is first needed."""
    return Prepared(pipeline, request.image, request.references, request.mask)


class Engine:
    """Pictures under way. Every method but `gone` of a picture belongs to one thread.

    Args:
        max_rows: Rows of tokens written together.
        proofread: Called with pixels and prompt; greater is better. Needed where rows are to be chosen from.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        max_rows: int = 8,
        proofread: Callable[[Sequence[Pixels], str], list[float]] | None = None,
    ):
        self.pipeline, self.max_rows, self.proofread = pipeline, max_rows, proofread
        self.writer = BatchedDecoder(pipeline.part("ar"), pipeline.device, pipeline.dtype)
        self.waiting: deque[ImageTask] = deque()
        self._writing: list[ImageTask] = []
        self._painting: deque[tuple[ImageTask, Iterator[None]]] = deque()
        self._readers = ThreadPoolExecutor(1, "proofreading")
        self._spent = {"writing": 0.0, "painting": 0.0}  # seconds since both had something to do
        self.observe: Callable[[str, float, int], None] = lambda what, seconds, rows: None

    @property
    def num_under_way(self) -> int:
        """Pictures that are written or painted."""
        return len(self._writing) + len({id(picture) for picture, _ in self._painting})

    def load(self) -> None:
        """Read every part, so that the first picture does not wait for it."""
        for part in ("tokenizer", "glyph", "decoder", "vae"):
            self.pipeline.part(part)

    def turn(self) -> bool:
        """Take one step; say whether there was one to take."""
        self._drop()
        if self._admit():
            return True
        ready = any(not picture.is_read for picture, _ in self._painting)
        if self._writing and ready:
            what = min(self._spent, key=lambda kind: self._spent[kind])
        elif self._writing or self._painting:
            self._spent = dict.fromkeys(self._spent, 0.0)
            what = "writing" if self._writing else "painting"
        else:
            return False
        if what == "painting" and not ready:
            time.sleep(_READING_S)  # nothing to do but to wait for what is read
            return True
        began = time.perf_counter()
        rows = len(self.writer.sequences) if what == "writing" else 1
        self._write() if what == "writing" else self._paint()
        seconds = time.perf_counter() - began
        self._spent[what] += seconds
        self.observe(what, seconds, rows)
        return True

    # --- who comes and goes --------------------------------------------------------------------------------------------

    def _drop(self) -> None:
        """Let go of pictures that nobody waits for, or whose time is over."""
        now = time.monotonic()
        every = [*self.waiting, *self._writing, *(picture for picture, _ in self._painting)]
        for picture in every:
            if not picture.gone and now > picture.deadline:
                self._fail(picture, DeadlineExceeded("the time for this picture is over"))
        if any(picture.gone for picture in every):
            for picture in every:
                if picture.gone and picture.reading is not None:
                    picture.reading.cancel()
            self.waiting = deque(p for p in self.waiting if not p.gone)
            self._writing = [p for p in self._writing if not p.gone]
            self._painting = deque((p, way) for p, way in self._painting if not p.gone)
            self._keep_rows()

    def _keep_rows(self) -> None:
        """Take the rows of pictures that are no longer written out of the batch: `_admit` counts those that are there."""
        try:
            self.writer.keep([row for picture in self._writing for row in picture.rows])
        except Exception as error:  # noqa: BLE001  # the rows' cache is cut half way, and no row can go on
            self._fail_written(error)

    def _fail_written(self, error: Exception) -> None:
        for picture in self._writing:
            self._fail(picture, error)
        self._writing = []
        self.writer.keep([])

    def fail_all(self, error: BaseException) -> None:
        """Give up every picture, as when the engine itself cannot go on."""
        for picture in [*self.waiting, *self._writing, *(picture for picture, _ in self._painting)]:
            if not picture.gone:
                self._fail(picture, error)

    def _fail(self, picture: ImageTask, error: BaseException) -> None:
        picture.gone = True
        picture.tell(ImageEvent(picture, error=error))

    def _admit(self) -> bool:
        """Read the next picture's prompt, if there is room for its rows."""
        if not self.waiting:
            return False
        needed = self.waiting[0].request.num_rows
        if self.writer.sequences and len(self.writer.sequences) + needed > self.max_rows:
            return False
        picture = self.waiting.popleft()
        began = time.perf_counter()
        try:
            assert picture.subject is not None, "set where it was submitted"
            picture.rows = [picture.subject.sequence(number, picture.seed) for number in range(needed)]
            self.writer.join(picture.rows)
            self._writing.append(picture)
        except Exception as error:  # noqa: BLE001  # whatever goes wrong is one picture's and not the server's
            self._fail(picture, error)
            self._keep_rows()
        self.observe("reading", time.perf_counter() - began, 1)
        return True

    # --- writing ---------------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        try:
            self.writer.step()
        except Exception as error:  # noqa: BLE001  # rows share a step, and nobody knows whose fault it was
            self._fail_written(error)
            return
        for picture in list(self._writing):
            row = picture.rows[0]
            if all(row.done for row in picture.rows):
                self._writing.remove(picture)
                self._painting.append((picture, self._way(picture)))
            elif self._shows_preview(picture) and not picture.previewed and len(row.written) >= _cells(row.grids[0]):
                picture.previewed = True
                self._painting.appendleft((picture, self._preview(picture)))
        self._keep_rows()  # those that are done make room now: there may be no further step

    def _shows_preview(self, picture: ImageTask) -> bool:
        return picture.request.num_partials > 0 and len(picture.rows) == 1 and len(picture.rows[0].grids) == 2

    # --- painting --------------------------------------------------------------------------------------------------------

    def _paint(self) -> None:
        """Take one step with the first picture that is not being read."""
        first = next(one for one in self._painting if not one[0].is_read)
        picture, way = first
        try:
            next(way)
        except StopIteration:
            self._painting.remove(first)
        except Exception as error:  # noqa: BLE001  # as in _admit
            self._painting.remove(first)
            self._fail(picture, error)

    def _preview(self, picture: ImageTask) -> Iterator[None]:
        """Show what the generator wrote first: the whole picture in few tokens."""
        assert picture.subject is not None
        painting = self._start(picture, picture.rows[0].grid_ids(0), **_PREVIEW, is_preview=True)
        while not painting.done:
            painting.step()
            yield
        height, width = picture.subject.size
        small = Image.fromarray(self._decoded(painting.latent))
        self._show(picture, np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)))

    def _way(self, picture: ImageTask) -> Iterator[None]:
        """Paint a picture whose tokens are written, and hand it over."""
        subject, row = picture.subject, picture.rows[0]
        assert subject is not None
        if len(picture.rows) > 1:
            row = yield from self._choose(picture)
        painting, steps = self._start(picture, row.grid_ids(-1)), subject.num_steps
        left = picture.request.num_partials - picture.num_shown
        shown = {round((number + 1) * steps / (left + 1)) for number in range(left)} - {steps}
        while not painting.done:
            painting.step()
            if painting.steps_taken in shown:
                yield
                self._show(picture, subject.compose(self._decoded(painting.predict_clean())))
            yield
        image_tokens = sum(r.ids.size for r in subject.references)
        picture.facts |= {
            "image_tokens": image_tokens,
            "text_tokens": len(row.prompt_ids) - image_tokens,
            "output_tokens": sum(row.total for row in picture.rows),
        }
        picture.tell(ImageEvent(picture, pixels=subject.compose(self._decoded(painting.latent))))

    def _choose(self, picture: ImageTask) -> Iterator[None]:
        """Return the row whose quick painting reads best."""
        subject = picture.subject
        assert subject is not None and self.proofread is not None, "checked where it was submitted"
        looks = []
        for row in picture.rows:
            painting = self._start(picture, row.grid_ids(-1), **_PREVIEW)
            while not painting.done:
                painting.step()
                yield
            looks.append(subject.compose(self._decoded(painting.latent)))
            yield
        # another program reads: the model goes on with other pictures
        picture.reading = self._readers.submit(self.proofread, looks, picture.request.image.prompt)
        yield
        scores = picture.reading.result()
        best = int(np.argmax(scores))
        picture.facts |= {
            "proofread_rows": len(scores),
            "proofread_chosen": best,
            "proofread_score": round(scores[best], 4),
        }
        if picture.num_shown < picture.request.num_partials:
            self._show(picture, looks[best])
        return picture.rows[best]  # type: ignore[return-value]

    def _start(self, picture: ImageTask, prior_ids: Any, **settings: Any) -> DenoiseState:
        """Return a picture at its noise; settings as `Prepared.denoise_inputs`."""
        assert picture.subject is not None, "set where it was submitted"
        inputs = picture.subject.denoise_inputs(prior_ids, 0, picture.seed, **settings)
        return self.pipeline.denoiser().start(inputs)

    def _decoded(self, latent: Any) -> Pixels:
        return to_uint8(self.pipeline.decode(latent)[0])

    def _show(self, picture: ImageTask, pixels: Pixels) -> None:
        if not picture.gone and picture.num_shown < picture.request.num_partials:
            picture.tell(ImageEvent(picture, picture.num_shown, pixels))
            picture.num_shown += 1


def _cells(grid: Grid) -> int:
    return grid[0] * grid[1]
