"""Pictures of many prompts at once: tokens written side by side, latents painted side by side.

A picture is the one that its request gives alone, up to the order in which a product's terms are added. Parts of the model
can be left out, to see what each brings.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from sampan.data import encode
from sampan.data.pictures import to_array, to_uint8
from sampan.frameworks import io, ops
from sampan.models import positions
from sampan.models.dit import KV
from sampan.models.positions import Grid
from sampan.models.text import glyph_batch, glyph_texts
from sampan.pipeline.pipeline import Pipeline, ReferenceImage
from sampan.pipeline.request import ImageRequest, check_length
from sampan.pipeline.tokens import BatchedDecoder, TokenSequence
from sampan.samplers import noise

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]

ABLATIONS = {
    "prior": "tokens of the true picture instead of written ones",
    "glyph": "no words in quotes for the decoder",
    "preview": "no preview before the tokens",
    "decoder": "all weights of the decoder zero",
}
STAGES = ("glyph", "tokens", "decoder", "vae")
_SIDE_BY_SIDE = 32  # rows of tokens; a step's cost on a CPU hardly grows up to there
_PAINTED_TOGETHER = 16  # latents


@dataclass(frozen=True)
class BatchItem:
    """One picture to paint.

    Args:
        request: For one picture; its files of references and to inject are not read.
        images: The references.
        truth: What it should look like; only used where the true picture's tokens are asked for.
    """

    request: ImageRequest
    images: tuple[Image, ...] = ()
    truth: Image | None = None


@dataclass
class StageClock:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    def charge(self, stage: str, begun: float) -> None:
        """Add what passed since `begun`."""
        self.seconds[stage] += time.perf_counter() - begun


def zero_decoder(pipeline: Pipeline) -> None:
    """Set all weights of the decoder to zero."""
    decoder = pipeline.part("decoder")
    io.put_weights(decoder, {name: np.zeros(shape, np.float32) for name, shape in io.shapes(decoder).items()})


def paint_all(
    pipeline: Pipeline,
    asked: Sequence[BatchItem],
    ablate: frozenset[str] = frozenset(),
    clock: StageClock | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Pixels]:
    """Return a picture (H, W, 3) for each request, in their order.

    Args:
        ablate: Names in ABLATIONS, to be left out; `decoder` is for `zero_decoder`, once.
        progress: Called with what is under way, how much is done, how much there is.

    Raises:
        RequestError: What was asked cannot be done.
    """
    clock, report = clock or StageClock(), progress or (lambda what, done, total: None)
    assert all(one.request.count == 1 and one.request.inject is None for one in asked), "one picture for each request"
    sizes = [pipeline.size_of(one.request, one.images) for one in asked]
    references = [[pipeline.read_reference(image) for image in one.images] for one in asked]
    begun = time.perf_counter()
    glyphs = [_glyph(pipeline, one.request.prompt, "glyph" in ablate) for one in asked]
    clock.charge("glyph", begun)
    begun = time.perf_counter()
    if "prior" in ablate:
        priors = [true_tokens(pipeline, one.truth, size) for one, size in zip(asked, sizes, strict=True)]
    else:
        priors = _write(pipeline, asked, sizes, references, "preview" in ablate, report)
    clock.charge("tokens", begun)
    return _paint(pipeline, asked, sizes, references, glyphs, priors, clock, report)


def true_tokens(pipeline: Pipeline, image: Image | None, size: Grid) -> Ints:
    """Return the tokens (rows, columns) of a picture, as the generator learned to write them."""
    assert image is not None, "there is a true picture"
    config = pipeline.config
    grid = config.geometry.prior_grid(*size)
    patches = encode.grid_patches(image, grid, config.ar.vision.patch_size)
    tokenizer = pipeline.part("tokenizer")
    return encode.token_ids(tokenizer, patches[None], grid, config, pipeline.device, pipeline.dtype)[0].reshape(grid)


def _glyph(pipeline: Pipeline, prompt: str, without: bool) -> Floats:
    texts = [] if without else glyph_texts(prompt)
    glyph_batch(texts)
    return pipeline.glyph_embeds(texts)


def _write(
    pipeline: Pipeline,
    asked: Sequence[BatchItem],
    sizes: Sequence[Grid],
    references: Sequence[Sequence[ReferenceImage]],
    without_preview: bool,
    report: Callable[[str, int, int], None],
) -> list[Ints]:
    config, tokenizer = pipeline.config, pipeline.prompt_tokenizer
    rows = []
    for one, size, own in zip(asked, sizes, references, strict=True):
        target = config.geometry.prior_grid(*size)
        preview = None if own or without_preview else config.geometry.preview_grid(*size)
        grids = (target,) if preview is None else (preview, target)
        prompt = tokenizer.encode(one.request.prompt, target, preview, [positions.grid_of(r.ids) for r in own])
        check_length(len(prompt.ids), sum(r * c for r, c in grids) + 1, config)
        rows.append(
            TokenSequence(
                prompt.with_reference_ids([r.ids for r in own]),
                prompt.references,
                grids,
                num_codes=min(config.ar.vq.num_embeddings, config.dit.prior_vq_quantizer_codebook_size),
                sampling=one.request.sampling(config.sampling),
                seed=one.request.seed,
                picture=0,
                config=config.ar.text,
            )
        )
    # rows of a like length waste no slots on one another
    order = sorted(range(len(rows)), key=lambda index: len(rows[index].prompt_ids))
    done, total = 0, sum(row.total for row in rows)
    for first in range(0, len(rows), _SIDE_BY_SIDE):
        writer = BatchedDecoder(pipeline.part("ar"), pipeline.device, pipeline.dtype)
        group = [rows[index] for index in order[first : first + _SIDE_BY_SIDE]]
        for row in group:
            writer.join([row])
        while not all(row.done for row in group):
            writer.step()
            report("writing tokens", done + sum(len(row.written) for row in group), total)
        done += sum(row.total for row in group)
    return [row.grid_ids(-1) for row in rows]


def _paint(
    pipeline: Pipeline,
    asked: Sequence[BatchItem],
    sizes: Sequence[Grid],
    references: Sequence[Sequence[ReferenceImage]],
    glyphs: Sequence[Floats],
    priors: Sequence[Ints],
    clock: StageClock,
    report: Callable[[str, int, int], None],
) -> list[Pixels]:
    """Paint those together whose shapes and settings are the same."""
    config, nothing = pipeline.config, pipeline.glyph_embeds([""])
    begun = time.perf_counter()
    latents = [[pipeline.encode(to_array(r.image)[None]) for r in own] for own in references]
    clock.charge("vae", begun)
    alike: dict[tuple[object, ...], list[int]] = {}
    for index, one in enumerate(asked):
        request = one.request
        shapes = tuple((r.image.size, r.ids.shape) for r in references[index])
        steps = request.steps(config.painting)
        key = (sizes[index], glyphs[index].shape[1], steps, request.guidance(config.painting), shapes)
        alike.setdefault(key, []).append(index)
    painted: list[Pixels | None] = [None] * len(asked)
    done = 0
    for members in alike.values():
        for first in range(0, len(members), _PAINTED_TOGETHER):
            group = members[first : first + _PAINTED_TOGETHER]
            request, size = asked[group[0]].request, sizes[group[0]]
            guidance_scale = request.guidance(config.painting)
            shape = (config.vae.latent_channels, size[0] // config.vae.factor, size[1] // config.vae.factor)
            begun = time.perf_counter()
            latent = pipeline.painter().paint(
                np.stack([priors[i] for i in group]),
                np.stack(
                    [
                        noise.generator(asked[i].request.seed, "latent", 0).standard_normal(shape, np.float32)
                        for i in group
                    ]
                ),
                np.concatenate([glyphs[i] for i in group]),
                nothing if guidance_scale > 1 else None,
                _reference_kv(pipeline, [references[i] for i in group], [latents[i] for i in group]),
                size,
                request.steps(config.painting),
                guidance_scale,
            )
            clock.charge("decoder", begun)
            begun = time.perf_counter()
            for index, image in zip(group, pipeline.decode(latent), strict=True):
                painted[index] = to_uint8(image)
            clock.charge("vae", begun)
            done += len(group)
            report("painting", done, len(asked))
    return [pixels for pixels in painted if pixels is not None]


def _reference_kv(
    pipeline: Pipeline, references: Sequence[Sequence[ReferenceImage]], latents: Sequence[Sequence[Floats]]
) -> tuple[KV, ...] | None:
    """Return keys and values of each picture's references, one row a picture, or None without references."""
    painter, written = pipeline.painter(), []
    for own, encoded in zip(references, latents, strict=True):
        kv = painter.reference_kv(encoded, [r.ids for r in own], [(r.image.height, r.image.width) for r in own])
        if kv is None:
            return None
        written.append(kv)
    layers = range(len(written[0]))
    return tuple(
        (ops.concat([kv[i][0] for kv in written], 0), ops.concat([kv[i][1] for kv in written], 0)) for i in layers
    )
