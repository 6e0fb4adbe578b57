"""What the two loops need for the images of one request: grids, prompt ids, embeddings, references, noise, inpainting region.

`prepare` opens a request's files and says early what cannot be done. Everything else of `Prepared` is computed when it is
first needed, and once for all images of the request.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sampan.data.pictures import load_rgb, to_array
from sampan.models import positions
from sampan.models.config import ModelConfig, SamplingConfig
from sampan.models.dit import KV
from sampan.models.positions import Grid
from sampan.models.text import PromptTokenizer, glyph_batch, glyph_texts
from sampan.pipeline.denoise import DenoiseInputs, InpaintingRegion, initial_noise, is_guided
from sampan.pipeline.inject import InjectedInputs, read_injected
from sampan.pipeline.prompt import check_characters, check_prompt, painted_prompt
from sampan.pipeline.request import ImageRequest, check_length, check_size, default_size
from sampan.pipeline.tokens import TokenSequence

if TYPE_CHECKING:
    from sampan.pipeline.pipeline import Pipeline

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class ReferenceImage:
    """A reference at a size on which tokenizer and autoencoder agree.

    Args:
        image: RGB.
        ids: Its visual tokens (rows, columns).
    """

    image: Image.Image
    ids: Ints


@dataclass(frozen=True)
class TokenLayout:
    """What the AR generator reads and writes for an image.

    Args:
        prompt_ids: (tokens,), reference ids in place, image-start token last.
        references: Index of the first token and grid of each reference.
        grids: Of what is written: preview then target, or the target alone.
    """

    prompt_ids: Ints
    references: tuple[tuple[int, Grid], ...]
    grids: tuple[Grid, ...]

    def sequence(self, config: ModelConfig, sampling: SamplingConfig, seed: int, picture: int) -> TokenSequence:
        """Return the tokens of image number `picture` of a seed, none of them written."""
        return TokenSequence(
            self.prompt_ids,
            self.references,
            self.grids,
            # the AR generator and the decoder may have been made for different numbers of codes
            num_codes=min(config.ar.vq.num_embeddings, config.dit.prior_vq_quantizer_codebook_size),
            sampling=sampling,
            seed=seed,
            picture=picture,
            config=config.ar.text,
        )


def lay_out_tokens(
    prompt: str,
    size: Grid,
    reference_ids: Sequence[Ints],
    *,
    tokenizer: PromptTokenizer,
    config: ModelConfig,
    with_preview: bool = True,
) -> TokenLayout:
    """Return the layout of an image of (height, width) in pixels; one with references has no preview.

    Raises:
        RequestError: The prompt spells a control token.
    """
    target = config.geometry.prior_grid(*size)
    preview = None if reference_ids or not with_preview else config.geometry.preview_grid(*size)
    encoded = tokenizer.encode(prompt, target, preview, [positions.grid_of(ids) for ids in reference_ids])
    grids = (target,) if preview is None else (preview, target)
    return TokenLayout(encoded.with_reference_ids(reference_ids), encoded.references, grids)


class Prepared:
    """A request on its way to the two loops.

    Args:
        pipeline: Computes what is asked for.
        images: References, opened; the request's own files are not read.
        mask: (H, W) of the first reference, True where is painted; the rest stays.
        with_preview: Whether the preview's tokens are written before the image's.
        with_words: Whether the decoder is told the words to be drawn.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        request: ImageRequest,
        images: Sequence[Image.Image] = (),
        mask: NDArray[np.bool_] | None = None,
        with_preview: bool = True,
        with_words: bool = True,
    ):
        request = dataclasses.replace(request, prompt=painted_prompt(request.prompt, pipeline.config))
        self.pipeline, self.request, self.images, self.mask = pipeline, request, tuple(images), mask
        self.with_preview, self.with_words, self.config = with_preview, with_words, pipeline.config
        self.num_steps = request.steps(self.config.painting)
        self.guidance_scale = request.guidance(self.config.painting)

    @cached_property
    def size(self) -> Grid:
        """Height and width in pixels: as asked for, else `default_size` of the first image.

        Raises:
            RequestError: The model cannot paint that size.
        """
        height, width = self.request.height_px, self.request.width_px
        if height is None or width is None:
            shape = (self.images[0].height, self.images[0].width) if self.images else (1, 1)
            height, width = default_size(shape, self.config)
        check_size(height, width, self.config)
        return height, width

    @cached_property
    def injected(self) -> InjectedInputs:
        """What is not computed: what the request's file holds, or what was set; errors as `read_injected`."""
        return read_injected(self.request, self.size, self.config)

    # --- for the token loop ------------------------------------------------------------------------------------------

    @cached_property
    def references(self) -> list[ReferenceImage]:
        """The references with their tokens."""
        return [self.pipeline.read_reference(image) for image in self.images]

    @cached_property
    def layout(self) -> TokenLayout:
        """What the AR generator reads and writes.

        Raises:
            RequestError: The prompt spells a control token, or is too long.
        """
        layout = lay_out_tokens(
            self.request.prompt,
            self.size,
            [reference.ids for reference in self.references],
            tokenizer=self.pipeline.prompt_tokenizer,
            config=self.config,
            with_preview=self.with_preview,
        )
        # the end token, which is not written, has a position too
        check_length(len(layout.prompt_ids), sum(rows * columns for rows, columns in layout.grids) + 1, self.config)
        return layout

    def sequence(self, picture: int, seed: int | None = None) -> TokenSequence:
        """Return the tokens of image number `picture` of a seed, none of them written; by default of the request's seed."""
        sampling = self.request.sampling(self.config.sampling)
        return self.layout.sequence(self.config, sampling, self.request.seed if seed is None else seed, picture)

    # --- for the denoising loop --------------------------------------------------------------------------------------

    @cached_property
    def glyph_embeds(self) -> Floats:
        """Of the words to be drawn, (1, tokens, width)."""
        if self.injected.glyph_embeds is not None:
            return self.injected.glyph_embeds
        return self.pipeline.glyph_embeds(glyph_texts(self.request.prompt) if self.with_words else [])

    @cached_property
    def no_glyph_embeds(self) -> Floats:
        """Of the empty string, (1, tokens, width)."""
        return self.pipeline.glyph_embeds([""])

    def embed_words(self, guidance_scale: float) -> tuple[Floats, Floats | None]:
        """Return the embeddings of the words, and those of no words where a guidance scale needs them."""
        return self.glyph_embeds, self.no_glyph_embeds if is_guided(guidance_scale) else None

    @cached_property
    def reference_latents(self) -> list[Floats]:
        """The references' normalised latents, each (1, channels, h, w)."""
        return [self.pipeline.encode(to_array(reference.image)[None]) for reference in self.references]

    @cached_property
    def reference_kv(self) -> tuple[KV, ...] | None:
        """The references' keys and values per decoder layer, or None without references."""
        if not self.references:
            return None
        latents = self.reference_latents  # before the decoder takes the device
        return self.pipeline.denoiser().reference_kv(
            [
                (latent, r.ids, (r.image.height, r.image.width))
                for latent, r in zip(latents, self.references, strict=True)
            ]
        )

    def denoise_inputs(
        self,
        prior_ids: Ints,
        picture: int = 0,
        seed: int | None = None,
        *,
        num_steps: int | None = None,
        guidance_scale: float | None = None,
        is_preview: bool = False,
    ) -> DenoiseInputs:
        """Return what the decoder is told of one image.

        Args:
            prior_ids: (rows, columns).
            picture, seed: Name the noise; by default that of the request's seed.
            num_steps, guidance_scale: By default the request's.
            is_preview: Whether the ids are the preview's: the image is then as large as they say, and all of it is painted.
        """
        seed = self.request.seed if seed is None else seed
        guidance = self.guidance_scale if guidance_scale is None else guidance_scale
        side = self.config.geometry.prior_px
        size = (prior_ids.shape[0] * side, prior_ids.shape[1] * side) if is_preview else self.size
        noise, region = self.injected.noise, None
        if noise is None:
            noise = initial_noise(seed, picture, size, self.config)[None]
        if self.mask is not None and not is_preview:
            region = self.inpainting_region
            base_ids = self.references[0].ids
            if base_ids.shape == prior_ids.shape:
                prior_ids = np.where(self.mask_at(*prior_ids.shape), prior_ids, base_ids)
        glyph_embeds, no_glyph_embeds = self.embed_words(guidance)
        return DenoiseInputs(
            prior_ids[None],
            noise,
            glyph_embeds,
            size,
            num_steps or self.num_steps,
            guidance,
            no_glyph_embeds,
            self.reference_kv,
            region,
        )

    def free_references(self) -> None:
        """Free the references' keys and values; they are computed again when they are needed again."""
        vars(self).pop("reference_kv", None)

    # --- inpainting --------------------------------------------------------------------------------------------------

    @cached_property
    def base_image(self) -> Image.Image:
        """The image below the mask, at the size that is painted."""
        height, width = self.size
        image = self.images[0]
        return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.LANCZOS)

    @cached_property
    def inpainting_region(self) -> InpaintingRegion:
        """What stays of the base image."""
        latent = self.pipeline.encode(to_array(self.base_image)[None])
        mask = self.mask_at(*latent.shape[-2:])
        return InpaintingRegion(latent, mask[None, None].astype(np.float32))

    def mask_at(self, rows: int, columns: int) -> NDArray[np.bool_]:
        """Return the mask on a coarser grid, True in every cell that it touches."""
        assert self.mask is not None, "this request has a mask"
        height, width = self.size
        mask = Image.fromarray(self.mask.astype(np.uint8) * 255).resize((width, height), Image.Resampling.NEAREST)
        if (rows, columns) == (height, width):
            return np.asarray(mask) > 0
        blocks = np.asarray(mask).reshape(rows, height // rows, columns, width // columns)
        return blocks.max(axis=(1, 3)) > 0

    def compose(self, image: Pixels) -> Pixels:
        """Return what was painted with what was to stay, to the pixel."""
        if self.mask is None:
            return image
        return np.where(self.mask_at(*self.size)[..., None], image, np.asarray(self.base_image))


def prepare(pipeline: Pipeline, request: ImageRequest, images: Sequence[Image.Image] | None = None) -> Prepared:
    """Return a request, checked as far as that needs no part of the model.

    Args:
        images: The references, already opened; without them the request's files are read.

    Raises:
        RequestError, DataError: What was asked cannot be done.
    """
    check_characters(request.prompt)
    opened = [load_rgb(path) for path in request.references] if images is None else images
    prepared = Prepared(pipeline, request, opened)
    sizes = [(image.height, image.width) for image in opened]
    glyph_batch(glyph_texts(prepared.request.prompt))  # an over-long word fails now
    if prepared.injected.prior_ids is None:
        check_prompt(prepared.request.prompt, prepared.size, sizes, pipeline.prompt_tokenizer, pipeline.config)
    return prepared
