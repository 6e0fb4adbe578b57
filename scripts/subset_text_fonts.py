"""Make the text fonts that the package carries out of full ones.

    python scripts/subset_text_fonts.py FOLDER

FOLDER holds the npm packages below, as `npm pack NAME@VERSION` writes them (they carry Google Fonts' static files and each
font's licence). Kept are the characters of Latin-1, Latin Extended-A and some punctuation, with the outlines as they are;
hints, kerning and alternate forms are dropped, so that every machine draws the same. None of the fonts has a reserved font
name. Needs fonttools. Writes into src/sampan/synthetic/fonts/ and prints the table for its README.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
import sys
import tarfile
from pathlib import Path

from fontTools import subset
from fontTools.pens.recordingPen import DecomposingRecordingPen
from fontTools.ttLib import TTFont

ROOT = Path(__file__).resolve().parents[1]
FONTS = ROOT / "src/sampan/synthetic/fonts"
CHARACTERS = (*range(0x20, 0x7F), *range(0xA0, 0x180), *map(ord, "ȘșȚțẞ–—‘’“”„†•…‹›€™−"))
PACKAGES = {
    # file in the package: npm package and version, which hold Google Fonts' file
    "OpenSans_600SemiBold.ttf": ("@expo-google-fonts/open-sans", "0.4.2"),
    "EBGaramond_500Medium.ttf": ("@expo-google-fonts/eb-garamond", "0.4.3"),
    "ZillaSlab_600SemiBold.ttf": ("@expo-google-fonts/zilla-slab", "0.4.1"),
    "JetBrainsMono_500Medium.ttf": ("@expo-google-fonts/jetbrains-mono", "0.4.1"),
    "Pacifico_400Regular.ttf": ("@expo-google-fonts/pacifico", "0.4.1"),
    "PatrickHand_400Regular.ttf": ("@expo-google-fonts/patrick-hand", "0.4.1"),
    "Oswald_500Medium.ttf": ("@expo-google-fonts/oswald", "0.4.2"),
    "ArchivoBlack_400Regular.ttf": ("@expo-google-fonts/archivo-black", "0.4.1"),
    "SairaStencilOne_400Regular.ttf": ("@expo-google-fonts/saira-stencil-one", "0.4.1"),
    "GrenzeGotisch_500Medium.ttf": ("@expo-google-fonts/grenze-gotisch", "0.4.2"),
    "CourierPrime_700Bold.ttf": ("@expo-google-fonts/courier-prime", "0.4.1"),
    "BodoniModa_700Bold.ttf": ("@expo-google-fonts/bodoni-moda", "0.4.2"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the packages lie, packed")
    folder = parser.parse_args().folder
    print("| file | font | copyright | from | full font, SHA-256 | this file |\n|---|---|---|---|---|---|")
    for member, (package, version) in PACKAGES.items():
        full, licence = members(folder / f"{package[1:].replace('/', '-')}-{version}.tgz", member)
        if "with reserved font name" in licence.lower():
            print(f"error: {package} has a reserved font name, and a subset may not bear it", file=sys.stderr)
            return 1
        small = smaller(full)
        check(full, small)
        name = member.partition("_")[0]
        (FONTS / f"{name}.ttf").write_bytes(small)
        (FONTS / f"OFL-{name}.txt").write_text(licence, encoding="utf-8", newline="\n")
        print(row(name, full, small, licence, f"{package} {version}, {member}"))
    return 0


def members(archive: Path, font: str) -> tuple[bytes, str]:
    """Return a font file and the licence out of a packed package."""
    with tarfile.open(archive) as packed:
        found = {Path(entry.name).name: packed.extractfile(entry) for entry in packed if entry.isfile()}
        contents = [file.read() for file in (found[font], found["LICENSE_FONT"]) if file]
    lines = [line.rstrip() for line in contents[1].decode("utf-8-sig").splitlines()]
    return contents[0], "\n".join(lines).strip() + "\n"


def smaller(font: bytes) -> bytes:
    """Return the font cut down to CHARACTERS, with all of its name and licence records."""
    options = subset.Options()
    options.name_IDs = options.name_languages = ["*"]
    options.layout_features = []
    options.hinting = False
    options.legacy_kern = False
    options.notdef_outline = True
    options.recalc_timestamp = False
    options.drop_tables += ["GSUB", "GPOS", "GDEF", "DSIG", "STAT"]
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=CHARACTERS)
    parsed = TTFont(io.BytesIO(font), recalcBBoxes=False, recalcTimestamp=False)
    cutter.subset(parsed)
    written = io.BytesIO()
    parsed.save(written)
    return written.getvalue()


def check(full: bytes, small: bytes) -> None:
    """Compare every kept character's outline and width with those of the full font."""
    before, after = (TTFont(io.BytesIO(data)) for data in (full, small))
    kept = set(before.getBestCmap()) & set(CHARACTERS)
    assert set(after.getBestCmap()) == kept
    for code in kept:
        drawn = []
        for font in (before, after):
            pen = DecomposingRecordingPen(font.getGlyphSet())
            glyph = font.getGlyphSet()[font.getBestCmap()[code]]
            glyph.draw(pen)
            drawn.append((glyph.width, pen.value))
        assert drawn[0] == drawn[1], f"{chr(code)} would look different"


def row(name: str, full: bytes, small: bytes, licence: str, source: str) -> str:
    """Return a font's line of the table."""
    names = TTFont(io.BytesIO(small))["name"]
    version = re.sub(r"^Version |;.*$", "", names.getDebugName(5))
    whole = hashlib.sha256(full).hexdigest()
    said = re.sub(r" *\(.*?\)\.?|,$", "", licence.splitlines()[0]).replace("Copyright", "©")
    return (
        f"| `{name}.ttf` | {names.getDebugName(4)} {version} | {said} | {source} "
        f"| {len(full):,} bytes, `{whole}` | {len(small):,} bytes, `{hashlib.sha256(small).hexdigest()}` |"
    )


if __name__ == "__main__":
    sys.exit(main())
