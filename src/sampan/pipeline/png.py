"""Image files: pixels, metadata that says what made them, and the marking of generated media."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from sampan import files

# IPTC NewsCodes, digital source type: media created algorithmically using a model derived from sampled content
DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_EXIF_SOFTWARE = 0x0131


FORMATS = ("png", "webp", "jpeg")
_LABEL = "AI-generated"


def save_png(path: Path, pixels: NDArray[np.uint8], facts: dict[str, Any]) -> None:
    """Write a PNG whole or not at all; arguments as `encoded`."""
    files.write_bytes(path, encoded(pixels, facts))


def encoded(
    pixels: NDArray[np.uint8], facts: dict[str, Any], output_format: str = "png", compression: int = 100
) -> bytes:
    """Return the bytes of a picture file.

    Args:
        pixels: (H, W, 3).
        facts: Written as the text chunk `sampan` (JSON) of a PNG; a `prompt` among them also stands alone as
            `Description`. The IPTC digital source type goes into an XMP packet, where picture software looks for it.
        output_format: One of FORMATS.
        compression: Quality of WebP and JPEG, 0 to 100.
    """
    buffer, image, packet = io.BytesIO(), Image.fromarray(pixels), _xmp(facts.get("prompt"))
    if output_format == "png":
        info = PngInfo()
        info.add_text("Software", f"sampan {facts['version']}")
        info.add_itxt("sampan", json.dumps(facts, ensure_ascii=False))
        if "prompt" in facts:
            info.add_itxt("Description", facts["prompt"])
        info.add_itxt("XML:com.adobe.xmp", packet)
        image.save(buffer, "PNG", pnginfo=info)
    else:
        exif = Image.Exif()
        exif[_EXIF_SOFTWARE] = f"sampan {facts['version']}"
        more = {"lossless": compression == 100} if output_format == "webp" else {"subsampling": 0}
        image.save(buffer, output_format.upper(), quality=compression, exif=exif, xmp=packet.encode(), **more)
    return buffer.getvalue()


def labelled(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture with the words that it is generated in its lower right corner."""
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image, "RGBA")
    font = ImageFont.load_default(max(9.0, min(image.size) / 32))
    left, top, right, bottom = draw.textbbox((0, 0), _LABEL, font=font)
    pad = (bottom - top) / 2
    x, y = image.width - (right - left) - 2 * pad, image.height - (bottom - top) - 2 * pad
    draw.rectangle((x, y, image.width, image.height), fill=(0, 0, 0, 160))
    draw.text((x + pad - left, y + pad - top), _LABEL, font=font, fill=(255, 255, 255, 255))
    return np.asarray(image)


def _xmp(prompt: str | None) -> str:
    description = (
        f'<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{escape(prompt)}</rdf:li></rdf:Alt></dc:description>'
        if prompt
        else ""
    )
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" '
        'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
        f"<Iptc4xmpExt:DigitalSourceType>{DIGITAL_SOURCE_TYPE}</Iptc4xmpExt:DigitalSourceType>{description}"
        '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    )
