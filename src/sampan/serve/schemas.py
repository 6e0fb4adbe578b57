"""The shapes of requests and answers: OpenAI's images API, and what this server adds to it.

One rule for every field. What stands below is answered. A field of OpenAI's API that means nothing here is listed in
`LEFT_ASIDE` and left aside. Any other is refused by its name. A field without a value (null, or nothing in a form) is not
sent.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from sampan.job import MAX_SEED
from sampan.pipeline.prompt import MAX_PROMPT_CHARS

MAX_STEPS = 200
MAX_REFERENCE_IDS = 16
# how OpenAI's word for more or less care is understood here, in steps of the decoder
QUALITY_STEPS = {"low": 10, "medium": 25}
LEFT_ASIDE = ("user", "moderation", "style", "input_fidelity")
# what clients send that would change the picture, and is not done here
UNSUPPORTED = {
    "negative_prompt": "the model has no place for what is not to be seen; say in `prompt` what is",
    "strength": "an edit is told in words; `mask` says what may change",
    "scheduler": "there is one schedule of steps",
    "sampler": "there is one sampler",
    "lora": "the server's --lora says what is put beside the weights",
    "loras": "the server's --lora says what is put beside the weights",
}
# what other servers call a field of this one
OTHER_NAMES = {
    "steps": "num_inference_steps",
    "num_steps": "num_inference_steps",
    "cfg_scale": "guidance_scale",
    "true_cfg_scale": "guidance_scale",
    "guidance": "guidance_scale",
    "num_images": "n",
    "num_images_per_prompt": "n",
    "batch_size": "n",
    "image_size": "size",
    "format": "output_format",
}
# fields in which true must not be read as 1, as pydantic does
NUMBERS = (
    "n", "width", "height", "output_compression", "partial_images", "seed", "num_inference_steps", "guidance_scale",
    "temperature", "top_p", "proofread",
)  # fmt: skip
_SIZE = r"^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$"
_LEFT_ASIDE_WORDS = "Of OpenAI's API; left aside."


def _none_if_empty(value: Any) -> Any:
    return None if value == "" else value  # an empty field of a form is one that was left empty


def _text_without_nul(value: Any) -> Any:
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("it has a NUL character")
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ValueError("it has half of a surrogate pair, which is no character")
    return value


def _not_blank(value: Any) -> Any:
    if isinstance(value, str) and not value.strip():
        raise ValueError("it is empty, and says nothing to paint")
    return value


def _known_size(value: Any) -> Any:
    if isinstance(value, str) and not re.fullmatch(_SIZE, value):
        raise ValueError("it is not WIDTHxHEIGHT in pixels, each from 1 to 99999 as in 1024x768, nor auto")
    return value


def _any_seed(value: Any) -> Any:
    return None if value in (-1, "-1") and value is not True else value


Optional = BeforeValidator(_none_if_empty)
Text = BeforeValidator(_text_without_nul)
PictureId = Annotated[str, Field(pattern=r"^img_[0-9a-f]{24}$")]


class ImageFields(BaseModel):
    """What is asked of a picture."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    prompt: Annotated[
        str,
        Field(min_length=1, max_length=MAX_PROMPT_CHARS, description="Words in quotes are drawn."),
        BeforeValidator(_not_blank),
        Text,
    ]
    model: Annotated[str | None, Field(description="A name that is served, or nothing."), Text, Optional] = None
    n: Annotated[int | None, Field(ge=1, le=16, description="How many pictures."), Optional] = None
    size: Annotated[
        str | None,
        Field(pattern=_SIZE, description="WIDTHxHEIGHT or auto: the model's area in the shape of the first image."),
        BeforeValidator(_known_size),
        Optional,
    ] = None
    width: Annotated[int | None, Field(ge=1, le=99_999, description="With height: the same as size."), Optional] = None
    height: Annotated[int | None, Field(ge=1, le=99_999, description="With width: the same as size."), Optional] = None
    aspect_ratio: Annotated[
        str | None,
        Field(pattern=r"^[1-9][0-9]{0,3}:[1-9][0-9]{0,3}$", description="As 16:9: the model's area in this shape."),
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
        int | None,
        Field(ge=-1, le=MAX_SEED, description="Picture k of a request has seed + k; -1 is any."),
        BeforeValidator(_any_seed),
        Optional,
    ] = None
    negative_prompt: Annotated[
        Literal[""] | None, Field(description="Refused where it says something: the model takes none."), Optional
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
    user: Annotated[Any, Field(description=_LEFT_ASIDE_WORDS)] = None
    moderation: Annotated[Any, Field(description=_LEFT_ASIDE_WORDS)] = None
    style: Annotated[Any, Field(description=_LEFT_ASIDE_WORDS)] = None
    input_fidelity: Annotated[Any, Field(description=_LEFT_ASIDE_WORDS)] = None

    @field_validator(*NUMBERS, mode="before")
    @classmethod
    def _no_boolean(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("it is true or false, and a number is asked")
        return value


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


class LoadedLora(BaseModel):
    """A LoRA adapter that every image of this server is made with."""

    name: str
    scale: float


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
    loras: list[LoadedLora]


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
