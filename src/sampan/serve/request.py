"""One request for images: what a client's fields ask of this model and this server, with every default in its place."""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sampan.errors import ApiError, SampanError
from sampan.job import MAX_SEED
from sampan.models import pixels
from sampan.models.config import ModelConfig
from sampan.models.text import glyph_batch, glyph_texts
from sampan.pipeline.pipeline import Pipeline
from sampan.pipeline.prompt import check_prompt, painted_prompt
from sampan.pipeline.request import ImageRequest, check_size, default_size
from sampan.serve.keys import ANYBODY
from sampan.serve.schemas import QUALITY_STEPS, EditFields, GenerationBody, ImageFields
from sampan.serve.settings import Settings


@dataclass(frozen=True)
class ServeRequest:
    """A request that was checked; its images are made one task each.

    Args:
        image: Prompt, size, settings and count; image k of the request has this seed + k.
        references: Images to edit or to take from, opened.
        mask: (height, width) of the first reference, True where the image may change; the rest stays.
        num_partials: Images shown on the way.
        num_rows: Rows of tokens that are written, of which the one that reads best is painted.
        owner: The key that the images belong to.
        reference_ids: Those references that are earlier images of the owner.
        output_quality: Quality of WebP and JPEG, 0 to 100.
        quality: As the client said it; `image` has the steps that it stands for.
        label: The images say visibly that they are generated.
        enhance: A language model writes the prompt out first.
        enhance_fallback: The plain prompt is used where that model fails.
        is_revised: The prompt is not, letter by letter, the client's.
    """

    image: ImageRequest
    references: tuple[Image.Image, ...] = ()
    mask: NDArray[np.bool_] | None = None
    num_partials: int = 0
    num_rows: int = 1
    kind: Literal["generation", "edit"] = "generation"
    owner: str = ANYBODY
    reference_ids: tuple[str, ...] = ()
    stream: bool = False
    response_format: str = "b64_json"
    output_format: str = "png"
    output_quality: int = 100
    quality: str = "auto"
    label: bool = False
    enhance: bool = False
    enhance_fallback: bool = False
    is_revised: bool = False

    @property
    def size(self) -> str:
        """Width and height as OpenAI writes them."""
        return f"{self.image.width_px}x{self.image.height_px}"


def build_request(
    kind: Literal["generation", "edit"],
    owner: str,
    fields: GenerationBody | EditFields,
    references: tuple[Image.Image, ...] = (),
    mask: NDArray[np.bool_] | None = None,
    *,
    shape: tuple[int, int] | None = None,
    settings: Settings,
    config: ModelConfig,
    can_proofread: bool,
    can_enhance: bool,
) -> ServeRequest:
    """Return the request that a client's fields make.

    Args:
        references: Images, uploaded or made earlier.
        shape: Height and width of the first one where it is smaller now than it came.

    Raises:
        ApiError: The model cannot paint what is asked, or this server does not.
    """
    if shape is None and references:
        shape = references[0].height, references[0].width
    width, height = _size(fields, shape, config, settings)
    references = tuple(
        # below a mask every pixel counts
        reference if mask is not None and number == 0 and reference.size == (width, height)
        else fit(reference, config)
        for number, reference in enumerate(references)
    )  # fmt: skip
    count, rows = fields.n or 1, fields.proofread or settings.proofread
    if count > settings.max_n:
        raise ApiError(400, "invalid_value", f"`n` is {settings.max_n} at most.", "n")
    if rows > 1 and not can_proofread:
        message = "This server has no OCR to proofread with; see --proofread."
        raise ApiError(400, "no_proofreading", message, "proofread")
    if rows > settings.max_rows:
        raise ApiError(400, "invalid_value", f"`proofread` is {settings.max_rows} at most.", "proofread")
    if fields.enhance and not can_enhance:
        message = "This server has no language model for prompts; see --enhance."
        raise ApiError(400, "no_enhancement", message, "enhance")
    quality = fields.quality or "auto"
    most = settings.default_steps or config.painting.num_inference_steps
    steps = fields.num_inference_steps or min(QUALITY_STEPS.get(quality, most), most)
    prompt = painted_prompt(fields.prompt, config)
    image = ImageRequest(
        prompt=prompt,
        width_px=width,
        height_px=height,
        count=count,
        seed=secrets.randbelow(MAX_SEED + 1) if fields.seed is None else fields.seed,
        num_inference_steps=steps,
        guidance_scale=config.painting.guidance_scale if fields.guidance_scale is None else fields.guidance_scale,
        temperature=fields.temperature,
        top_p=fields.top_p,
    )
    return ServeRequest(
        image,
        references,
        mask,
        num_partials=(fields.partial_images or 0) if fields.stream else 0,
        num_rows=rows if glyph_texts(prompt) else 1,  # no words, nothing to read
        kind=kind,
        owner=owner,
        reference_ids=tuple(fields.reference_ids or ()),
        stream=bool(fields.stream),
        response_format=fields.response_format or "b64_json",
        output_format=fields.output_format or "png",
        output_quality=100 if fields.output_compression is None else fields.output_compression,
        quality=quality,
        label=bool(settings.label or fields.label),
        enhance=can_enhance and fields.enhance is not False,
        enhance_fallback=bool(fields.enhance_fallback),
        is_revised=prompt != fields.prompt,
    )


def check_painted(request: ServeRequest, pipeline: Pipeline) -> None:
    """Raise ApiError for a prompt that the model cannot read, or that does not fit beside its picture and references."""
    image, sizes = request.image, [(reference.height, reference.width) for reference in request.references]
    assert image.height_px is not None and image.width_px is not None, "a request has its size"
    try:
        glyph_batch(glyph_texts(image.prompt))
        size = image.height_px, image.width_px
        check_prompt(image.prompt, size, sizes, pipeline.prompt_tokenizer, pipeline.config)
    except SampanError as error:
        raise ApiError.of(error, "prompt") from error


def _size(
    fields: ImageFields, shape: tuple[int, int] | None, config: ModelConfig, settings: Settings
) -> tuple[int, int]:
    """Return width and height of what is asked for; `shape` is that of the first image."""
    asked, param = _asked_size(fields)
    try:
        if asked is not None:
            width, height = asked
        elif fields.aspect_ratio is not None:
            param = "aspect_ratio"
            across, down = (int(part) for part in fields.aspect_ratio.split(":"))
            height, width = default_size((down, across), config)
        else:
            param = "size" if shape is None else "image"
            height, width = default_size(shape or (1, 1), config)
        _check_area(width, height, config, settings)
        check_size(height, width, config)
    except ApiError:
        raise
    except SampanError as error:
        raise ApiError.of(error, param, "invalid_size") from error
    return width, height


def _asked_size(fields: ImageFields) -> tuple[tuple[int, int] | None, str]:
    """Return the width and height that a client names, and the field that does."""
    size = None if fields.size in (None, "auto") else tuple(int(side) for side in fields.size.split("x"))
    if (fields.width is None) != (fields.height is None):
        missing = "width" if fields.width is None else "height"
        raise ApiError(400, "invalid_size", "`width` and `height` go together.", missing)
    if fields.width is None or fields.height is None:
        named, param = size, "size"
    else:
        named, param = (fields.width, fields.height), "width"
        if size not in (None, named):
            message = f"`size` says {fields.size}, `width` and `height` {named[0]}x{named[1]}."
            raise ApiError(400, "invalid_size", message, "width")
    if named is not None and fields.aspect_ratio is not None:
        raise ApiError(400, "invalid_size", f"`aspect_ratio` and `{param}` exclude each other.", "aspect_ratio")
    return (None if named is None else (named[0], named[1])), param


def _check_area(width: int, height: int, config: ModelConfig, settings: Settings) -> None:
    """Raise ApiError for more pixels than are painted here."""
    most, unit = max_area_px(settings, config), config.geometry.prior_px
    if width * height > most:
        scale = math.sqrt(most / (width * height))
        fits = "x".join(str(max(unit, int(side * scale / unit) * unit)) for side in (width, height))
        message = (
            f"{width}x{height} is too large: it has {width * height} pixels, and {most} are the most painted here "
            f"(of about this shape, {fits})."
        )
        raise ApiError(400, "invalid_size", message, "size")


def max_area_px(settings: Settings, config: ModelConfig) -> int:
    """Return the largest area that is painted."""
    return settings.max_area_px or 4 * config.geometry.default_px**2


def fit(image: Image.Image, config: ModelConfig) -> Image.Image:
    """Return a reference at the size at which the model looks at it, so that what waits in the queue is no larger."""
    height, width = pixels.reference_size(image.height, image.width, config.processor, config.geometry.prior_px)
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BICUBIC)
