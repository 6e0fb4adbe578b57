"""Files from strangers are refused by their bytes, before anything decodes them."""

from __future__ import annotations

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sampan.errors import ApiError
from sampan.serve.settings import UploadLimits
from sampan.serve.uploads import check, open_mask, open_rgb
from uploaded import png

TAKEN = UploadLimits()


def refusal(data: bytes) -> str:
    with pytest.raises(ApiError) as caught:
        open_rgb(data, TAKEN)
    assert caught.value.status == 400 and caught.value.param == "image"
    return caught.value.message


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunk(kind: bytes, body: bytes) -> bytes:
    """Return a PNG with a chunk before its pixels."""
    data = png(8, 8)
    return data[:33] + chunk(kind, body) + data[33:]


def headed(width: int, height: int) -> bytes:
    """Return a PNG that says it has so many pixels."""
    data = png(8, 8)
    return data[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + data[33:]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_pictures_that_are_taken_come_out_upright(kind: str):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    image = open_rgb(png(32, 16, format=kind, exif=exif), TAKEN)
    assert image.mode == "RGB" and image.size == (16, 32)


def test_a_gigapixel_is_refused_by_its_header():
    began = time.perf_counter()
    assert "32768x32768 pixels" in refusal(headed(32768, 32768))
    assert "pixels" in refusal(headed(2_000_000_000, 1))
    assert time.perf_counter() - began < 0.1


def test_text_that_inflates_is_refused_and_never_held_whole():
    bomb = zlib.compress(b"a" * 200_000_000, 9)
    began = time.perf_counter()
    assert "bytes of text" in refusal(with_chunk(b"zTXt", b"key\0\0" + bomb))
    assert "bytes of text" in refusal(with_chunk(b"iTXt", b"key\0\1\0\0\0" + bomb))
    assert "colour profile" in refusal(with_chunk(b"iCCP", b"name\0\0" + bomb))
    assert "bytes of text" in refusal(with_chunk(b"tEXt", b"key\0" + b"a" * 1_500_000))
    assert time.perf_counter() - began < 1


def test_text_of_usual_size_is_taken():
    info = PngInfo()
    info.add_itxt("note", "é" * 1000, zip=True)
    info.add_text("other", "x" * 1000, zip=True)
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "PNG", pnginfo=info)
    assert open_rgb(buffer.getvalue(), TAKEN).size == (16, 16)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("tail", [b"PK\x03\x04 a zip", b"<script>alert(1)</script>", b"\xff\xd9 %PDF"])
def test_a_file_that_is_something_else_as_well_is_refused(kind: str, tail: bytes):
    data = png(16, 16, format=kind)
    assert open_rgb(data, TAKEN).size == (16, 16)
    assert "behind the picture's end" in refusal(data + tail)
    assert open_rgb(data + b"\0\0", TAKEN).size == (16, 16)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<svg xmlns='http://www.w3.org/2000/svg'><rect/></svg>",
        b"GIF89a" + b"\0" * 40,
        b"BM" + b"\0" * 60,
        b"%!PS-Adobe-3.0 EPSF-3.0",
        b"II*\0" + b"\0" * 40,
        b"\0\0\0\x1cftypavif" + b"\0" * 40,
    ],
)
def test_other_kinds_are_refused(data: bytes):
    assert refusal(data) == "`image` is not a PNG, JPEG or WebP file."


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_what_is_cut_short_anywhere_is_refused(kind: str):
    data = png(24, 24, format=kind)
    for end in range(8, len(data), max(1, len(data) // 60)):
        with pytest.raises(ApiError):
            open_rgb(data[:end], TAKEN)


def test_random_bytes_behind_a_signature_are_refused_and_not_more():
    random = np.random.default_rng(0)
    for front in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x20\0\0\0WEBPVP8X", b"RIFF\x20\0\0\0WEBPVP8L"):
        for _ in range(200):
            with pytest.raises(ApiError):
                open_rgb(front + random.bytes(int(random.integers(0, 200))), TAKEN)


def test_an_animation_and_too_many_scans_are_refused():
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), (k * 80, 0, 0)) for k in range(3)]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:])
    assert "animation" in refusal(buffer.getvalue())
    data = png(16, 16, format="JPEG", progressive=True)
    at = data.index(b"\xff\xda")
    scan = data[at : data.index(b"\xff", at + 2)] + b"\x00"
    assert "scans" in refusal(data[:at] + scan * 200 + data[at:])


def test_a_mask_opens_where_it_is_transparent():
    pixels = np.zeros((16, 8, 4), np.uint8)
    pixels[..., 3] = 255
    pixels[:4, :, 3] = 0
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    mask = open_mask(buffer.getvalue(), TAKEN, (8, 16))
    assert mask[:4].all() and not mask[4:].any()
    with pytest.raises(ApiError, match="has 8x16 pixels, and the first image has 16x16"):
        open_mask(buffer.getvalue(), TAKEN, (16, 16))
    with pytest.raises(ApiError, match="opaque everywhere"):
        open_mask(png(8, 16), TAKEN, (8, 16))


def test_the_header_is_what_counts_and_not_the_name_or_the_kind_that_is_said():
    with pytest.raises(ApiError, match="at most 100"):
        check(png(16, 16), UploadLimits(max_pixels=100), "image")
    with pytest.raises(ApiError, match="pixels"):
        check(png(64, 2), UploadLimits(max_side=63), "image")
