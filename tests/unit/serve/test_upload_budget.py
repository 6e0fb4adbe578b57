"""What a hostile file costs: a second and 50 MB at most, whatever it claims. The files are small and are made here."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sampan.errors import ApiError
from sampan.serve.settings import UploadLimits
from sampan.serve.uploads import open_rgb
from uploaded import png

MOST_BYTES, MOST_S = 50_000_000, 1.0
# opens each file named on stdin as the server does, and says what it cost; the peak is set back before each
_MEASURE = """
import json, sys, time
from pathlib import Path
from sampan.errors import ApiError
from sampan.serve.settings import UploadLimits
from sampan.serve.uploads import open_rgb

def peak_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

def cost(name):
    data = Path(name).read_bytes()
    Path("/proc/self/clear_refs").write_text("5")
    before, begun = peak_bytes(), time.perf_counter()
    try:
        open_rgb(data, UploadLimits())
        said = "taken"
    except ApiError as error:
        said = f"{error.status}: {error.message}"
    return [time.perf_counter() - begun, peak_bytes() - before, said]

cost(sys.argv[1])
print(json.dumps([cost(name) for name in sys.argv[1:]]))
"""


def saved(kind: str, size: tuple[int, int] = (16, 16), mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(*chunks: bytes) -> bytes:
    data = saved("PNG")
    return data[:33] + b"".join(chunks) + data[33:]


def flat_png(side: int, mode: int = 6, depth: int = 8) -> bytes:
    """Return a PNG of one colour, whose rows are packed without holding them."""
    channels = {0: 1, 2: 3, 6: 4}[mode]
    packer, row = zlib.compressobj(9), bytes(1 + side * channels * depth // 8)
    packed = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
    header = struct.pack(">IIBBBBB", side, side, depth, mode, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def after_start(data: bytes, piece: bytes) -> bytes:
    """Return a JPEG with something behind its first marker."""
    return data[:2] + piece + data[2:]


def scanned(size: tuple[int, int], scans: int) -> bytes:
    """Return a progressive JPEG whose last scan is there so many times."""
    data = saved("JPEG", size, progressive=True)
    at = data.rindex(b"\xff\xda")
    return data[:-2] + data[at:-2] * scans + data[-2:]


def jpeg_of(side: int, **options: Any) -> bytes:
    """Return a small JPEG that says in its header that it is large."""
    data = bytearray(saved("JPEG", **options))
    at = next(data.index(marker) for marker in (b"\xff\xc0", b"\xff\xc2") if marker in data)
    data[at + 5 : at + 9] = struct.pack(">HH", side, side)
    return bytes(data)


def hostile() -> dict[str, tuple[bytes, str]]:
    """Return files by name, and what is said of each."""
    small, bomb = saved("JPEG"), zlib.compress(bytes(3_900_000), 9)
    segment = b"\xff\xe1" + struct.pack(">H", 8) + b"Exif\0\0"
    profile = b"name\0\0" + bomb
    return {
        "chained": (small * (3_000_000 // len(small)), "pictures in it"),
        "chained and cut": (small[:2] * 1_000_000 + small, "400"),
        "starts": (b"\xff\xd8\xff\xd8" * 700_000 + small, "400"),
        "fill before the first segment": (after_start(small, b"\xff" * 3_000_000), "fill bytes"),
        "junk between segments": (after_start(small, b"\xff\0" * 1_500_000), "fill bytes"),
        "fill in the pixels": (small[:-2] + b"\xff" * 3_000_000 + small[-2:], "fill bytes"),
        "stuffed zeros in the pixels": (small[:-2] + b"\xff\0" * 1_500_000 + small[-2:], ""),
        "restarts in the pixels": (small[:-2] + b"\xff\xd0" * 1_500_000 + small[-2:], ""),
        "segments": (after_start(small, segment * 300_000), "segments"),
        "large segments": (after_start(small, b"\xff\xe1\xff\xff" + b"Exif\0\0" + bytes(65_527)), ""),
        "many large segments": (
            after_start(small, (b"\xff\xe1\xff\xffExif\0\0" + bytes(65_527)) * 200),
            "bytes beside",
        ),
        "scans": (scanned((16, 16), 200), "scans"),
        "scans of a large picture": (scanned((2000, 2000), 90), "scans"),
        "a JPEG that says more": (jpeg_of(4096), "4096x4096 pixels"),
        "a progressive JPEG that says more": (jpeg_of(4096, progressive=True), "4096x4096 pixels"),
        "a flat JPEG": (saved("JPEG", (4096, 4096), quality=1), "4096x4096 pixels"),
        "a flat PNG": (flat_png(4096), "4096x4096 pixels"),
        "a flat PNG just taken": (flat_png(2048), "taken"),
        "a flat 16-bit PNG": (flat_png(4096, 0, 16), "4096x4096 pixels"),
        "a flat 16-bit PNG just taken": (flat_png(1800, 0, 16), "taken"),
        "a flat WebP": (saved("WEBP", (4000, 4000), lossless=True, method=0), "4000x4000 pixels"),
        "a flat WebP just taken": (saved("WEBP", (1500, 1500), lossless=True, method=0), "taken"),
        "a WebP of many chunks": (webp_with(b"ABCD\0\0\0\0" * 300_000), "chunks"),
        "profiles": (png_with(*[chunk(b"iCCP", profile)] * 300), "colour profiles"),
        "a profile": (png_with(chunk(b"iCCP", profile)), ""),
        "a profile over the bound": (
            png_with(chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(200_000_000)))),
            "profile",
        ),
        "texts": (png_with(*[chunk(b"zTXt", b"key\0\0" + bomb)] * 300), "bytes of text"),
        "chunks": (png_with(chunk(b"abCd", b"") * 200_000), "chunks"),
        "zeros behind the end": (small + bytes(30_000_000), ""),
    }


def webp_with(chunks: bytes) -> bytes:
    data = saved("WEBP", lossless=True)
    inside = b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\x0f\0\0\x0f\0\0" + data[12:] + chunks
    return b"RIFF" + struct.pack("<I", 4 + len(inside)) + b"WEBP" + inside


@pytest.mark.process
def test_whatever_a_file_claims_it_costs_a_second_and_50_mb_at_most(tmp_path: Path):
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak of memory is set back in /proc, which Linux has")
    cases = hostile()
    paths = []
    for number, (data, _) in enumerate(cases.values()):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(data)
    names = [str(path) for path in paths]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *names], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    costs = dict(zip(cases, json.loads(done.stdout.splitlines()[-1]), strict=True))
    dear = {name: cost for name, cost in costs.items() if cost[0] > MOST_S or cost[1] > MOST_BYTES}
    assert not dear
    other = {name: cost[2] for name, cost in costs.items() if cases[name][1] not in cost[2]}
    assert not other


@pytest.mark.parametrize(("kind", "size"), [("JPEG", (3024, 2268)), ("PNG", (2560, 1440)), ("WEBP", (1600, 1200))])
def test_photos_and_screenshots_are_taken(kind: str, size: tuple[int, int]):
    """Noise stands for a photo: it is what a picture of many pixels and many bytes is."""
    image = Image.frombytes("L", (size[0] // 8, size[1] // 8), png_noise(size[0] // 8 * (size[1] // 8))).resize(size)
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, kind)
    assert open_rgb(buffer.getvalue(), UploadLimits()).size == size


def png_noise(count: int) -> bytes:
    return Image.effect_noise((count, 1), 60).tobytes()


def test_seconds_are_counted_too():
    with pytest.raises(ApiError) as caught:
        open_rgb(png(8, 8), UploadLimits(seconds=-1.0))
    assert caught.value.status == 400 and caught.value.message == "`image` takes more than -1 s to read."
