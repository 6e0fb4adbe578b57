"""One picture: opened safely, brought to a size, turned into an array and back.

Whatever is in the file, what comes out is the picture as a person sees it: upright, 8-bit sRGB, transparency on white,
the first frame of an animation. A file that cannot give that raises a DataError that says why.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from sampan.errors import DataError

MAX_PIXELS = 64_000_000
# only decoders that read the file and nothing else: the EPS one, for example, would start another program
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")

_ICC_MODES = {"RGB": ("RGB", "RGBA"), "CMYK": ("CMYK",), "GRAY": ("L",)}
# what Pillow's decoders raise for bytes that are not what their header says
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def load_rgb(source: str | Path | bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return a picture file as an upright 8-bit sRGB picture, transparent places white.

    Args:
        source: A path, or the bytes of a file.
        max_pixels: Most width·height that is decoded; checked before any pixel is.

    Raises:
        DataError: The file is missing, not a picture, cut short, over `max_pixels`, or of a kind without fixed colours.
    """
    image = _decode(source, max_pixels)
    if image.mode != "RGBA":
        return image
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def load_rgba(source: str | Path | bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return what `load_rgb` does, with transparency kept. Raises the same."""
    return _decode(source, max_pixels).convert("RGBA")


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


def to_image(array: NDArray[Any]) -> Image.Image:
    """Return the RGB picture of a (3, height, width) array in [-1, 1]; what lies outside is clipped.

    `to_image(to_array(image))` is `image`, exactly.
    """
    if array.ndim != 3 or array.shape[0] != 3:
        raise ValueError(f"an array of shape (3, height, width) is needed, not {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("the array has values that are not finite numbers")
    pixels = np.rint((np.clip(array.astype(np.float32), -1, 1) + np.float32(1)) * np.float32(127.5)).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def _decode(source: str | Path | bytes, max_pixels: int) -> Image.Image:
    """Return an upright picture in mode RGB, or RGBA where the file has transparency."""
    what = f"a picture of {len(source)} bytes" if isinstance(source, bytes) else f"picture `{source}`"
    what += " cannot be used"
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise DataError(what, "it is not there" if isinstance(error, FileNotFoundError) else str(error)) from error
    if not data:
        raise DataError(what, "it is empty")
    Image.init()
    try:
        image = Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN])
    except Image.UnidentifiedImageError as error:
        raise DataError(what, f"it is not a picture of a known format ({', '.join(FORMATS)})") from error
    except _DECODER_ERRORS as error:
        raise DataError(what, str(error) or type(error).__name__) from error
    with image:
        if image.width * image.height > max_pixels:
            pixels = f"{image.width} x {image.height} = {image.width * image.height:,} pixels"
            raise DataError(what, f"it has {pixels} and at most {max_pixels:,} are taken", "make it smaller first")
        kind = image.format
        try:
            image.load()
            return _to_srgb(ImageOps.exif_transpose(image), kind)
        except _DECODER_ERRORS as error:
            raise DataError(what, str(error) or type(error).__name__) from error


def _to_srgb(image: Image.Image, kind: str | None) -> Image.Image:
    """Return a decoded picture of any mode as RGB or RGBA in sRGB; a mode without fixed colours is a ValueError."""
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PNG", "PPM")):
        # Pillow's own conversion clips at 255 where it should divide
        levels = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))
    elif image.mode in ("I", "F", "LAB", "HSV"):
        raise ValueError(f"its pixels are of mode {image.mode}, whose range of values is not fixed")
    if image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode not in ("L", "CMYK"):
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
