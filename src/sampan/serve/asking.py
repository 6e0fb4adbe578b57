"""Requests read: a JSON body or a form to an order, with everything in it checked."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from PIL import Image
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from sampan.serve.protocol import EditFields, GenerationBody, ImageFields
from sampan.serve.refusal import ApiError
from sampan.serve.settings import Settings
from sampan.serve.uploads import open_mask, open_rgb

Fetch = Callable[[str], Awaitable[bytes]]
T = TypeVar("T", bound=ImageFields)
_FILES = ("image", "image[]", "mask")
_LISTS = ("reference_ids", "reference_ids[]")
_decoding = asyncio.Semaphore(1)  # one upload at a time is in memory as pixels while it is checked


async def read_generation(request: Request) -> GenerationBody:
    """Return what a JSON body asks.

    Raises:
        Refusal: It is no JSON, or a field is wrong.
    """
    try:
        values = json.loads(await request.body(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "invalid_json", "The body is not JSON.") from error
    if not isinstance(values, dict):
        raise ApiError(400, "invalid_json", "The body is not a JSON object.")
    return _checked(GenerationBody, values)


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


async def read_edit(
    request: Request, settings: Settings, fetch: Fetch | None
) -> tuple[EditFields, tuple[Image.Image, ...], bytes | None]:
    """Return what a form asks, its pictures, and the bytes of its mask.

    Args:
        fetch: Returns what is at an address; None where addresses are not asked.

    Raises:
        Refusal: A field or a file is wrong.
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
    asking = _checked(EditFields, {**values, "reference_ids": _listed(form)})
    given = [*form.getlist("image"), *form.getlist("image[]")]
    if len(given) + len(asking.reference_ids or ()) > settings.max_references:
        most = settings.max_references
        raise ApiError(400, "too_many_references", f"An edit takes {most} references at most.", "image")
    images = []
    for value in given:
        data = await value.read() if isinstance(value, UploadFile) else await _addressed(value, settings, fetch)
        async with _decoding:
            images.append(await asyncio.to_thread(open_rgb, data, settings.taken))
    masks = form.getlist("mask")
    if len(masks) > 1 or any(not isinstance(mask, UploadFile) for mask in masks):
        raise ApiError(400, "invalid_form", "`mask` is one file.", "mask")
    mask = await masks[0].read() if masks and isinstance(masks[0], UploadFile) else None
    return asking, tuple(images), mask


def _listed(form: FormData) -> Any:
    """Return the reference ids: the field repeated, or once as a JSON array."""
    found = [value for name in _LISTS for value in form.getlist(name)]
    if any(isinstance(value, UploadFile) for value in found):
        raise ApiError(400, "invalid_form", "`reference_ids` is not a file.", "reference_ids")
    texts = [str(value) for value in found if value != ""]
    if len(texts) == 1 and texts[0].lstrip().startswith("["):
        try:
            return json.loads(texts[0])
        except (ValueError, RecursionError) as error:
            raise ApiError(400, "invalid_value", "`reference_ids` is no JSON array.", "reference_ids") from error
    return texts


async def _addressed(address: str, settings: Settings, fetch: Fetch | None) -> bytes:
    """Return the bytes that a `data:` or an `http` address stands for."""
    if address.startswith("data:"):
        head, comma, body = address.partition(",")
        if not comma or not head.endswith(";base64"):
            raise ApiError(400, "invalid_image", "A data address holds base64.", "image")
        try:
            return base64.b64decode(body, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ApiError(400, "invalid_image", "A data address holds base64.", "image") from error
    if fetch is None:
        raise ApiError(
            400, "urls_not_allowed", "This server does not fetch addresses: upload the picture as a file.", "image"
        )
    return await fetch(address)


async def decoded_mask(data: bytes, settings: Settings, size: tuple[int, int]) -> Any:
    """Return a mask as `uploads.open_mask` does, without holding up others."""
    async with _decoding:
        return await asyncio.to_thread(open_mask, data, settings.taken, size)


def _checked(model: type[T], values: Mapping[str, Any]) -> T:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        param = ".".join(str(part) for part in first["loc"])[:100] or None
        message = f"`{param}`: {first['msg']}." if param else f"{first['msg']}."
        raise ApiError(400, "invalid_value", message, param) from error
    except UnicodeEncodeError as error:
        raise ApiError(400, "invalid_value", "A text has half of a surrogate pair.") from error
