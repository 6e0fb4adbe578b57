"""Make the emoji font that the package carries out of a full Noto Color Emoji.

    python scripts/subset_emoji_font.py NotoColorEmoji.ttf

keeps what `sampan data emoji` can ask for (every fully qualified emoji without skin tones), changes no picture, and
refuses to write a font in which one would differ. Needs the extra `data`. Writes into src/sampan/synthetic/fonts/.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path
from typing import Any

import uharfbuzz

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from sampan.synthetic.color_font import PACKED, ColorFont  # noqa: E402
from sampan.synthetic.emoji_names import catalogue  # noqa: E402

harfbuzz: Any = uharfbuzz  # a compiled module whose names no type checker sees


def subset(font: bytes, texts: list[str]) -> bytes:
    """Return the font cut down to the glyphs that these texts can become, with all of its name and licence records."""
    face = harfbuzz.Face(font)
    wanted = harfbuzz.SubsetInput()
    wanted.unicode_set.update({ord(character) for text in texts for character in text})
    wanted.name_id_set.update(int(entry.name_id) for entry in face.list_names())
    return wanted.subset(face).blob.data


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("font", type=Path, help="a Noto Color Emoji with bitmaps (CBDT)")
    parser.add_argument("--out", type=Path, default=ROOT / "src/sampan/synthetic/fonts" / PACKED)
    arguments = parser.parse_args()

    texts = [emoji.text for emoji in catalogue(["en"])]
    full = arguments.font.read_bytes()
    small = subset(full, texts)
    beside = arguments.out.with_suffix(".partial")
    beside.write_bytes(small)
    before, after = ColorFont(arguments.font), ColorFont(beside)
    num_drawn = 0
    for text in texts:
        left, right = before.picture(text), after.picture(text)
        if (left is None) != (right is None) or (left and right and left.tobytes() != right.tobytes()):
            beside.unlink()
            print(f"error: {text} ({text!a}) would look different; nothing was written", file=sys.stderr)
            return 1
        num_drawn += left is not None
    beside.replace(arguments.out)
    for name, data in ((arguments.font.name, full), (arguments.out.name, small)):
        print(f"{hashlib.sha256(data).hexdigest()}  {name}  {len(data):,} bytes")
    print(f"{num_drawn} of {len(texts)} emoji are drawn, each as before")
    return 0


if __name__ == "__main__":
    sys.exit(main())
