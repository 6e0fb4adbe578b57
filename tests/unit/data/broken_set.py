"""A picture set of any size of which a known part is broken, in ten ways, as an image folder or as a tar.

Each picture shows its number as squares of black and white, and its caption says the number, so that a caption that
shifted to another picture is seen.
"""

from __future__ import annotations

import io
import re
import struct
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

SIDE_PX = 48
_SQUARES = 4  # a side, so that numbers have 16 bits
LEFT_OUT = {
    "truncated": "truncated",
    "empty": "empty",
    "over-the-cap": "too-large",
    "no-caption": "no-caption",
    "no-picture": "not-a-picture",
}
CONVERTED = {
    "wrong-suffix": "wrong-suffix",
    "cmyk": "cmyk",
    "16-bit": "16-bit",
    "rotated": "rotated",
    "animated": "animated",
}
WAYS = (*LEFT_OUT, *CONVERTED)


@dataclass(frozen=True)
class Item:
    """One picture of the set, as it is written.

    Args:
        way: One of WAYS, or None where nothing is wrong with it.
    """

    number: int
    way: str | None
    suffix: str
    data: bytes
    caption: str


def items(count: int = 1000, broken_per_way: int = 10) -> Iterator[Item]:
    """Yield the pictures of a set; the broken ones are spread over it."""
    step = count // (broken_per_way * len(WAYS))
    for number in range(count):
        turn, rest = divmod(number, step)
        broken = rest == step // 2 and turn < broken_per_way * len(WAYS)
        way = WAYS[turn % len(WAYS)] if broken else None
        suffix, data = _encode(number, way)
        yield Item(number, way, suffix, data, "" if way == "no-caption" else f"picture {number}")


def write_folder(folder: Path, count: int = 1000, broken_per_way: int = 10) -> None:
    """Write the set as files with `.txt` captions beside them."""
    folder.mkdir(parents=True)
    for item in items(count, broken_per_way):
        (folder / f"{item.number:05d}.{item.suffix}").write_bytes(item.data)
        (folder / f"{item.number:05d}.txt").write_text(item.caption, encoding="utf-8")


def write_tar(path: Path, count: int = 1000, broken_per_way: int = 10) -> None:
    """Write the set as a tar in the WebDataset layout."""
    with tarfile.open(path, "w") as tar:
        for item in items(count, broken_per_way):
            for suffix, data in ((item.suffix, item.data), ("txt", item.caption.encode())):
                member = tarfile.TarInfo(f"{item.number:05d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def draw(number: int) -> Image.Image:
    """Return a picture that shows a number of 16 bits."""
    image = Image.new("L", (_SQUARES, _SQUARES))
    for bit in range(_SQUARES**2):
        image.putpixel((bit % _SQUARES, bit // _SQUARES), 255 if number >> bit & 1 else 0)
    return image.resize((SIDE_PX, SIDE_PX), Image.Resampling.NEAREST).convert("RGB")


def number_shown(image: Image.Image) -> int:
    """Return the number that a picture shows."""
    square = SIDE_PX // _SQUARES
    number = 0
    for bit in range(_SQUARES**2):
        x, y = (int((place + 0.5) * square) for place in (bit % _SQUARES, bit // _SQUARES))
        pixel = image.convert("L").getpixel((x, y))
        assert isinstance(pixel, int)
        number |= (pixel > 127) << bit
    return number


def number_said(caption: str) -> int:
    """Return the number that a caption says."""
    found = re.fullmatch(r"picture (\d+)", caption)
    assert found, caption
    return int(found[1])


def _encode(number: int, way: str | None) -> tuple[str, bytes]:
    """Return the file-name ending and the bytes of a picture."""
    image = draw(number)
    kind, suffix = (("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp"), ("BMP", "bmp"))[number % 4]
    if way == "empty":
        return suffix, b""
    if way == "no-picture":
        return suffix, b"<html><body>404 Not Found</body></html>"
    if way == "over-the-cap":
        return "png", _large_png()
    if way == "truncated":
        data = _save(image, kind)
        return suffix, data[: len(data) * 2 // 3]
    if way == "wrong-suffix":
        return "png", _save(image, "JPEG")
    if way == "cmyk":
        return "jpg", _save(image.convert("CMYK"), "JPEG")
    if way == "16-bit":
        levels = image.convert("L").tobytes()
        return "png", _save(
            Image.frombytes("I;16", image.size, bytes(b for level in levels for b in (level, level))), "PNG"
        )
    if way == "rotated":
        exif = Image.Exif()
        exif[0x0112] = 6  # a viewer turns it a quarter to the right
        return "jpg", _save(image.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif)
    if way == "animated":
        return "gif", _save(image, "GIF", save_all=True, append_images=[draw(~number & 0xFFFF)])
    return suffix, _save(image, kind)


def _save(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _large_png() -> bytes:
    """Return a sound black PNG of 9,000 x 8,000 pixels of one bit."""
    rows = zlib.compress(bytes(8000 * (1 + 9000 // 8)), 1)
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 9000, 8000, 1, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
