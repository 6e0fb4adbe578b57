"""Which files of a folder are read, by which names they are found, and where their captions are."""

import sys
import unicodedata

import pytest
from PIL import Image

from sampan.data.image_source import FileSource
from sampan.data.readers import CaptionOptions
from sampan.data.readers.image_folder import read
from unit.data.readers.picture_folder import captions, describe, notes, reasons, refused

# --- which files there are --------------------------------------------------------------------------------------------


def test_hidden_folders_are_no_part_of_the_set(folder):
    for name in (".ipynb_checkpoints", ".thumbnails", "__MACOSX", "@eaDir", "sub/.cache/deep"):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / name / "a-checkpoint.png")
        (folder / name / "a-checkpoint.txt").write_text("a")
    (folder / ".git").mkdir()
    (folder / "Thumbs.db").write_bytes(b"x")
    for name in ("a", "b", "sub/c"):
        (folder / f"{name}.txt").write_text(name)
    assert list(captions(folder)) == ["a.png", "b.png", "sub/c.jpg"]
    listing = read(folder)
    assert (listing.num_rows, listing.faults) == (3, ())
    assert [(note.kind, note.where, note.reason) for note in listing.notes] == [
        ("hidden", name, "1 pictures in it are not read")
        for name in (".ipynb_checkpoints", ".thumbnails", "@eaDir", "__MACOSX", "sub/.cache")
    ]


def test_pictures_without_a_row_are_named(folder):
    describe(folder, {"file_name": "a.png", "text": "x", "references": ["sub/c.jpg"]}, {"file_name": "none.png"})
    assert notes(folder) == ["unlisted: b.png: no row of metadata.jsonl names it"]
    assert notes(folder, limit=1) == []


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS finds a name however its accents are composed")
@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
def test_accents_composed_in_another_way_are_the_same_name(folder, on_disk):
    in_row = {"NFC": "NFD", "NFD": "NFC"}[on_disk]
    names = [unicodedata.normalize(form, "ações/maçã.png") for form in (on_disk, in_row)]
    (folder / names[0]).parent.mkdir()
    (folder / "a.png").rename(folder / names[0])
    describe(
        folder,
        {"file_name": names[1], "text": "x"},
        {"file_name": "b.png", "text": "y"},
        {"file_name": "sub/c.jpg", "text": "z"},
    )
    listing = read(folder)
    assert next((s.key, s.image) for s in listing.samples) == (names[1], FileSource(folder / names[0]))
    assert (listing.faults, listing.notes) == ((), ())
    (folder / "metadata.jsonl").unlink()
    caption = (folder / names[0]).with_name(unicodedata.normalize(in_row, "maçã.txt"))
    caption.write_text("beside")
    assert captions(folder) == {names[0]: ("beside",)}
    split = unicodedata.normalize(in_row, "ações")
    assert list(captions(folder, split=split)) == [(folder / names[0]).name]


def test_names_that_windows_wrote(folder):
    describe(
        folder,
        {"file_name": "sub\\c.jpg", "text": "x", "references": [".\\a.png"]},
        {"file_name": "sub\\no.jpg", "text": "x"},
    )
    listing = read(folder)
    assert [(s.key, s.image, s.references) for s in listing.samples] == [
        ("sub/c.jpg < a.png", FileSource(folder / "sub/c.jpg"), (FileSource(folder / "a.png"),))
    ]
    assert reasons(folder) == ["metadata.jsonl:2: `sub\\no.jpg` is not there"]
    assert [note.where for note in listing.notes] == ["b.png"]


# --- captions beside pictures -----------------------------------------------------------------------------------------


def test_caption_files_of_other_names(folder):
    (folder / "a.caption").write_text("sks dog, sitting")
    (folder / "b.png.txt").write_text("bee")
    (folder / "sub/c.jpg.Caption").write_text("see")
    assert captions(folder) == {"a.png": ("sks dog, sitting",), "b.png": ("bee",), "sub/c.jpg": ("see",)}
    (folder / "a.txt").write_text("a dog")
    (folder / "b.txt").write_text("for no picture now")
    assert captions(folder) == {"a.png": ("a dog",), "b.png": ("bee",), "sub/c.jpg": ("see",)}
    assert notes(folder) == [
        "stray-text: a.caption: `a.txt` holds in its place",
        "stray-text: b.txt: `b.png.txt` holds in its place",
    ]


PARAGRAPHS = "A photo of a lamp.\n\nIt stands on a table.\n- style: film\n"


def test_a_caption_of_several_paragraphs(folder):
    for name in ("a", "b", "sub/c"):
        (folder / f"{name}.txt").write_text(PARAGRAPHS if name == "a" else "one\ntwo\n", newline="\r\n")
    lines = ("A photo of a lamp.", "It stands on a table.", "- style: film")
    assert captions(folder) == {"a.png": lines, "b.png": ("one", "two"), "sub/c.jpg": ("one", "two")}
    told = "2 paragraphs in 3 lines, of which each is a caption of its own"
    assert notes(folder) == [f'paragraphs: a.txt: {told}; data.caption_lines = "one" keeps it whole']
    whole = CaptionOptions(lines="one")
    assert captions(folder, captions=whole) == {
        "a.png": (PARAGRAPHS.strip(),), "b.png": ("one\ntwo",), "sub/c.jpg": ("one\ntwo",)
    }  # fmt: skip
    assert notes(folder, captions=whole) == []


def test_one_caption_or_a_trigger_for_all(folder):
    everywhere = dict.fromkeys(("a.png", "b.png", "sub/c.jpg"))
    assert captions(folder, captions=CaptionOptions(default="a dog")) == dict.fromkeys(everywhere, ("a dog",))
    assert captions(folder, captions=CaptionOptions(trigger="sks dog")) == dict.fromkeys(everywhere, ("sks dog",))
    both = CaptionOptions(default="sitting", trigger="sks dog")
    assert captions(folder, captions=both) == dict.fromkeys(everywhere, ("sks dog, sitting",))
    (folder / "a.txt").write_text("[trigger] runs\nit sits\nthe sks dogs\na sks dog, lying\nsks dog runs")
    assert captions(folder, captions=both)["a.png"] == (
        "sks dog runs",
        "sks dog, it sits",
        "sks dog, the sks dogs",
        "a sks dog, lying",
    )
    assert captions(folder, captions=both)["b.png"] == ("sks dog, sitting",)
    describe(folder, {"file_name": "a.png"}, {"file_name": "b.png", "text": "bee"})
    assert captions(folder, captions=both) == {"a.png": ("sks dog, sitting",), "b.png": ("sks dog, bee",)}


def test_notes_alone_are_no_captions(folder):
    (folder / "README.txt").write_text("my notes")
    assert "data.caption or data.trigger" in refused(folder)
    assert notes(folder, captions=CaptionOptions(default="x")) == ["stray-text: README.txt: no picture beside it"]


def test_a_set_that_is_split_by_folders_says_how_to_read_it(folder):
    for split in ("train", "test"):
        (folder / split).mkdir()
        Image.new("RGB", (8, 8)).save(folder / split / "0.png")
        describe(folder / split, {"file_name": "0.png", "text": split})
    told = refused(folder)
    assert "because there are metadata files in `test`, `train`" in told
    assert told.endswith('hint: read one of these: data.split = "test"')
    assert refused(folder, captions=CaptionOptions(default="x")) == told
    assert captions(folder, split="train") == {"0.png": ("train",)}
    for split in ("train", "test"):
        (folder / split / "metadata.jsonl").unlink()
        (folder / split / "0.txt").write_text(split)
    assert list(captions(folder)) == ["test/0.png", "train/0.png"]
    assert notes(folder) == [
        f'splits: {folder.name}: `train` and `test` are read together; data.split = "train" reads one'
    ]


def test_photos_of_a_format_that_is_not_read_are_rows(folder):
    for name in ("a", "b", "sub/c"):
        (folder / f"{name}.txt").write_text(name)
    (folder / "phone.HEIC").write_bytes(b"x")
    (folder / "phone.txt").write_text("of the phone")
    (folder / "a.heic").write_bytes(b"the same as a.png")
    (folder / "logo.svg").write_bytes(b"x")
    assert reasons(folder) == ["phone.HEIC: HEIF is not read; make a PNG or a JPEG of it"]
    assert notes(folder) == []


def test_the_reader_for_what_is_there_is_named(tmp_path):
    (tmp_path / "train-000.tar").write_bytes(b"x")
    assert refused(tmp_path).endswith('hint: data.reader = "webdataset"')
