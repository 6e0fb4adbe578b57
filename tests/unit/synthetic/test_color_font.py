import struct

import pytest

from sampan.errors import DataError
from sampan.synthetic.color_font import PACKED, ColorFont


def font_file(**tables: bytes) -> bytes:
    """Return an OpenType font of one glyph with these tables beside the few that every font has."""
    head = struct.pack(">HHIIIHHQQ4hHHhhh", 1, 0, 0, 0, 0x5F0F3CF5, 0, 1000, 0, 0, 0, 0, 0, 0, 0, 8, 2, 0, 0)
    tables = {"head": head, "maxp": struct.pack(">IH", 0x5000, 1)} | tables
    offset = 12 + 16 * len(tables)
    directory, body = struct.pack(">I4H", 0x10000, len(tables), 0, 0, 0), b""
    for tag, data in sorted(tables.items()):
        directory += tag.encode() + struct.pack(">III", 0, offset + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    return directory + body


def vector_colours() -> bytes:
    """Return a COLR table, version 1, that paints glyph 0 in one solid colour."""
    solid = struct.pack(">BHh", 2, 0, 0x4000)
    base_glyphs = struct.pack(">IHI", 1, 0, 10) + solid
    return struct.pack(">HHIIH", 1, 0, 0, 0, 0) + struct.pack(">IIIII", 34, 0, 0, 0, 0) + base_glyphs


@pytest.fixture(scope="module")
def packed() -> ColorFont:
    return ColorFont()


@pytest.mark.parametrize(
    "text",
    ["😀", "❤️", "#️⃣", "🇧🇷", "🏴󠁧󠁢󠁷󠁬󠁳󠁿", "👨‍👩‍👧‍👦", "👩‍🚀", "🏳️‍🌈"],
    ids=["one", "selector", "keycap", "flag", "tags", "family", "role", "joined"],
)
def test_a_sequence_is_one_picture(packed, text):
    image = packed.picture(text)
    assert image is not None
    assert image.mode == "RGBA"
    assert image.size == (136, 128)
    assert image.getchannel("A").getextrema()[1] == 255


def test_flags_differ_and_are_not_their_letters(packed):
    brazil, china = packed.picture("🇧🇷"), packed.picture("🇨🇳")
    assert brazil.tobytes() != china.tobytes()
    red, green, blue, _ = brazil.getpixel((68, 28))  # in the field, above the rhombus
    assert green > max(red, blue)
    red, green, blue, _ = china.getpixel((100, 80))
    assert red > 2 * max(green, blue)


def test_what_the_font_does_not_draw_as_one_is_none(packed):
    assert packed.picture("x") is None
    assert packed.picture("\U0010fffd") is None
    assert packed.picture("🐶🐱") is None
    assert packed.picture("🐶\u200d🚗") is None  # joined, but no such picture
    assert packed.picture("👍\U0001f3ff") is None  # a skin tone, which the packed font leaves out


def test_vector_fonts_are_refused(tmp_path):
    (tmp_path / "vector.ttf").write_bytes(font_file(COLR=vector_colours()))
    with pytest.raises(DataError) as caught:
        ColorFont(tmp_path / "vector.ttf")
    assert str(caught.value) == (
        f"error: font `{tmp_path / 'vector.ttf'}` cannot be used\n"
        "  because its glyphs are vector drawings (COLR or SVG), and only bitmaps (CBDT or sbix) are read\n\n"
        "hint: take a bitmap build such as NotoColorEmoji.ttf, or name no font for the packed one"
    )


def test_a_font_without_colours_is_refused(tmp_path):
    (tmp_path / "plain.ttf").write_bytes(font_file())
    with pytest.raises(DataError) as caught:
        ColorFont(tmp_path / "plain.ttf")
    assert caught.value.because == ("it has no colour glyphs",)


def test_what_is_no_font_is_refused(tmp_path):
    (tmp_path / "words.ttf").write_text("not a font")
    with pytest.raises(DataError) as caught:
        ColorFont(tmp_path / "words.ttf")
    assert str(caught.value) == (
        f"error: font `{tmp_path / 'words.ttf'}` cannot be used\n  because it is not an OpenType font"
    )
    with pytest.raises(DataError) as caught:
        ColorFont(tmp_path / "none.ttf")
    assert caught.value.because == ("it is not there",)


def test_the_packed_font_has_its_licence_beside_it():
    import hashlib
    import importlib.resources

    fonts = importlib.resources.files("sampan.synthetic") / "fonts"
    assert "SIL OPEN FONT LICENSE Version 1.1" in (fonts / "OFL.txt").read_text(encoding="utf-8")
    digest = hashlib.sha256((fonts / PACKED).read_bytes()).hexdigest()
    assert digest in (fonts / "README.md").read_text(encoding="utf-8")
