"""Picture files as clients send them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image


def png(width: int = 64, height: int = 64, seed: int = 0, mode: str = "RGB", **save: Any) -> bytes:
    """Return a picture file of random pixels."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (height, width, len(mode)), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, save.pop("format", "PNG"), **save)
    return buffer.getvalue()
