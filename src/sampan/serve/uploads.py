"""Picture files from strangers: looked at byte by byte before anything decodes them.

Only PNG, JPEG and WebP are taken, as in OpenAI's API, and only whole files that are nothing else as well: what follows a
picture's end is a reason to refuse it, and so is compressed text that would fill the memory. Pixels are counted from the
headers.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sampan.data.pictures import load_rgb, load_rgba
from sampan.errors import UnusableImageError
from sampan.serve.refusal import ApiError

MAX_TEXT_BYTES = 1_000_000  # of a PNG's texts, inflated
MAX_PROFILE_BYTES = 4_000_000
MAX_CHUNKS = 20_000
MAX_SCANS = 100  # of a progressive JPEG; each costs a pass over the picture
_PNG = b"\x89PNG\r\n\x1a\n"
_STANDALONE = {0x01, *range(0xD0, 0xD8)}  # JPEG markers without a length
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class UploadLimits:
    """How much is decoded.

    Args:
        max_pixels: Width times height.
        max_side: The longer side.
    """

    max_pixels: int = 16_777_216
    max_side: int = 16_384


def open_rgb(data: bytes, taken: UploadLimits, param: str = "image") -> Image.Image:
    """Return an uploaded picture as upright sRGB.

    Raises:
        Refusal: It is not one that is taken.
    """
    check(data, taken, param)
    try:
        return load_rgb(data, taken.max_pixels)
    except UnusableImageError as error:
        raise _refusal(param, f"cannot be decoded: {'; '.join(error.because)}") from error


def open_mask(data: bytes, taken: UploadLimits, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return where an uploaded mask lets the picture change: True where it is transparent.

    Args:
        size: Width and height that it must have.

    Raises:
        Refusal: It is not a picture with transparency of that size.
    """
    check(data, taken, "mask")
    try:
        alpha = np.asarray(load_rgba(data, taken.max_pixels))[..., 3]
    except UnusableImageError as error:
        raise _refusal("mask", f"cannot be decoded: {'; '.join(error.because)}") from error
    if alpha.shape != size[::-1]:
        found = f"{alpha.shape[1]}x{alpha.shape[0]}"
        raise _refusal("mask", f"has {found} pixels, and the first image has {size[0]}x{size[1]}")
    mask = alpha < 128
    if not mask.any():
        raise _refusal(
            "mask", "is opaque everywhere, so that nothing may change: make transparent what is to be painted"
        )
    return mask


def check(data: bytes, taken: UploadLimits, param: str) -> None:
    """Raise Refusal unless these bytes are one whole PNG, JPEG or WebP of a size that is taken. Decodes nothing."""
    try:
        if data.startswith(_PNG):
            width, height, end = _png(data, param)
        elif data.startswith(b"\xff\xd8\xff"):
            width, height, end = _jpeg(data, param)
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            width, height, end = _webp(data, param)
        else:
            raise _refusal(param, "is not a PNG, JPEG or WebP file", "unsupported_image_type")
    except (struct.error, IndexError, zlib.error) as error:
        raise _refusal(param, "is cut short or damaged") from error
    if data[end:].strip(b"\0"):
        raise _refusal(param, "has something behind the picture's end")
    if width < 1 or height < 1:
        raise _refusal(param, "has no pixels")
    if width * height > taken.max_pixels or max(width, height) > taken.max_side:
        raise _refusal(
            param, f"has {width}x{height} pixels, and at most {taken.max_pixels} in all are taken", "image_too_large"
        )


def _png(data: bytes, param: str) -> tuple[int, int, int]:
    """Return width, height, and where the file ends."""
    width, height = struct.unpack(">II", data[16:24])
    if data[12:16] != b"IHDR":
        raise _refusal(param, "is cut short or damaged")
    at, text_bytes = len(_PNG), 0
    for _ in range(MAX_CHUNKS):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        if len(body) != length or at + 12 + length > len(data):
            raise _refusal(param, "is cut short or damaged")
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            text_bytes += _text_bytes(kind, body)
            if text_bytes > MAX_TEXT_BYTES:
                raise _refusal(param, f"has more than {MAX_TEXT_BYTES} bytes of text")
        elif kind == b"iCCP":
            _, _, packed = body.partition(b"\0")
            if _inflated_bytes(packed[1:], MAX_PROFILE_BYTES) > MAX_PROFILE_BYTES:
                raise _refusal(param, f"has a colour profile of more than {MAX_PROFILE_BYTES} bytes")
        at += 12 + length
        if kind == b"IEND":
            return width, height, at
    raise _refusal(param, f"has more than {MAX_CHUNKS} chunks")


def _text_bytes(kind: bytes, body: bytes) -> int:
    key, _, rest = body.partition(b"\0")
    if kind == b"zTXt":
        return len(key) + _inflated_bytes(rest[1:], MAX_TEXT_BYTES)
    if kind == b"iTXt" and rest[:1] == b"\1":
        packed = rest[2:].split(b"\0", 2)[-1]
        return len(key) + _inflated_bytes(packed, MAX_TEXT_BYTES)
    return len(body)


def _inflated_bytes(packed: bytes, most: int) -> int:
    """Return how long compressed bytes are inflated, counted up to a little more than `most`."""
    unpacker, total = zlib.decompressobj(), 0
    while packed and total <= most and not unpacker.eof:
        total += len(unpacker.decompress(packed, 65_536))
        packed = unpacker.unconsumed_tail
    return total


def _jpeg(data: bytes, param: str) -> tuple[int, int, int]:
    width = height = scans = 0
    at = 2
    while True:
        at = _next_marker(data, at)
        marker = data[at + 1]
        at += 2
        if marker == 0xD9:
            break
        if marker in _STANDALONE:
            continue
        (length,) = struct.unpack(">H", data[at : at + 2])
        if marker in _FRAMES:
            height, width = struct.unpack(">HH", data[at + 3 : at + 7])
        if length < 2:
            raise _refusal(param, "is cut short or damaged")
        scans += marker == 0xDA
        if scans > MAX_SCANS:
            raise _refusal(param, f"has more than {MAX_SCANS} scans")
        at += length
    if data[at : at + 3] == b"\xff\xd8\xff":  # phones put a second view of the scene behind the first
        return width, height, _jpeg(data[at:], param)[2] + at
    return width, height, at


def _next_marker(data: bytes, at: int) -> int:
    """Return where the next marker is that is not part of coded pixels."""
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 1 >= len(data):
            raise IndexError
        if data[at + 1] not in (0x00, 0xFF, *range(0xD0, 0xD8)):
            return at
        at += 1 if data[at + 1] == 0xFF else 2


def _webp(data: bytes, param: str) -> tuple[int, int, int]:
    (length,) = struct.unpack("<I", data[4:8])
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        if data[20] & 0x02:
            raise _refusal(param, "is an animation")
    elif kind == b"VP8 ":
        width, height = (value & 0x3FFF for value in struct.unpack("<HH", data[26:30]))
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1
    else:
        raise _refusal(param, "is cut short or damaged")
    if 8 + length > len(data):
        raise _refusal(param, "is cut short or damaged")
    return width, height, 8 + length + length % 2


def _refusal(param: str, what: str, code: str = "invalid_image") -> ApiError:
    return ApiError(400, code, f"`{param}` {what}.", param)
