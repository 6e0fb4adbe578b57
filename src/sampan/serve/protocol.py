"""The shapes of requests and answers: OpenAI's images API, and what this server adds to it at the top level."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from sampan.job import MAX_SEED

MAX_PROMPT_CHARS = 8000
MAX_STEPS = 200
MAX_REFERENCE_IDS = 16
SIZE = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})")
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
        Field(description="low: 10 steps, medium: 25, else the server's default; num_inference_steps counts more."),
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
