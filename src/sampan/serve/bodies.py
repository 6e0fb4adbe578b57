"""The bodies of requests, read: JSON and forms, the pictures in them, and what is refused of them before anything is done."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from sampan.errors import ApiError, did_you_mean
from sampan.serve.schemas import OTHER_NAMES, UNSUPPORTED, EditFields, GenerationBody, ImageFields
from sampan.serve.settings import Settings
from sampan.serve.uploads import open_mask, open_rgb

Fetch = Callable[[str], Awaitable[bytes]]
T = TypeVar("T", bound=ImageFields)
MAX_FIELDS = 64
# image, image[], image[0], and the same of `images`
_PICTURES = re.compile(r"images?(?:\[(\d{0,3})\])?")
_REFERENCE_IDS = ("reference_ids", "reference_ids[]")
_ADDRESS_KEYS = {"image_url", "file_id", "type"}
_decoding = asyncio.Semaphore(1)  # one upload at a time is in memory as pixels while it is checked


@dataclass(frozen=True)
class EditBody:
    """What a request for an edit has.

    Args:
        images: Uploaded, opened; each as large as the model looks at it, but the first of them where a mask goes with it.
        shape: Height and width of the first one as it was uploaded; None where there is none.
        mask_file: The bytes of the mask.
    """

    fields: EditFields
    images: tuple[Image, ...]
    shape: tuple[int, int] | None
    mask_file: bytes | None


@dataclass(frozen=True)
class _Sources:
    """Where the pictures of an edit are: files of a form, or addresses."""

    images: Sequence[UploadFile | str]
    mask: UploadFile | str | None


async def read_generation(request: Request) -> GenerationBody:
    """Return the fields of a JSON body.

    Raises:
        ApiError: It is no JSON, or a field is wrong.
    """
    values = await _read_json(request)
    for name in values:
        if _PICTURES.fullmatch(name) or name == "mask":
            raise ApiError(400, "unsupported_parameter", f"`{name}` belongs to /v1/images/edits.", name)
    return _validate(GenerationBody, values)


async def read_edit(
    request: Request, settings: Settings, fetch: Fetch | None, fit: Callable[[Image], Image]
) -> EditBody:
    """Return the fields of an edit, a form or JSON, and its pictures.

    Args:
        fetch: Returns what is at an address; None where addresses are not asked.
        fit: Returns an image at the size at which the model looks at it.

    Raises:
        ApiError: A field or a file is wrong.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        values, sources = _pictures_of_json(await _read_json(request))
        return await _open(_validate(EditFields, values), sources, settings, fetch, fit)
    try:
        form = await request.form(
            max_files=settings.max_references + 1, max_fields=MAX_FIELDS, max_part_size=settings.max_body_bytes
        )
    except HTTPException as error:
        raise ApiError(400, "invalid_form", f"The form cannot be read: {error.detail.rstrip('.')}.") from error
    try:
        values, sources = _pictures_of_form(form.multi_items())
        return await _open(_validate(EditFields, values), sources, settings, fetch, fit)
    finally:
        await form.close()


async def read_mask(data: bytes, settings: Settings, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return a mask as `uploads.open_mask` does, without holding up others."""
    async with _decoding:
        return await asyncio.to_thread(open_mask, data, settings.uploads, size)


# --- pictures -------------------------------------------------------------------------------------------------------------


def _pictures_of_json(values: dict[str, Any]) -> tuple[dict[str, Any], _Sources]:
    """Return the other fields of a JSON body, and the addresses of its pictures: texts, or objects with `image_url`."""
    images: list[UploadFile | str] = []
    for name in ("image", "images"):
        given = values.pop(name, None)
        for one in given if isinstance(given, list) else [] if given is None else [given]:
            images.append(_address(one, name))
    mask = values.pop("mask", None)
    return values, _Sources(images, None if mask is None else _address(mask, "mask"))


def _address(given: Any, name: str) -> str:
    """Return the address that a picture of a JSON body has."""
    if isinstance(given, Mapping):
        if given.get("file_id") is not None:
            message = f"`{name}`: files are not kept here, so that `file_id` names none; send `image_url`."
            raise ApiError(400, "unsupported_parameter", message, name)
        if strange := [key for key in given if key not in _ADDRESS_KEYS]:
            raise ApiError(400, "unknown_parameter", f"`{name}` has no field `{_said(strange[0])}`.", name)
        given = given.get("image_url")
        given = given.get("url") if isinstance(given, Mapping) else given
    if not isinstance(given, str):
        message = f'`{name}` is made of {{"image_url": "data:… or https://…"}}, or of such addresses.'
        raise ApiError(400, "invalid_value", message, name)
    return given


def _pictures_of_form(items: Sequence[tuple[str, UploadFile | str]]) -> tuple[dict[str, Any], _Sources]:
    """Return the other fields of a form, and its pictures: files or addresses, numbered ones in their order."""
    values: dict[str, Any] = {}
    ids: list[str] = []
    images: list[tuple[int, UploadFile | str]] = []
    mask: UploadFile | str | None = None
    for name, value in items:
        if value == "":
            continue  # an empty field of a form is one that was left empty
        if found := _PICTURES.fullmatch(name):
            images.append((int(found[1] or -1), value))
        elif name == "mask" and mask is None:
            mask = value
        elif isinstance(value, UploadFile):
            raise ApiError(400, "invalid_form", f"`{_said(name)}` is not a file, or not so often.", _said(name))
        elif name in _REFERENCE_IDS:
            ids.append(value)
        elif name in values or name == "mask":
            raise ApiError(400, "invalid_form", f"`{_said(name)}` is there more than once.", _said(name))
        else:
            values[name] = value
    if ids:
        values["reference_ids"] = _read_ids(ids)
    return values, _Sources([source for _, source in sorted(images, key=lambda one: one[0])], mask)


def _read_ids(texts: list[str]) -> Any:
    """Return the reference ids: the field repeated, or once as a JSON array."""
    if len(texts) == 1 and texts[0].lstrip().startswith("["):
        try:
            return json.loads(texts[0])
        except (ValueError, RecursionError) as error:
            raise ApiError(400, "invalid_value", "`reference_ids` is no JSON array.", "reference_ids") from error
    return texts


async def _open(
    fields: EditFields, sources: _Sources, settings: Settings, fetch: Fetch | None, fit: Callable[[Image], Image]
) -> EditBody:
    """Open the pictures of an edit, one after another."""
    most = settings.max_references
    if len(sources.images) + len(fields.reference_ids or ()) > most:
        raise ApiError(400, "too_many_references", f"An edit takes {most} references at most.", "image")
    images: list[Image] = []
    shape = None
    for source in sources.images:
        data = await _load(source, fetch, "image")
        async with _decoding:
            image = await asyncio.to_thread(open_rgb, data, settings.uploads)
            shape = shape or (image.height, image.width)
            # below a mask every pixel counts; earlier pictures come before uploads
            is_masked = sources.mask is not None and not images and not fields.reference_ids
            images.append(image if is_masked else await asyncio.to_thread(fit, image))
    mask = None if sources.mask is None else await _load(sources.mask, fetch, "mask")
    return EditBody(fields, tuple(images), shape, mask)


async def _load(source: UploadFile | str, fetch: Fetch | None, param: str) -> bytes:
    """Return the bytes of a file, or those that a `data:` or an `http` address stands for."""
    if isinstance(source, UploadFile):
        return await source.read()
    if source[:5].lower() == "data:":
        comma = source.find(",", 0, 200)
        if comma < 0 or not source[:comma].lower().endswith(";base64"):
            raise ApiError(400, "invalid_image", f"`{param}`: a data address is `data:image/png;base64,…`.", param)
        try:
            return base64.b64decode(source[comma + 1 :], validate=True)
        except ValueError as error:
            raise ApiError(400, "invalid_image", f"`{param}`: what follows `base64,` is no base64.", param) from error
    if not source[:8].lower().startswith(("http://", "https://")):
        message = f"`{param}` is a file, or an address that begins with data:, http:// or https://."
        raise ApiError(400, "invalid_image", message, param)
    if fetch is None:
        message = (
            "This server does not fetch addresses (see --allow-urls): send the picture as a file or a data address."
        )
        raise ApiError(400, "urls_not_allowed", message, param)
    return await fetch(source)


# --- fields ---------------------------------------------------------------------------------------------------------------


async def _read_json(request: Request) -> dict[str, Any]:
    """Return the fields of a JSON body that have a value."""
    try:
        values = json.loads(await request.body(), parse_constant=_refuse_constant, object_pairs_hook=_once_each)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "invalid_json", "The body is not JSON.") from error
    if not isinstance(values, dict):
        raise ApiError(400, "invalid_json", "The body is not a JSON object.")
    return {name: value for name, value in values.items() if value is not None}


def _refuse_constant(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        name = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ApiError(400, "invalid_json", f"`{_said(name)}` is there more than once.", _said(name))
    return values


def _validate(model: type[T], values: Mapping[str, Any]) -> T:
    """Return the fields, or refuse the first that is wrong."""
    for name, value in values.items():
        if name in UNSUPPORTED and value != "":
            message = f"`{name}` is not supported: {UNSUPPORTED[name]}."
            raise ApiError(400, "unsupported_parameter", message, name)
        if name not in model.model_fields:
            raise _unknown(name, model)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        param = ".".join(str(part) for part in first["loc"])[:100] or None
        said = first["msg"].removeprefix("Value error, ")
        raise ApiError(400, "invalid_value", f"`{param}`: {said}." if param else f"{said}.", param) from error


def _unknown(name: str, model: type[ImageFields]) -> ApiError:
    """Return the refusal of a field that this server does not have."""
    near = OTHER_NAMES.get(name)
    hint = f"did you mean `{near}`?" if near else did_you_mean(_said(name), model.model_fields)
    hint = hint if hint and hint.startswith("did") else "/docs lists the fields."
    return ApiError(400, "unknown_parameter", f"There is no field `{_said(name)}` here: {hint}", _said(name))


def _said(name: str) -> str:
    """Return a client's name for a field as an answer can carry it."""
    return name[:64].encode("ascii", "backslashreplace").decode()
