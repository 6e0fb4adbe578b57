"""Rows of a picture folder: what is read, what is a fault, and what the folder is refused for."""

import sys

import pytest

from sampan.data.readers import Columns
from sampan.data.readers.image_folder import read
from sampan.errors import DataError, JobError
from unit.data.readers.picture_folder import describe, notes, reasons, sample


def test_rows_become_samples_in_order(folder):
    describe(
        folder,
        {"file_name": "b.png", "text": "bee", "texts": {"en": "bee", "pt": " abelha ", "zh": "蜂"}, "emoji": "🐝"},
        {"file_name": "a.png", "texts": {"en": "only texts"}},
        {"file_name": "sub/c.jpg", "text": ["one", "two"]},
        {"file_name": "b.png", "text": "make it night", "references": ["a.png", "./sub/c.jpg"]},
    )
    listing = read(folder)
    assert listing.samples == (
        sample(folder, "metadata.jsonl:1", "b.png", "bee", "abelha", "蜂"),
        sample(folder, "metadata.jsonl:2", "a.png", "only texts"),
        sample(folder, "metadata.jsonl:3", "sub/c.jpg", "one", "two"),
        sample(folder, "metadata.jsonl:4", "b.png < a.png < sub/c.jpg", "make it night"),
    )
    assert listing.num_rows == 4
    assert listing.faults == ()


def test_keys_are_unique_and_do_not_depend_on_other_rows(folder):
    rows = [
        {"file_name": "a.png", "text": "x"},
        {"file_name": "b.png", "text": "y"},
        {"file_name": "a.png", "text": "z"},
    ]
    describe(folder, *rows)
    assert [sample.key for sample in read(folder).samples] == ["a.png", "b.png", "a.png #2"]
    describe(folder, rows[0], rows[2])
    assert [sample.key for sample in read(folder).samples] == ["a.png", "a.png #2"]


def test_bad_rows_are_named_and_shift_nothing(folder):
    (folder / "words.png").write_text("not a picture")
    describe(
        folder,
        {"file_name": "a.png", "text": "first"},
        b"{oops",
        {"file_name": "missing.png", "text": "gone"},
        {"file_name": "words.png", "text": "is not opened"},
        b"",
        {"file_name": "b.png", "text": "  "},
        {"file_name": "b.png"},
        {"text": "no name"},
        {"file_name": "b.png", "text": 7},
        {"file_name": "b.png", "text": ["x", 7]},
        {"file_name": "b.png", "text": "x", "references": ["missing.png"]},
        {"file_name": "b.png", "text": "x", "references": {"a": 1}},
        b'["a.png"]',
        b'{"file_name": "b.png", "text": "\xff"}',
        b'{"file_name": "b.png", "text": "\\ud800"}',
        {"file_name": "../outside.png", "text": "x"},
        {"file_name": "b.png", "text": "last"},
    )
    listing = read(folder)
    assert [(sample.key, *sample.captions) for sample in listing.samples] == [
        ("a.png", "first"),
        ("words.png", "is not opened"),
        ("b.png", "last"),
    ]
    assert listing.num_rows == 16
    assert listing.faults[0].reason.startswith("not JSON: ")
    assert [f"{fault.where} {fault.kind}" for fault in listing.faults] == [
        "metadata.jsonl:2 bad-row",
        "metadata.jsonl:3 no-file",
        "metadata.jsonl:6 no-caption",
        "metadata.jsonl:7 no-caption",
        "metadata.jsonl:8 no-file",
        "metadata.jsonl:9 bad-row",
        "metadata.jsonl:10 bad-row",
        "metadata.jsonl:11 no-file",
        "metadata.jsonl:12 bad-row",
        "metadata.jsonl:13 bad-row",
        "metadata.jsonl:14 bad-row",
        "metadata.jsonl:15 bad-row",
        "metadata.jsonl:16 outside",
    ]
    assert [fault.reason for fault in listing.faults[1:]] == [
        "`missing.png` is not there",
        "no caption",
        "no caption",
        "no `file_name`",
        "`text` is not a text or a list of them, or `texts` not an object of them",
        "a caption is not a text: 7",
        "`missing.png` is not there",
        "`references` is not a list of file names",
        "not a JSON object",
        "not UTF-8",
        "a caption is not valid Unicode",
        "`../outside.png` leads out of the folder",
    ]


@pytest.mark.parametrize(
    "name",
    ["../outside.png", "sub/../../outside.png", "/etc/passwd", "C:\\a.png", "\\\\host\\a.png", "..\\outside.png"],
)
@pytest.mark.parametrize("place", ["file_name", "references"])
def test_no_name_leads_out_of_the_folder(folder, name, place):
    row = {"file_name": "a.png", "text": "x"}
    row |= {"references": [name]} if place == "references" else {"file_name": name}
    describe(folder, row, {"file_name": "a.png", "text": "good"})
    assert reasons(folder) == [f"metadata.jsonl:1: `{name}` leads out of the folder"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_no_link_leads_out_of_the_folder(folder):
    (folder / "link.png").symlink_to(folder.parent / "outside.png")
    (folder / "within.png").symlink_to(folder / "a.png")
    (folder / "circle.png").symlink_to(folder / "circle.png")
    describe(folder, *({"file_name": f"{name}.png", "text": "x"} for name in ("link", "within", "circle")))
    found = reasons(folder)
    assert found[0] == "metadata.jsonl:1: `link.png` leads out of the folder"
    assert found[1].startswith("metadata.jsonl:3: ")
    assert len(found) == 2


@pytest.mark.parametrize("name", ["a\0b.png", "x" * 5000 + ".png", "sub"])
def test_a_name_that_is_no_file_is_a_bad_row(folder, name):
    describe(folder, {"file_name": name, "text": "x"}, {"file_name": "a.png", "text": "good"})
    assert len(reasons(folder)) == 1


def test_no_rows_at_all(folder):
    (folder / "metadata.jsonl").write_text("\n")
    with pytest.raises(DataError) as caught:
        read(folder)
    assert str(caught.value) == f"error: picture folder `{folder}` has no rows\n  because its metadata file is empty"


def test_limit(folder):
    describe(folder, *({"file_name": name, "text": "x"} for name in ("a.png", "none.png", "sub/c.jpg")))
    listing = read(folder, limit=2)
    assert [sample.key for sample in listing.samples] == ["a.png"]
    assert len(listing.faults) == 1
    assert listing.num_rows == 2


def test_a_split_is_a_subfolder(folder):
    describe(folder / "sub", {"file_name": "c.jpg", "text": "x"})
    assert read(folder, split="sub").samples == (sample(folder / "sub", "metadata.jsonl:1", "c.jpg", "x"),)
    with pytest.raises(DataError) as caught:
        read(folder, split="subb")
    assert str(caught.value) == (
        f"error: picture folder `{folder}` has no split `subb`\n"
        "  because a split is a subfolder with a description of its own\n\n"
        "hint: did you mean `sub`?"
    )


def test_fields_of_other_names(folder):
    describe(folder, {"picture": "b.png", "title": "bee", "tags": ["x", "y"], "before": "a.png", "text": "not this"})
    columns = Columns(image="picture", captions=("title", "tags"), references="before")
    assert read(folder, columns=columns).samples == (
        sample(folder, "metadata.jsonl:1", "b.png < a.png", "bee", "x", "y"),
    )
    (folder / "metadata.jsonl").unlink()
    (folder / "metadata.csv").write_text("picture,title,before\nb.png,bee,a.png\n")
    with pytest.raises(JobError) as caught:
        read(folder, columns=columns)
    assert str(caught.value) == (
        f"error: `tags` is not a column of `{folder / 'metadata.csv'}`\n"
        "  because its columns are `picture`, `title`, `before`\n\n"
        "hint: known: `before`, `picture`, `title`"
    )
    columns = Columns(image="picture", captions=("title",), references="before")
    assert read(folder, columns=columns).samples == (sample(folder, "metadata.csv:2", "b.png < a.png", "bee"),)


def test_a_byte_order_mark_and_windows_line_ends_are_read(folder):
    (folder / "metadata.jsonl").write_bytes(b'\xef\xbb\xbf{"file_name": "a.png", "text": "x"}\r\n\r\n')
    assert read(folder).samples == (sample(folder, "metadata.jsonl:1", "a.png", "x"),)


def test_csv(folder):
    (folder / "metadata.csv").write_text(
        "file_name,text,text_pt,references\r\n"
        'a.png,"a boat, red",um barco,\r\n'
        "b.png,bee,,a.png; sub/c.jpg\r\n"
        "missing.png,gone,,\r\n"
        "b.png,too,many,cells,here\r\n"
        "b.png\r\n",
        encoding="utf-8-sig",
        newline="",
    )
    assert read(folder).samples == (
        sample(folder, "metadata.csv:2", "a.png", "a boat, red", "um barco"),
        sample(folder, "metadata.csv:3", "b.png < a.png < sub/c.jpg", "bee"),
    )
    assert reasons(folder) == [
        "metadata.csv:4: `missing.png` is not there",
        "metadata.csv:5: more cells than columns; a caption with a comma needs quotes",
        "metadata.csv:6: no caption",
    ]


def test_csv_without_the_column(folder):
    (folder / "metadata.csv").write_text("name,text\na.png,x\n")
    with pytest.raises(DataError) as caught:
        read(folder)
    assert str(caught.value) == (
        f"error: picture folder `{folder}` cannot be read\n"
        "  because metadata.csv has no column `file_name`, which names the picture\n"
        "  because its columns are `name`, `text`\n\n"
        'hint: say which they are: data.image_column = "name"'
    )


def test_csv_with_bytes_that_are_no_text(folder):
    (folder / "metadata.csv").write_bytes(b"file_name,text\na.png,\xff\nb.png,good\n")
    assert reasons(folder) == ["metadata.csv:2: a caption is not valid Unicode"]


def test_text_files_beside_the_pictures(folder):
    (folder / "a.txt").write_text("first\n\n second \n", encoding="utf-8-sig")
    (folder / "sub/c.TXT").write_text("三", encoding="utf-8")
    (folder / "lone.txt").write_text("no picture")
    (folder / "._a.png").write_bytes(b"what a Mac leaves")
    assert read(folder).samples == (
        sample(folder, "a.png", "a.png", "first", "second"),
        sample(folder, "sub/c.jpg", "sub/c.jpg", "三"),
    )
    assert reasons(folder) == ["b.png: no caption: no `.txt` file beside it"]
    assert notes(folder)[1:] == ["stray-text: lone.txt: no picture beside it"]
    assert read(folder).num_rows == 3


def test_folders_that_say_nothing_or_two_things(folder, tmp_path):
    with pytest.raises(DataError) as caught:
        read(folder)
    assert str(caught.value) == (
        f"error: picture folder `{folder}` cannot be read\n"
        "  because it has no metadata.jsonl, no metadata.csv, and no pictures with `.txt` captions beside them\n\n"
        'hint: write metadata.jsonl, a line a picture: {"file_name": "a.png", "text": "what it shows"}; '
        "or give all one caption: data.caption or data.trigger"
    )
    (folder / "metadata.jsonl").touch()
    (folder / "metadata.csv").touch()
    with pytest.raises(DataError, match=r"has both metadata\.jsonl and metadata\.csv"):
        read(folder)
    with pytest.raises(DataError) as caught:
        read(tmp_path / "none")
    assert str(caught.value) == (
        f"error: picture folder `{tmp_path / 'none'}` cannot be read\n  because there is no such folder"
    )
    with pytest.raises(DataError, match="it is a file"):
        read(folder / "a.png")
