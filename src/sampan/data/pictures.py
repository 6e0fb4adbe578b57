"""One picture: opened safely, examined, brought to a size, turned into an array and back.

Whatever is in the file, what comes out is the picture as a person sees it: upright, 8-bit sRGB, transparency on white,
the first frame of an animation. A file that cannot give that raises an UnusableImageError that says why, in words and as one
of the kinds that sampan.data.report counts.
"""

from __future__ import annotations

import hashlib
import io
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile, ImageOps

from sampan.errors import UnusableImageError

MAX_PIXELS = 64_000_000
# only decoders that read the file and nothing else: the EPS one, for example, would start another program
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# pictures that Pillow knows no decoder for, but whose endings say what they are
OTHER_SUFFIXES = {".heic": "HEIF", ".heif": "HEIF", ".jxl": "JPEG XL", ".svg": "SVG"}
SUFFIXES = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")

_ICC_MODES = {"RGB": ("RGB", "RGBA"), "CMYK": ("CMYK",), "GRAY": ("L",)}
_EXIF_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 258  # a tag of TIFF
_MAGIC_BYTES = 32
_STRIP_PX = 64
# what Pillow's decoders raise for bytes that are not what their header says
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)
# Pillow's own limit on pixels is one number for the process; ours is an argument, checked before any pixel is decoded
_pillow_limit = threading.Lock()


@dataclass(frozen=True)
class ImageFacts:
    """What a usable picture is.

    Args:
        width_px, height_px: As a person sees it, upright.
        digest: BLAKE2b of the file's bytes, 128 bits in hexadecimal.
        converted: Kinds of sampan.data.report.KINDS that say what had to be converted.
    """

    width_px: int
    height_px: int
    digest: str
    converted: tuple[str, ...] = ()


def examine(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> ImageFacts:
    """Return what a picture file is, after decoding it as `load_rgb` would.

    Args:
        data: The bytes of the file.
        name: What it is called, for errors; its ending, where there is one, is compared with the content.

    Raises:
        UnusableImageError: As `load_rgb`.
    """
    image, converted = _decode(data, max_pixels, name)
    suffix = PurePosixPath(name).suffix.lower()
    named_format = {**Image.registered_extensions(), **OTHER_SUFFIXES}.get(suffix)
    with _opened(data) as header:
        file_format = "JPEG" if header.format == "MPO" else header.format
        # the second picture of an MPO is the same scene for another eye or another light: a photo, not an animation
        if header.format != "MPO" and _has_more_frames(header):
            converted.append("animated")
    if named_format not in (None, file_format):
        converted.append("wrong-suffix")
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    return ImageFacts(image.width, image.height, digest, tuple(sorted(converted)))


def load_rgb(source: str | Path | bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return a picture file as an upright 8-bit sRGB picture, transparent places white.

    Args:
        source: A path, or the bytes of a file.
        max_pixels: Most width·height that is decoded; checked before any pixel is.

    Raises:
        UnusableImageError: The file is missing, empty, not a picture, cut short, over `max_pixels`, or of a kind without
            fixed colours.
    """
    image, _ = _decode(source, max_pixels)
    if image.mode != "RGBA":
        return image
    result = Image.new("RGB", image.size)
    for top in range(0, image.height, _STRIP_PX):  # the whole would take three more pictures in memory
        strip = image.crop((0, top, image.width, min(image.height, top + _STRIP_PX)))
        white = Image.new("RGBA", strip.size, (255, 255, 255, 255))
        result.paste(Image.alpha_composite(white, strip).convert("RGB"), (0, top))
    return result


def load_rgba(source: str | Path | bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return what `load_rgb` does, with transparency kept. Raises the same."""
    image, _ = _decode(source, max_pixels)
    return image if image.mode == "RGBA" else image.convert("RGBA")


def fit(image: Image.Image, width_px: int, height_px: int) -> Image.Image:
    """Return the largest centred part of a picture with the wanted aspect ratio, resized to exactly that size."""
    if min(width_px, height_px) < 1:
        raise ValueError(f"a size of {width_px}x{height_px} pixels")
    if image.size == (width_px, height_px):
        return image
    return ImageOps.fit(image, (width_px, height_px), method=Image.Resampling.LANCZOS)


def to_array(image: Image.Image) -> NDArray[np.float32]:
    """Return an RGB picture as (3, height, width), -1 for black and 1 for full light."""
    if image.mode != "RGB":
        raise ValueError(f"an RGB picture is needed, not {image.mode}")
    pixels = np.asarray(image, np.float32) / np.float32(127.5) - np.float32(1)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def to_uint8(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return (height, width, 3) bytes of an image (3, height, width) in [-1, 1]; values beyond are clipped."""
    return np.round(np.clip((image / 2 + 0.5).transpose(1, 2, 0), 0, 1) * 255).astype(np.uint8)


def _decode(source: str | Path | bytes, max_pixels: int, name: str | None = None) -> tuple[Image.Image, list[str]]:
    """Return an upright picture in mode RGB, or RGBA where the file has transparency, and what was converted for it."""
    if name is None and isinstance(source, bytes):
        what = f"a picture of {len(source)} bytes cannot be used"
    else:
        what = f"picture `{name or source}` cannot be used"
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except FileNotFoundError as error:
        raise UnusableImageError(what, "missing", "it is not there") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise UnusableImageError(what, "unreadable", str(error)) from error
    if not data:
        raise UnusableImageError(what, "empty", "it is empty")
    opened = False
    try:
        with _opened(data) as image:
            opened = True
            if image.width * image.height > max_pixels:
                pixels = f"{image.width} x {image.height} = {image.width * image.height:,} pixels"
                reason = f"it has {pixels} and at most {max_pixels:,} are taken"
                raise UnusableImageError(what, "too-large", reason, "make it smaller first")
            converted = _deep_or_turned(image)
            image.load()
            if "rotated" not in converted and _is_turned(image):  # a PNG may say so after its pixels
                converted.append("rotated")
            if image.mode in ("F", "LAB", "HSV") or (image.mode == "I" and image.format not in ("PNG", "PPM")):
                reason = f"its pixels are of mode {image.mode}, whose range of values is not fixed"
                raise UnusableImageError(what, "undefined-colour", reason)
            if image.mode == "CMYK":
                converted.append("cmyk")
            ImageOps.exif_transpose(image, in_place=True)
            return _to_srgb(image), converted
    except _DECODER_ERRORS as error:
        begins = _begins_as(data)
        if not opened and not begins:
            reason = f"it is not a picture of a known format ({', '.join(FORMATS)})"
            raise UnusableImageError(what, "not-a-picture", reason) from error
        if isinstance(error, Image.UnidentifiedImageError):
            reason = f"it begins as {begins} and cannot be read on"
        else:
            reason = str(error) or type(error).__name__
        # memory may be there another time
        raise UnusableImageError(
            what, "unreadable" if isinstance(error, MemoryError) else "truncated", reason
        ) from error


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """Give an image of which nothing but the header is read yet."""
    Image.init()
    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN])
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with image:
        yield image


def _deep_or_turned(image: Image.Image) -> list[str]:
    """Return the kinds that a header tells: more than 8 bits a channel (AVIF's is not told), and not upright.

    Asked before decoding: that of a TIFF turns it and forgets that it did.
    """
    kinds: list[str] = []
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    raw: list[Any] = []
    for tile in tiles:
        raw += tile.args if isinstance(tile.args, tuple) else (tile.args,)
    # Pillow's names of raw pixels (`RGB;16B`, `I;16`), the highest value of a PPM, or the bits of a compressed TIFF
    deep = any(";16" in part if isinstance(part, str) else image.format == "PPM" and (part or 0) > 255 for part in raw)
    if deep or max(getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, ()), default=8) == 16:
        kinds.append("16-bit")
    if _is_turned(image):
        kinds.append("rotated")
    return kinds


def _is_turned(image: Image.Image) -> bool:
    return image.getexif().get(_EXIF_ORIENTATION, 1) in range(2, 9)


def _has_more_frames(image: Image.Image) -> bool:
    try:
        return getattr(image, "is_animated", False)
    except _DECODER_ERRORS:  # there is something after the first frame, and it is damaged
        return True


def _begins_as(data: bytes) -> str | None:
    """Return the format whose first bytes these are; those of BMP and PPM are two letters that many a text has."""
    for name in FORMATS:
        accept = Image.OPEN[name][1] if name in Image.OPEN and name not in ("BMP", "PPM") else None
        if accept and accept(data[:_MAGIC_BYTES]) is True:
            return name
    return None


def _to_srgb(image: Image.Image) -> Image.Image:
    """Return a decoded picture of a mode with fixed colours as RGB or RGBA in sRGB; mode I holds 16 bits here."""
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):
        # Pillow's own conversion clips at 255 where it should divide
        levels = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
    elif image.mode not in ("L", "CMYK", "RGB"):
        image = image.convert("RGB")
    if profile:
        image = _apply_profile(image, profile)
    return image if image.mode in ("RGB", "RGBA") else image.convert("RGB")


def _apply_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """Return a picture with its embedded colour profile applied; one that is broken or for other modes is left aside,
    as viewers do."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        facts: Any = source.profile
        if image.mode not in _ICC_MODES.get(facts.xcolor_space.strip(), ()):
            return image
        if (facts.profile_description or "").startswith("sRGB"):
            return image
        to = ImageCms.createProfile("sRGB")
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        converted = ImageCms.profileToProfile(image, source, to, outputMode=mode)
    except (OSError, ImageCms.PyCMSError):
        return image
    assert converted is not None, "profileToProfile returns nothing only when asked to work in place"
    return converted
