"""The model at work on several pictures, one step at a time.

A picture is read into the generator's batch, its tokens are written beside those of others, and then it is painted alone,
in the order in which tokens were finished. Between two steps the engine looks who has gone; nothing waits longer for that
than one step takes. Writing and painting share the time equally while both have something to do.
"""

# over 400 lines because reading, writing, painting and letting go are one loop over the same pictures

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sampan.data.pictures import to_array, to_uint8
from sampan.errors import DeadlineExceeded
from sampan.models import positions
from sampan.models.dit import KV
from sampan.models.positions import Grid
from sampan.models.text import glyph_texts
from sampan.pipeline.denoise import DenoiseState, InpaintingRegion
from sampan.pipeline.pipeline import Pipeline, ReferenceImage
from sampan.pipeline.request import check_length
from sampan.pipeline.tokens import BatchedDecoder, TokenSequence
from sampan.samplers import noise
from sampan.serve.request import ServeRequest

Pixels = NDArray[np.uint8]
Proofread = Callable[[Sequence[Pixels], str], list[float]]
PREVIEW_STEPS = 4  # of the decoder, for a look at the generator's preview and for proofreading
PREVIEW_GUIDANCE = 1.0
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
    subject: SharedInputs | None = None
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


class SharedInputs:
    """What the pictures of one request have in common, computed when first needed."""

    def __init__(self, pipeline: Pipeline, request: ServeRequest):
        self.pipeline, self.request = pipeline, request

    @cached_property
    def size(self) -> Grid:
        """Height and width in pixels."""
        return self.pipeline.size_of(self.request.image, self.request.references)

    @cached_property
    def references(self) -> list[ReferenceImage]:
        """The references' tokens."""
        return [self.pipeline.read_reference(image) for image in self.request.references]

    @cached_property
    def reference_kv(self) -> tuple[KV, ...] | None:
        """The references as the decoder sees them."""
        return self.pipeline.reference_kv(self.references)

    @cached_property
    def grids(self) -> tuple[Grid, ...]:
        """What the generator writes."""
        geometry = self.pipeline.config.geometry
        target = geometry.prior_grid(*self.size)
        return (target,) if self.request.references else (geometry.preview_grid(*self.size), target)

    @cached_property
    def prompt(self) -> tuple[Any, tuple[tuple[int, Grid], ...]]:
        """The prompt's ids, references in place, and where these are."""
        preview = None if self.request.references else self.grids[0]
        grids = [positions.grid_of(reference.ids) for reference in self.references]
        prompt = self.pipeline.prompt_tokenizer.encode(self.request.image.prompt, self.grids[-1], preview, grids)
        check_length(len(prompt.ids), sum(r * c for r, c in self.grids) + 1, self.pipeline.config)
        return prompt.with_reference_ids([r.ids for r in self.references]), prompt.references

    @cached_property
    def glyph(self) -> NDArray[np.float32]:
        """The words to be drawn."""
        return self.pipeline.glyph_embeds(glyph_texts(self.request.image.prompt))

    @cached_property
    def no_glyph(self) -> NDArray[np.float32]:
        """Of no words."""
        return self.pipeline.glyph_embeds([""])

    @cached_property
    def under(self) -> Image.Image:
        """The picture below the mask, at the size that is painted."""
        height, width = self.size
        image = self.request.references[0]
        return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.LANCZOS)

    def mask_at(self, rows: int, columns: int) -> NDArray[np.bool_]:
        """Return the mask on a coarser grid, True in every cell that it touches."""
        assert self.request.mask is not None, "asked for a mask that is not there"
        height, width = self.size
        mask = Image.fromarray(self.request.mask.astype(np.uint8) * 255).resize(
            (width, height), Image.Resampling.NEAREST
        )
        if (rows, columns) == (height, width):
            return np.asarray(mask) > 0
        blocks = np.asarray(mask).reshape(rows, height // rows, columns, width // columns)
        return blocks.max(axis=(1, 3)) > 0


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
        rows = len(self.writer.rows) if what == "writing" else 1
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
        if self.writer.rows and len(self.writer.rows) + needed > self.max_rows:
            return False
        picture = self.waiting.popleft()
        began = time.perf_counter()
        try:
            assert picture.subject is not None, "set where it was submitted"
            ids, references = picture.subject.prompt
            config = self.pipeline.config
            picture.rows = [
                TokenSequence(
                    ids,
                    references,
                    picture.subject.grids,
                    num_codes=min(config.ar.vq.num_embeddings, config.dit.prior_vq_quantizer_codebook_size),
                    sampling=picture.request.image.sampling(config.sampling),
                    seed=picture.seed,
                    picture=number,
                    config=config.ar.text,
                )
                for number in range(needed)
            ]
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
        prior = picture.rows[0].grid_ids(0)
        side = self.pipeline.config.geometry.prior_px
        size = (prior.shape[0] * side, prior.shape[1] * side)
        painting = self._begin(picture.subject, prior, size, picture.seed, PREVIEW_STEPS, PREVIEW_GUIDANCE, quick=True)
        while not painting.done:
            painting.advance()
            yield
        height, width = picture.subject.size
        small = Image.fromarray(self._decoded(painting.latent))
        self._show(picture, np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)))

    def _way(self, picture: ImageTask) -> Iterator[None]:
        """Paint a picture whose tokens are written, and hand it over."""
        subject, request = picture.subject, picture.request.image
        assert subject is not None
        row = picture.rows[0]
        if len(picture.rows) > 1:
            row = yield from self._choose(picture)
        steps = request.steps(self.pipeline.config.painting)
        guidance = request.guidance(self.pipeline.config.painting)
        painting = self._begin(subject, row.grid_ids(-1), subject.size, picture.seed, steps, guidance)
        left = picture.request.num_partials - picture.num_shown
        shown = {round((number + 1) * steps / (left + 1)) for number in range(left)} - {steps}
        while not painting.done:
            painting.advance()
            if painting.step in shown:
                yield
                self._show(picture, self._whole(subject, self._decoded(painting.clean())))
            yield
        image_tokens = sum(r.ids.size for r in subject.references)
        picture.facts |= {
            "image_tokens": image_tokens,
            "text_tokens": len(row.prompt_ids) - image_tokens,
            "output_tokens": sum(row.total for row in picture.rows),
        }
        picture.tell(ImageEvent(picture, pixels=self._whole(subject, self._decoded(painting.latent))))

    def _choose(self, picture: ImageTask) -> Iterator[None]:
        """Return the row whose quick painting reads best."""
        subject = picture.subject
        assert subject is not None and self.proofread is not None, "checked where it was submitted"
        looks = []
        for row in picture.rows:
            painting = self._begin(
                subject, row.grid_ids(-1), subject.size, picture.seed, PREVIEW_STEPS, PREVIEW_GUIDANCE
            )
            while not painting.done:
                painting.advance()
                yield
            looks.append(self._whole(subject, self._decoded(painting.latent)))
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

    def _begin(
        self, subject: SharedInputs, prior: Any, size: Grid, seed: int, steps: int, guidance: float, quick: bool = False
    ) -> DenoiseState:
        """Return a painting at its noise; of a quick look the words and what stays are left out."""
        config = self.pipeline.config
        height, width = size[0] // config.vae.factor, size[1] // config.vae.factor
        shape = (config.vae.latent_channels, height, width)
        kept = None
        if subject.request.mask is not None and not quick:
            under = to_array(subject.under)[None]
            mask = subject.mask_at(height, width)[None, None].astype(np.float32)
            kept = InpaintingRegion(self.pipeline.encode(under), mask)
            prior = np.where(subject.mask_at(*prior.shape), prior, self._tokens_under(subject, prior))
        return self.pipeline.painter().begin(
            prior[None],
            noise.generator(seed, "latent", 0).standard_normal(shape, np.float32)[None],
            subject.glyph,
            subject.no_glyph if guidance > 1 else None,
            subject.reference_kv,
            size,
            steps,
            guidance,
            kept,
        )

    def _tokens_under(self, subject: SharedInputs, prior: Any) -> Any:
        """Return the tokens of the picture below the mask, where it has the same grid as what is painted."""
        ids = subject.references[0].ids
        return ids if ids.shape == prior.shape else prior

    def _decoded(self, latent: Any) -> Pixels:
        return to_uint8(self.pipeline.decode(latent)[0])

    def _whole(self, subject: SharedInputs, pixels: Pixels) -> Pixels:
        """Return what was painted with what was to stay, to the pixel."""
        if subject.request.mask is None:
            return pixels
        return np.where(subject.mask_at(*subject.size)[..., None], pixels, np.asarray(subject.under))

    def _show(self, picture: ImageTask, pixels: Pixels) -> None:
        if not picture.gone and picture.num_shown < picture.request.num_partials:
            picture.tell(ImageEvent(picture, picture.num_shown, pixels))
            picture.num_shown += 1


def _cells(grid: Grid) -> int:
    return grid[0] * grid[1]
