"""The PNG that leaves the house: pixels, what made them, and the marking of generated media."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sampan import files

# IPTC NewsCodes, digital source type: media created algorithmically using a model derived from sampled content
DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def save_png(path: Path, pixels: NDArray[np.uint8], facts: dict[str, Any]) -> None:
    """Write a PNG whole or not at all.

    Args:
        pixels: (H, W, 3).
        facts: Written as the text chunk `sampan` (JSON); a `prompt` among them also stands alone as `Description`. The
            IPTC digital source type goes into an XMP packet, where picture software looks for it.
    """
    info = PngInfo()
    info.add_text("Software", f"sampan {facts['version']}")
    info.add_itxt("sampan", json.dumps(facts, ensure_ascii=False))
    if "prompt" in facts:
        info.add_itxt("Description", facts["prompt"])
    info.add_itxt("XML:com.adobe.xmp", _xmp(facts.get("prompt")))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=info)
    files.write_bytes(path, buffer.getvalue())


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
