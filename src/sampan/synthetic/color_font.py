"""The pictures in a colour font: a text is shaped by HarfBuzz, and where it becomes one glyph, its bitmap is read.

Shaping is what makes a flag out of two letters and a family out of three people, so no table of sequences is needed
here. Only bitmap fonts (CBDT or sbix) are read; vector colours (COLR, SVG) would need a renderer.
"""

from __future__ import annotations

import hashlib
import importlib.resources
from pathlib import Path
from typing import Any

from PIL import Image

from sampan.data import pictures
from sampan.errors import DataError

PACKED = "NotoColorEmoji-without-skin-tones.ttf"


class ColorFont:
    """A colour font held in memory.

    Args:
        path: A font file; without it, the packed Noto Color Emoji.

    Raises:
        DataError: The file is missing, is no font, or has no bitmaps.
    """

    def __init__(self, path: Path | None = None):
        import uharfbuzz

        harfbuzz: Any = uharfbuzz  # a compiled module whose names no type checker sees
        what = f"font `{path or PACKED}` cannot be used"
        try:
            data = (path or importlib.resources.files("sampan.synthetic") / "fonts" / PACKED).read_bytes()
        except OSError as error:
            raise DataError(what, "it is not there" if isinstance(error, FileNotFoundError) else str(error)) from error
        face = harfbuzz.Face(data)
        if not face.glyph_count:
            raise DataError(what, "it is not an OpenType font")
        if not face.has_color_png:
            vector = face.has_color_paint or face.has_color_layers or face.has_color_svg
            raise DataError(
                what,
                "its glyphs are vector drawings (COLR or SVG), and only bitmaps (CBDT or sbix) are read"
                if vector
                else "it has no colour glyphs",
                "take a bitmap build such as NotoColorEmoji.ttf, or name no font for the packed one",
            )
        self._harfbuzz = harfbuzz
        self._font = harfbuzz.Font(face)
        self.sha256 = hashlib.sha256(data).hexdigest()

    def picture(self, text: str) -> Image.Image | None:
        """Return the RGBA bitmap of a text that the font draws as one glyph, or None where it does not.

        Raises:
            DataError: The font's bitmap is broken.
        """
        buffer = self._harfbuzz.Buffer()
        buffer.add_str(text)
        buffer.guess_segment_properties()
        # a variation selector without a glyph of its own would count as one
        buffer.flags |= self._harfbuzz.BufferFlags.REMOVE_DEFAULT_IGNORABLES
        self._harfbuzz.shape(self._font, buffer)
        glyphs = [info.codepoint for info in buffer.glyph_infos]
        if len(glyphs) != 1 or glyphs[0] == 0:  # 0 is the glyph for what a font lacks
            return None
        bitmap = self._font.get_glyph_color_png(glyphs[0])
        if bitmap is None or not bitmap.data:
            return None
        return pictures.load_rgba(bytes(bitmap.data))

    def drawn(self, text: str) -> Image.Image:
        """Return the RGBA bitmap of a text that the font is known to draw as one glyph."""
        bitmap = self.picture(text)
        assert bitmap is not None, "only emoji that the font draws are chosen"
        return bitmap
