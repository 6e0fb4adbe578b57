import contextlib
import hashlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from sampan.data import pictures
from sampan.errors import DataError


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    return Image.frombytes(mode, (width, height), values.tobytes())


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_a_lossless_picture_comes_back_exactly(kind):
    image = noise(7, 5)
    loaded = pictures.load_rgb(encode(image, kind))
    assert loaded.mode == "RGB"
    assert loaded.tobytes() == image.tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "GIF"])
def test_the_other_formats_are_read(kind):
    image = Image.new("RGB", (16, 12), (200, 40, 90))
    loaded = pictures.load_rgb(encode(image, kind))
    assert loaded.size == (16, 12)
    assert np.abs(np.asarray(loaded, int) - (200, 40, 90)).max() <= 4


def test_a_path_is_read_like_its_bytes(tmp_path):
    (tmp_path / "a.png").write_bytes(encode(noise(3, 3), "PNG"))
    assert pictures.load_rgb(tmp_path / "a.png").tobytes() == noise(3, 3).tobytes()
    assert pictures.load_rgb(str(tmp_path / "a.png")).tobytes() == noise(3, 3).tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    # the stored picture that each tag value says is this one: red top left, green top right, blue bottom left
    upright = Image.new("RGB", (2, 3))
    upright.putdata([(255, 0, 0), (0, 255, 0), (9, 9, 9), (8, 8, 8), (0, 0, 255), (7, 7, 7)])
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    loaded = pictures.load_rgb(encode(stored, "PNG", exif=exif))
    assert loaded.size == (2, 3)
    assert loaded.tobytes() == upright.tobytes()


def test_transparency_becomes_white():
    image = Image.new("RGBA", (3, 1))
    image.putdata([(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 128)])
    loaded = [pictures.load_rgb(encode(image, "PNG")).getpixel((x, 0)) for x in range(3)]
    assert loaded == [(255, 0, 0), (255, 255, 255), (127, 127, 127)]


def test_a_transparent_palette_colour_becomes_white():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    loaded = pictures.load_rgb(encode(image, "PNG", transparency=0))
    assert [loaded.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), (0, 0, 255)]


def test_grey_with_transparency_and_one_bit_are_converted():
    assert pictures.load_rgb(encode(Image.new("LA", (1, 1), (10, 0)), "PNG")).getpixel((0, 0)) == (255, 255, 255)
    assert pictures.load_rgb(encode(Image.new("1", (1, 1), 1), "PNG")).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(kind):
    levels = np.array([[0, 257, 32768, 65535]], np.uint16)
    loaded = pictures.load_rgb(encode(Image.fromarray(levels), kind))
    assert [loaded.getpixel((x, 0)) for x in range(4)] == [(0,) * 3, (1,) * 3, (128,) * 3, (255,) * 3]


def test_cmyk_is_converted():
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red, green, blue = pictures.load_rgb(encode(image, "JPEG", quality=95)).getpixel((8, 8))
    assert red > 240
    assert max(green, blue) < 15


def test_an_embedded_profile_is_applied():
    # a profile whose white is that of sRGB, but whose curve is linear: a middle value is much lighter in sRGB
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    curve = plain.find(b"para")
    assert curve > 0
    linear = plain.replace(plain[curve : curve + 32], b"curv" + bytes(28))  # a curve of no points is the identity
    linear = linear.replace("sRGB".encode("utf-16-be"), "Line".encode("utf-16-be"))
    loaded = pictures.load_rgb(encode(Image.new("RGB", (1, 1), (55, 55, 55)), "PNG", icc_profile=linear))
    assert loaded.getpixel((0, 0)) == pytest.approx((127, 127, 127), abs=2)
    same = pictures.load_rgb(encode(Image.new("RGB", (1, 1), (55, 66, 77)), "PNG", icc_profile=plain))
    assert same.getpixel((0, 0)) == (55, 66, 77)


def test_a_broken_profile_is_left_aside():
    loaded = pictures.load_rgb(encode(Image.new("RGB", (1, 1), (55, 66, 77)), "PNG", icc_profile=b"nonsense"))
    assert loaded.getpixel((0, 0)) == (55, 66, 77)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(kind):
    frames = [Image.new("RGB", (8, 8), color) for color in ((255, 0, 0), (0, 0, 255))]
    data = encode(
        frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    assert pictures.load_rgb(data).getpixel((4, 4)) == (255, 0, 0)


def test_transparency_can_be_kept():
    data = encode(Image.new("RGBA", (1, 1), (1, 2, 3, 4)), "PNG")
    assert pictures.load_rgba(data).getpixel((0, 0)) == (1, 2, 3, 4)
    assert pictures.load_rgba(encode(Image.new("RGB", (1, 1)), "PNG")).getpixel((0, 0)) == (0, 0, 0, 255)


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError) as caught:
        pictures.load_rgb(tmp_path / "none.png")
    assert str(caught.value) == f"error: picture `{tmp_path / 'none.png'}` cannot be used\n  because it is not there"


def test_an_empty_file_and_one_of_another_kind():
    with pytest.raises(DataError) as caught:
        pictures.load_rgb(b"")
    assert str(caught.value) == "error: a picture of 0 bytes cannot be used\n  because it is empty"
    with pytest.raises(DataError) as caught:
        pictures.load_rgb(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")  # its decoder would start a program
    assert str(caught.value) == (
        "error: a picture of 47 bytes cannot be used\n"
        "  because it is not a picture of a known format (AVIF, BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP)"
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM"])
def test_a_truncated_file_is_refused(kind):
    data = encode(noise(64, 64), kind)
    with pytest.raises(DataError):
        pictures.load_rgb(data[: len(data) // 2])


def test_a_flipped_byte_never_escapes_as_another_error():
    data = encode(noise(16, 16), "PNG")
    for place in range(8, len(data), 5):
        broken = bytearray(data)
        broken[place] ^= 0xFF
        with contextlib.suppress(DataError):
            assert pictures.load_rgb(bytes(broken)).mode == "RGB"


def test_too_many_pixels_are_refused_before_decoding():
    # a header of 9000 x 8000 with no pixels behind it: decoding would fail otherwise
    header = struct.pack(">IIBBBBB", 9000, 8000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", b""), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    with pytest.raises(DataError) as caught:
        pictures.load_rgb(data)
    assert str(caught.value) == (
        f"error: a picture of {len(data)} bytes cannot be used\n"
        "  because it has 9000 x 8000 = 72,000,000 pixels and at most 64,000,000 are taken\n\n"
        "hint: make it smaller first"
    )
    small = encode(noise(4, 4), "PNG")
    assert pictures.load_rgb(small, max_pixels=16).size == (4, 4)
    with pytest.raises(DataError):
        pictures.load_rgb(small, max_pixels=15)


def test_pixels_without_a_fixed_range_are_refused():
    with pytest.raises(DataError) as caught:
        pictures.load_rgb(encode(Image.new("F", (2, 2), 0.5), "TIFF"))
    assert caught.value.because == ("its pixels are of mode F, whose range of values is not fixed",)


def test_fit_crops_the_middle():
    image = Image.new("RGB", (40, 20), (255, 0, 0))
    image.paste((0, 0, 255), (10, 0, 30, 20))
    square = pictures.fit(image, 20, 20)
    assert square.size == (20, 20)
    assert square.getcolors() == [(400, (0, 0, 255))]
    assert pictures.fit(image, 13, 7).size == (13, 7)
    assert pictures.fit(square, 20, 20) is square
    with pytest.raises(ValueError, match="a size of 0x20 pixels"):
        pictures.fit(image, 0, 20)


def test_array_has_channels_first_and_unit_range():
    image = Image.new("RGB", (3, 2), (0, 255, 51))
    array = pictures.to_array(image)
    assert array.shape == (3, 2, 3)
    assert array.dtype == np.float32
    assert array[:, 0, 0].tolist() == pytest.approx([-1, 1, -0.6])


def test_array_and_back_is_exact_for_every_value():
    image = Image.frombytes("RGB", (16, 16), bytes(value for value in range(256) for _ in range(3)))
    assert pictures.to_uint8(pictures.to_array(image)).tobytes() == image.tobytes()


def test_what_lies_beyond_is_clipped_and_other_modes_are_refused():
    assert pictures.to_uint8(np.array([-3, 0, 3], np.float32).reshape(3, 1, 1)).tolist() == [[[0, 128, 255]]]
    with pytest.raises(ValueError, match="RGB"):
        pictures.to_array(Image.new("L", (1, 1)))


def test_a_name_that_no_file_can_have():
    with pytest.raises(DataError):
        pictures.load_rgb(Path("a\0b.png"))


def facts(data: bytes, name: str = "a.png", **options) -> pictures.ImageFacts:
    return pictures.examine(data, name, **options)


def kind_of(data: bytes, name: str = "a.png", **options) -> str:
    with pytest.raises(pictures.UnusableImageError) as caught:
        pictures.examine(data, name, **options)
    return caught.value.kind


def test_facts_of_a_sound_picture():
    data = encode(noise(7, 5), "PNG")
    assert facts(data) == pictures.ImageFacts(7, 5, hashlib.blake2b(data, digest_size=16).hexdigest())
    for kind, suffix in (("JPEG", "JPG"), ("WEBP", "webp"), ("AVIF", "avif"), ("TIFF", "tif"), ("BMP", "bmp")):
        assert facts(encode(noise(7, 5), kind), f"folder.d/a.{suffix}").converted == ()
    assert facts(encode(noise(7, 5, "L"), "PNG")).converted == ()
    assert facts(encode(noise(7, 5).quantize(4), "GIF"), "a.gif").converted == ()


def test_a_wrong_suffix_and_one_that_says_nothing():
    data = encode(noise(7, 5), "JPEG")
    for name in ("a.png", "a.PNG", "a.heic", "a.eps"):
        assert facts(data, name).converted == ("wrong-suffix",)
    for name in ("a", "a.bin", "set.parquet[3]/image", "a.jpeg", "a.jpg"):
        assert facts(data, name).converted == ()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_a_turned_picture_has_the_size_that_a_person_sees(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    found = facts(encode(Image.new("RGB", (20, 10)), kind, exif=exif), f"a.{kind.lower()}")
    assert (found.width_px, found.height_px, found.converted) == (10, 20, ("rotated",))


def test_more_than_eight_bits():
    grey = Image.fromarray(np.zeros((4, 4), np.uint16))
    assert facts(encode(grey, "PNG")).converted == ("16-bit",)
    assert facts(encode(grey, "TIFF"), "a.tif").converted == ("16-bit",)
    assert facts(encode(grey, "TIFF", compression="tiff_lzw"), "a.tif").converted == ("16-bit",)
    assert facts(b"P6 2 2 65535\n" + bytes(24), "a.ppm").converted == ("16-bit",)
    assert facts(b"P6 2 2 255\n" + bytes(12), "a.ppm").converted == ()
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)  # Pillow opens 16-bit colour as mode RGB
    assert facts(png((b"IHDR", header), (b"IDAT", zlib.compress(bytes(2 * 13))), (b"IEND", b""))).converted == (
        "16-bit",
    )


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_several_frames(kind):
    frames = [Image.new("RGB", (8, 8), color) for color in ((255, 0, 0), (0, 0, 255))]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    assert facts(data, f"a.{kind.lower()}").converted == ("animated",)


def test_a_photo_with_a_second_view_is_a_jpeg_and_not_animated():
    data = encode(noise(8, 8), "MPO", save_all=True, append_images=[noise(8, 8)])
    assert facts(data, "a.jpg").converted == ()


def test_a_picture_may_have_several_kinds():
    exif = Image.Exif()
    exif[0x0112] = 3
    data = encode(Image.new("CMYK", (8, 8)), "JPEG", exif=exif)
    assert facts(data, "a.png").converted == ("cmyk", "rotated", "wrong-suffix")


def test_kinds_of_what_cannot_be_used(tmp_path):
    whole = encode(noise(64, 64), "PNG")
    assert kind_of(b"") == "empty"
    assert kind_of(whole[: len(whole) // 2]) == "truncated"
    assert kind_of(whole[:12]) == "truncated"
    assert kind_of(b"BMW and Peugeot are no pictures") == "not-a-picture"
    assert kind_of(b"<svg></svg>", "a.svg") == "not-a-picture"
    assert kind_of(whole, max_pixels=64 * 64 - 1) == "too-large"
    assert kind_of(encode(Image.new("F", (2, 2)), "TIFF")) == "undefined-colour"
    assert kind_of(encode(Image.new("I", (2, 2)), "TIFF")) == "undefined-colour"
    for path, kind in ((tmp_path / "none.png", "missing"), (tmp_path, "unreadable")):
        with pytest.raises(pictures.UnusableImageError) as caught:
            pictures.load_rgb(path)
        assert caught.value.kind == kind


def test_only_the_own_limit_on_pixels_counts():
    header = struct.pack(">IIBBBBB", 20_000, 10_000, 1, 0, 0, 0, 0)  # Pillow refuses from 179 million pixels on
    data = png((b"IHDR", header), (b"IDAT", b""), (b"IEND", b""))
    assert kind_of(data, max_pixels=300_000_000) == "truncated"
    assert kind_of(data) == "too-large"
    assert Image.MAX_IMAGE_PIXELS is not None


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def test_values_become_bytes_clipped_and_rounded():
    image = np.array([-2, -1, 0, 1, 2], np.float32).reshape(1, 1, 5).repeat(3, 0)
    assert pictures.to_uint8(image)[0, :, 0].tolist() == [0, 0, 128, 255, 255]
