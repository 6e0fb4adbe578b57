"""Picture files from strangers: looked at byte by byte before anything decodes them.

Only PNG, JPEG and WebP are taken, as in OpenAI's API, and only whole files that are nothing else as well: what follows a
picture's end is a reason to refuse it. One budget holds for a file: bytes that come out of it, which are counted before
anything is decoded, and seconds. What a file may become grows with its pixel data, so that a photo of many pixels passes
and a few bytes that say they are as many do not.
"""

from __future__ import annotations

import re
import struct
import time
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sampan.data.pictures import load_rgb, load_rgba
from sampan.errors import ApiError, UnusableImageError
from sampan.serve.settings import UploadLimits

MAX_TEXT_BYTES = 1_000_000  # of a PNG's texts, inflated
MAX_PROFILE_BYTES = 4_000_000
MAX_CHUNKS = 20_000  # of a PNG or WebP; segments of a JPEG
MAX_METADATA_BYTES = 8_000_000  # of a JPEG's or WebP's; Pillow puts their pieces together
MAX_FILL_BYTES = 1024  # of a JPEG; Pillow reads each by itself
MAX_SCANS = 100  # of a progressive JPEG; each costs a pass over the picture
MAX_VIEWS = 8  # pictures behind one another in a JPEG
# what a picture may take in memory while it is decoded: so much, and so much more for each byte of its pixel data
FREE_BYTES = 40_000_000
BYTES_PER_BYTE = 128
# measured, decoder and conversions together, per pixel: Pillow keeps 4 bytes, and its WebP decoder the picture four times
_BYTES_PER_PIXEL = {"PNG": 9, "16-bit PNG": 12, "JPEG": 8, "progressive JPEG": 10, "WebP": 17}
_PIXELS_PER_SCAN = 40_000_000  # pixels × scans that are decoded in much less than a second
_PNG = b"\x89PNG\r\n\x1a\n"
_STANDALONE = {0x01, *range(0xD0, 0xD8)}  # JPEG markers without a length
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
# a run is looked at once, from its beginning; in coded pixels 0 and the restart markers may follow it
_MARKER = re.compile(rb"(?<!\xff)\xff++(?=[^\x00\xd0-\xd7])")


class UploadBudget:
    """What one file may cost.

    Args:
        param: The field it came in, for errors.
        limits: `seconds` begin now.
    """

    def __init__(self, param: str, limits: UploadLimits):
        self.param, self.limits = param, limits
        self._until = time.monotonic() + limits.seconds
        self._spent: dict[str, int] = {}

    def check_time(self) -> None:
        """Raise ApiError when the seconds are over."""
        if time.monotonic() > self._until:
            raise self.refusal(f"takes more than {self.limits.seconds:g} s to read")

    def spend(self, what: str, amount: int, most: int) -> None:
        """Count an amount of something, and raise ApiError above `most`."""
        self.check_time()
        self._spent[what] = self._spent.get(what, 0) + amount
        if self._spent[what] > most:
            raise self.refusal(f"has more than {most} {what}")

    def check_pixels(self, kind: str, width: int, height: int, data_bytes: int, scans: int = 1) -> None:
        """Raise ApiError for a picture that is too large, or too large for what there is of it.

        Args:
            data_bytes: Of its coded pixels.
        """
        pixels, limits = width * height, self.limits
        if pixels < 1:
            raise self.refusal("has no pixels")
        said = f"has {width}x{height} pixels"
        if pixels > limits.max_pixels or max(width, height) > limits.max_side:
            raise self.refusal(f"{said}, and at most {limits.max_pixels} in all are taken", "image_too_large")
        needed, most = pixels * _BYTES_PER_PIXEL[kind], FREE_BYTES + BYTES_PER_BYTE * data_bytes
        if needed > most:
            raise self.refusal(f"{said} in {data_bytes} bytes: make it smaller", "image_too_large")
        if scans > 1 and pixels * scans > _PIXELS_PER_SCAN + 8 * pixels:
            raise self.refusal(f"{said} in {scans} scans: make it smaller, or save it with fewer", "image_too_large")

    def refusal(self, what: str, code: str = "invalid_image") -> ApiError:
        """Return the answer to a file that is not taken."""
        return ApiError(400, code, f"`{self.param}` {what}.", self.param)


def open_rgb(data: bytes, limits: UploadLimits, param: str = "image") -> Image.Image:
    """Return an uploaded picture as upright sRGB.

    Raises:
        ApiError: It is not one that is taken.
    """
    budget = check(data, limits, param)
    try:
        return load_rgb(data, limits.max_pixels)
    except UnusableImageError as error:
        raise budget.refusal(f"cannot be decoded: {'; '.join(error.because)}") from error


def open_mask(data: bytes, limits: UploadLimits, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return where an uploaded mask lets the picture change: True where it is transparent.

    Args:
        size: Width and height that it must have.

    Raises:
        ApiError: It is not a picture with transparency of that size.
    """
    budget = check(data, limits, "mask")
    try:
        alpha = np.asarray(load_rgba(data, limits.max_pixels).getchannel("A"))
    except UnusableImageError as error:
        raise budget.refusal(f"cannot be decoded: {'; '.join(error.because)}") from error
    if alpha.shape != size[::-1]:
        found = f"{alpha.shape[1]}x{alpha.shape[0]}"
        raise budget.refusal(f"has {found} pixels, and the first image has {size[0]}x{size[1]}")
    mask = alpha < 128
    if not mask.any():
        raise budget.refusal("is opaque everywhere, so that nothing may change: make transparent what is to be painted")
    return mask


def check(data: bytes, limits: UploadLimits, param: str) -> UploadBudget:
    """Return the budget of bytes that are one whole PNG, JPEG or WebP of a size that is taken. Decodes nothing.

    Raises:
        ApiError: They are not.
    """
    budget = UploadBudget(param, limits)
    try:
        if data.startswith(_PNG):
            end = _png(data, budget)
        elif data.startswith(b"\xff\xd8\xff"):
            end = _jpeg(data, budget)
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            end = _webp(data, budget)
        else:
            raise budget.refusal("is not a PNG, JPEG or WebP file", "unsupported_image_type")
    except (struct.error, IndexError, zlib.error) as error:
        raise budget.refusal("is cut short or damaged") from error
    if data.count(0, end) != len(data) - end:
        raise budget.refusal("has something behind the picture's end")
    return budget


def _png(data: bytes, budget: UploadBudget) -> int:
    """Return where the file ends."""
    width, height = struct.unpack(">II", data[16:24])
    if data[12:16] != b"IHDR":
        raise budget.refusal("is cut short or damaged")
    at, data_bytes = len(_PNG), 0
    while True:
        length, kind = struct.unpack_from(">I4s", data, at)
        budget.spend("chunks", 1, MAX_CHUNKS)
        if at + 12 + length > len(data):
            raise budget.refusal("is cut short or damaged")
        if kind == b"IDAT":
            data_bytes += length
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            _count_text(kind, data[at + 8 : at + 8 + length], budget)
        elif kind == b"iCCP":
            budget.spend("colour profiles", 1, 1)
            _, _, packed = data[at + 8 : at + 8 + length].partition(b"\0")
            _inflate(packed[1:], budget, "bytes of colour profile", MAX_PROFILE_BYTES)
        at += 12 + length
        if kind == b"IEND":
            break
    budget.check_pixels("16-bit PNG" if data[24] == 16 else "PNG", width, height, data_bytes)
    return at


def _count_text(kind: bytes, body: bytes, budget: UploadBudget) -> None:
    what = "bytes of text"
    key, _, rest = body.partition(b"\0")
    if kind == b"zTXt":
        budget.spend(what, len(key), MAX_TEXT_BYTES)
        _inflate(rest[1:], budget, what, MAX_TEXT_BYTES)
    elif kind == b"iTXt" and rest[:1] == b"\1":
        budget.spend(what, len(key), MAX_TEXT_BYTES)
        _inflate(rest[2:].split(b"\0", 2)[-1], budget, what, MAX_TEXT_BYTES)
    else:
        budget.spend(what, len(body), MAX_TEXT_BYTES)


def _inflate(packed: bytes, budget: UploadBudget, what: str, most: int) -> None:
    """Spend the bytes that compressed ones become, of which few are held at a time."""
    unpacker = zlib.decompressobj()
    for first in range(0, len(packed), 65_536):
        piece = packed[first : first + 65_536]
        while piece and not unpacker.eof:
            budget.spend(what, len(unpacker.decompress(piece, 65_536)), most)
            piece = unpacker.unconsumed_tail
        if unpacker.eof:
            return


def _jpeg(data: bytes, budget: UploadBudget) -> int:
    """Return where the file ends; phones put further views of the scene behind the first."""
    at = 0
    while data.startswith(b"\xff\xd8\xff", at):
        budget.spend("pictures in it", 1, MAX_VIEWS)
        at = _jpeg_view(data, at + 2, budget)
    return at


def _jpeg_view(data: bytes, begin: int, budget: UploadBudget) -> int:
    """Return where a picture ends whose segments begin at a place."""
    width = height = scans = beside = 0
    at, kind = begin, "JPEG"
    while True:
        found = _MARKER.search(data, at)
        if found is None:
            raise IndexError
        # before the first scan Pillow looks at each byte that stands between segments
        fill = found.end() - 1 - (found.start() if scans else at)
        budget.spend("fill bytes", fill, MAX_FILL_BYTES)
        marker, at = data[found.end()], found.end() + 1
        if marker == 0xD9:
            break
        budget.spend("segments", 1, MAX_CHUNKS)
        if marker in _STANDALONE:
            continue
        (length,) = struct.unpack_from(">H", data, at)
        if length < 2:
            raise budget.refusal("is cut short or damaged")
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 3)
            kind = "progressive JPEG" if marker in _PROGRESSIVE else kind
        elif marker == 0xDA:
            scans += 1
            budget.spend("scans", 1, MAX_SCANS)
        else:
            beside += length
            budget.spend("bytes beside the pixels", length, MAX_METADATA_BYTES)
        at += length
    budget.check_pixels(kind, width, height, at - begin - beside, scans)
    return at


def _webp(data: bytes, budget: UploadBudget) -> int:
    """Return where the file ends."""
    (length,) = struct.unpack_from("<I", data, 4)
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8 ":
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", data, 26))
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1
    else:
        raise budget.refusal("is cut short or damaged")
    if 8 + length > len(data):
        raise budget.refusal("is cut short or damaged")
    if kind == b"VP8X" and data[20] & 0x02:
        raise budget.refusal("is an animation")
    at, data_bytes = 12, 0
    while at + 8 <= 8 + length:
        name, size = struct.unpack_from("<4sI", data, at)
        budget.spend("chunks", 1, MAX_CHUNKS)
        if name in (b"ANIM", b"ANMF"):
            raise budget.refusal("is an animation")
        if name in (b"VP8 ", b"VP8L", b"ALPH"):
            data_bytes += min(size, len(data) - at)
        else:
            budget.spend("bytes beside the pixels", size, MAX_METADATA_BYTES)
        at += 8 + size + size % 2
    budget.check_pixels("WebP", width, height, data_bytes)
    return 8 + length + length % 2
