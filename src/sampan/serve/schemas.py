"""The shapes of requests and answers: OpenAI's images API, and what this server adds to it; and the reading of bodies."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from PIL import Image
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from sampan.errors import ApiError
from sampan.job import MAX_SEED
from sampan.pipeline.request import MAX_PROMPT_CHARS
from sampan.serve.settings import Settings
from sampan.serve.uploads import open_mask, open_rgb

MAX_STEPS = 200
MAX_REFERENCE_IDS = 16
# how OpenAI's word for more or less care is understood here, in steps of the decoder
QUALITY_STEPS = {"low": 10, "medium": 25}


def _none_if_empty(value: Any) -> Any:
    return None if value == "" else value  # an empty field of a form is one that was left empty


def _text_without_nul(value: Any) -> Any:
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("it has a NUL character")
        value.encode()  # half of a surrogate pair is no character: UnicodeEncodeError is a ValueError
    return value


Optional = BeforeValidator(_none_if_empty)
Text = BeforeValidator(_text_without_nul)
PictureId = Annotated[str, Field(pattern=r"^img_[0-9a-f]{24}$")]


class ImageFields(BaseModel):
    """What is asked of a picture. Fields that this server does not know are left aside, as OpenAI's clients expect."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    prompt: Annotated[
        str, Field(min_length=1, max_length=MAX_PROMPT_CHARS, description="Words in quotes are drawn."), Text
    ]
    model: Annotated[str | None, Field(description="The model that is served, or nothing."), Text, Optional] = None
    n: Annotated[int | None, Field(ge=1, le=16, description="How many pictures."), Optional] = None
    size: Annotated[
        str | None,
        Field(pattern=r"^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$", description="WIDTHxHEIGHT or auto."),
        Optional,
    ] = None
    response_format: Annotated[Literal["b64_json", "url"] | None, Optional] = None
    output_format: Annotated[Literal["png", "webp", "jpeg"] | None, Optional] = None
    output_compression: Annotated[
        int | None, Field(ge=0, le=100, description="Quality of WebP and JPEG; 100 keeps most."), Optional
    ] = None
    background: Annotated[Literal["auto", "opaque"] | None, Optional] = None
    quality: Annotated[
        Literal["auto", "standard", "hd", "low", "medium", "high", "xhigh", "max"] | None,
        Field(
            description="low: 10 steps, medium: 25, never more than the server's default, which all others have; "
            "num_inference_steps counts more."
        ),
        Optional,
    ] = None
    stream: Annotated[bool | None, Optional] = None
    partial_images: Annotated[int | None, Field(ge=0, le=3, description="Pictures shown on the way."), Optional] = None
    seed: Annotated[
        int | None, Field(ge=0, le=MAX_SEED, description="Picture k of a request has seed + k."), Optional
    ] = None
    num_inference_steps: Annotated[int | None, Field(ge=1, le=MAX_STEPS), Optional] = None
    guidance_scale: Annotated[float | None, Field(ge=0, le=50), Optional] = None
    temperature: Annotated[float | None, Field(ge=0, le=10), Optional] = None
    top_p: Annotated[float | None, Field(gt=0, le=1), Optional] = None
    proofread: Annotated[
        int | None, Field(ge=1, le=16, description="Rows of tokens that are read by OCR, the best painted."), Optional
    ] = None
    label: Annotated[bool | None, Field(description="Write into the picture that it is generated."), Optional] = None
    enhance: Annotated[
        bool | None, Field(description="Let the server's language model write the prompt out."), Optional
    ] = None
    enhance_fallback: Annotated[
        bool | None, Field(description="Paint the plain prompt where that language model fails."), Optional
    ] = None


class GenerationBody(ImageFields):
    """Body of POST /v1/images/generations."""

    reference_ids: Annotated[list[PictureId] | None, Field(max_length=0, description="An edit takes references.")] = (
        None
    )


class EditFields(ImageFields):
    """Fields of POST /v1/images/edits beside its files."""

    reference_ids: Annotated[
        list[PictureId] | None,
        Field(max_length=MAX_REFERENCE_IDS, description="Earlier pictures, taken as references."),
    ] = None


class ImageOut(BaseModel):
    """A finished picture."""

    id: str
    seed: int
    b64_json: str | None = None
    url: str | None = None
    revised_prompt: str | None = None
    warning: str | None = None
    proofread_rows: int | None = None
    proofread_chosen: int | None = None
    proofread_score: float | None = None


class InputTokens(BaseModel):
    """What a request's tokens are."""

    image_tokens: int
    text_tokens: int


class Usage(BaseModel):
    """Tokens read and written."""

    input_tokens: int
    input_tokens_details: InputTokens
    output_tokens: int
    total_tokens: int


class ImagesOut(BaseModel):
    """Answer to a request for pictures."""

    created: int
    background: str = "opaque"
    data: list[ImageOut]
    output_format: str
    quality: str
    size: str
    usage: Usage


class ModelOut(BaseModel):
    """A model that is served."""

    id: str
    object: str = "model"
    created: int
    owned_by: str = "sampan"


class ModelsOut(BaseModel):
    """Answer of GET /v1/models."""

    object: str = "list"
    data: list[ModelOut]


class HistoryEntry(BaseModel):
    """A picture of the history."""

    id: str
    created: int
    kind: Literal["generation", "edit"]
    prompt: str
    size: str
    seed: int
    num_inference_steps: int
    guidance_scale: float
    model: str
    reference_ids: list[str]
    output_format: str
    url: str


class History(BaseModel):
    """Answer of GET /v1/history."""

    data: list[HistoryEntry]
    has_more: bool


class Reports(BaseModel):
    """Where reports can be read, if there are any."""

    plan: str | None
    bench: str | None


class Capabilities(BaseModel):
    """What this server and its model can do."""

    model: str
    default_size: str
    sizes: list[str]
    max_n: int
    max_references: int
    max_prompt_chars: int
    supports_mask: bool
    needs_key: bool
    reports: Reports
    examples: list[str]


class Removed(BaseModel):
    """Answer of DELETE /v1/images/{id}."""

    id: str
    object: str = "image"
    deleted: bool = True


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorOut(BaseModel):
    """An error, in OpenAI's shape."""

    error: ErrorBody


# --- bodies ---------------------------------------------------------------------------------------------------------------

Fetch = Callable[[str], Awaitable[bytes]]
T = TypeVar("T", bound=ImageFields)
_FILES = ("image", "image[]", "mask")
_LISTS = ("reference_ids", "reference_ids[]")
_decoding = asyncio.Semaphore(1)  # one upload at a time is in memory as pixels while it is checked


async def read_generation(request: Request) -> GenerationBody:
    """Return the fields of a JSON body.

    Raises:
        ApiError: It is no JSON, or a field is wrong.
    """
    try:
        values = json.loads(await request.body(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "invalid_json", "The body is not JSON.") from error
    if not isinstance(values, dict):
        raise ApiError(400, "invalid_json", "The body is not a JSON object.")
    return _validate(GenerationBody, values)


def _refuse_constant(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


async def read_edit(
    request: Request, settings: Settings, fetch: Fetch | None
) -> tuple[EditFields, tuple[Image.Image, ...], bytes | None]:
    """Return the fields of a form, its images, and the bytes of its mask.

    Args:
        fetch: Returns what is at an address; None where addresses are not asked.

    Raises:
        ApiError: A field or a file is wrong.
    """
    try:
        form = await request.form(max_files=settings.max_references + 1, max_fields=64, max_part_size=65_536)
    except HTTPException as error:
        raise ApiError(400, "invalid_form", f"The form cannot be read: {error.detail}.") from error
    try:
        return await _read_form(form, settings, fetch)
    finally:
        await form.close()


async def _read_form(
    form: FormData, settings: Settings, fetch: Fetch | None
) -> tuple[EditFields, tuple[Image.Image, ...], bytes | None]:
    values: dict[str, Any] = {}
    for name, value in form.multi_items():
        if name in _FILES or name in _LISTS:
            continue
        if isinstance(value, UploadFile):
            raise ApiError(400, "invalid_form", f"`{name[:64]}` is not a file.", name[:64])
        values[name] = value
    fields = _validate(EditFields, {**values, "reference_ids": _read_reference_ids(form)})
    sources = [*form.getlist("image"), *form.getlist("image[]")]
    if len(sources) + len(fields.reference_ids or ()) > settings.max_references:
        most = settings.max_references
        raise ApiError(400, "too_many_references", f"An edit takes {most} references at most.", "image")
    images = []
    for source in sources:
        data = await source.read() if isinstance(source, UploadFile) else await _load(source, fetch)
        async with _decoding:
            images.append(await asyncio.to_thread(open_rgb, data, settings.uploads))
    masks = form.getlist("mask")
    if len(masks) > 1 or any(not isinstance(mask, UploadFile) for mask in masks):
        raise ApiError(400, "invalid_form", "`mask` is one file.", "mask")
    mask = await masks[0].read() if masks and isinstance(masks[0], UploadFile) else None
    return fields, tuple(images), mask


def _read_reference_ids(form: FormData) -> Any:
    """Return the reference ids: the field repeated, or once as a JSON array."""
    values = [value for name in _LISTS for value in form.getlist(name)]
    if any(isinstance(value, UploadFile) for value in values):
        raise ApiError(400, "invalid_form", "`reference_ids` is not a file.", "reference_ids")
    texts = [str(value) for value in values if value != ""]
    if len(texts) == 1 and texts[0].lstrip().startswith("["):
        try:
            return json.loads(texts[0])
        except (ValueError, RecursionError) as error:
            raise ApiError(400, "invalid_value", "`reference_ids` is no JSON array.", "reference_ids") from error
    return texts


async def _load(address: str, fetch: Fetch | None) -> bytes:
    """Return the bytes that a `data:` or an `http` address stands for."""
    if address.startswith("data:"):
        head, comma, body = address.partition(",")
        try:
            if not comma or not head.endswith(";base64"):
                raise ValueError("another encoding")
            return base64.b64decode(body, validate=True)
        except ValueError as error:
            raise ApiError(400, "invalid_image", "A data address holds base64.", "image") from error
    if fetch is None:
        message = "This server does not fetch addresses: upload the picture as a file."
        raise ApiError(400, "urls_not_allowed", message, "image")
    return await fetch(address)


async def read_mask(data: bytes, settings: Settings, size: tuple[int, int]) -> Any:
    """Return a mask as `uploads.open_mask` does, without holding up others."""
    async with _decoding:
        return await asyncio.to_thread(open_mask, data, settings.uploads, size)


def _validate(model: type[T], values: Mapping[str, Any]) -> T:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        param = ".".join(str(part) for part in first["loc"])[:100] or None
        message = f"`{param}`: {first['msg']}." if param else f"{first['msg']}."
        raise ApiError(400, "invalid_value", message, param) from error
    except UnicodeEncodeError as error:
        raise ApiError(400, "invalid_value", "A text has half of a surrogate pair.") from error
