import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from sampan.data.readers import Sample
from sampan.data.readers.image_folder import read
from sampan.errors import DataError


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder inside another, with good pictures in it and one outside."""
    root = tmp_path / "set"
    (root / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.png", "sub/c.jpg")):
        Image.new("RGB", (8, 8), (number * 50, 0, 0)).save(root / name)
    Image.new("RGB", (8, 8)).save(tmp_path / "outside.png")
    return root


def describe(folder: Path, *rows) -> None:
    lines = [row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() for row in rows]
    (folder / "metadata.jsonl").write_bytes(b"\n".join(lines) + b"\n")


def reasons(folder: Path, **options) -> list[str]:
    return [str(row) for row in read(folder, max_bad_share=1, **options)[1].bad]


def test_rows_become_samples_in_order(folder):
    describe(
        folder,
        {"file_name": "b.png", "text": "bee", "texts": {"en": "bee", "pt": " abelha ", "zh": "蜂"}, "emoji": "🐝"},
        {"file_name": "a.png", "texts": {"en": "only texts"}},
        {"file_name": "sub/c.jpg", "text": ["one", "two"]},
        {"file_name": "b.png", "text": "make it night", "references": ["a.png", "./sub/c.jpg"]},
    )
    samples, report = read(folder)
    assert samples == [
        Sample("b.png", folder / "b.png", ("bee", "abelha", "蜂")),
        Sample("a.png", folder / "a.png", ("only texts",)),
        Sample("sub/c.jpg", folder / "sub/c.jpg", ("one", "two")),
        Sample(
            "b.png < a.png < sub/c.jpg",
            folder / "b.png",
            ("make it night",),
            (folder / "a.png", folder / "sub/c.jpg"),
        ),
    ]
    assert report.num_rows == 4
    assert report.bad == ()


def test_keys_are_unique_and_do_not_depend_on_other_rows(folder):
    rows = [
        {"file_name": "a.png", "text": "x"},
        {"file_name": "b.png", "text": "y"},
        {"file_name": "a.png", "text": "z"},
    ]
    describe(folder, *rows)
    assert [sample.key for sample in read(folder)[0]] == ["a.png", "b.png", "a.png #2"]
    describe(folder, rows[0], rows[2])
    assert [sample.key for sample in read(folder)[0]] == ["a.png", "a.png #2"]


def test_bad_rows_are_named_and_shift_nothing(folder):
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:40])
    (folder / "words.png").write_text("not a picture")
    describe(
        folder,
        {"file_name": "a.png", "text": "first"},
        b"{oops",
        {"file_name": "missing.png", "text": "gone"},
        {"file_name": "broken.png", "text": "cut short"},
        {"file_name": "words.png", "text": "words"},
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
        {"file_name": "b.png", "text": "last"},
    )
    samples, report = read(folder, max_bad_share=1)
    assert [(sample.key, sample.captions) for sample in samples] == [("a.png", ("first",)), ("b.png", ("last",))]
    assert report.num_rows == 16
    found = [str(row) for row in report.bad]
    assert found[0].startswith("metadata.jsonl:2: not JSON: ")
    assert found[1] == "metadata.jsonl:3: `missing.png` is not there"
    assert found[2].startswith("metadata.jsonl:4: `broken.png`: ")
    assert found[3].startswith("metadata.jsonl:5: `words.png`: it is not a picture of a known format")
    assert found[4:] == [
        "metadata.jsonl:7: no caption",
        "metadata.jsonl:8: no caption",
        "metadata.jsonl:9: no `file_name`",
        "metadata.jsonl:10: `text` is not a text or a list of them, or `texts` not an object of them",
        "metadata.jsonl:11: a caption is not a text: 7",
        "metadata.jsonl:12: `missing.png` is not there",
        "metadata.jsonl:13: `references` is not a list of file names",
        "metadata.jsonl:14: not a JSON object",
        "metadata.jsonl:15: not UTF-8",
        "metadata.jsonl:16: a caption is not valid Unicode",
    ]


def test_without_decoding_only_missing_files_are_found(folder):
    (folder / "words.png").write_text("not a picture")
    describe(folder, {"file_name": "words.png", "text": "x"}, {"file_name": "missing.png", "text": "x"})
    assert reasons(folder, decode=False) == ["metadata.jsonl:2: `missing.png` is not there"]


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


def test_too_many_bad_rows_stop_it(folder):
    describe(folder, *({"file_name": f"{i}.png", "text": "x"} for i in range(7)), {"file_name": "a.png", "text": "x"})
    with pytest.raises(DataError) as caught:
        read(folder)
    assert str(caught.value) == (
        f"error: 7 of 8 rows (87.5%) of picture folder `{folder}` cannot be used, and at most 5.0% may be\n"
        "  because metadata.jsonl:1: `0.png` is not there\n"
        "  because metadata.jsonl:2: `1.png` is not there\n"
        "  because metadata.jsonl:3: `2.png` is not there\n"
        "  because metadata.jsonl:4: `3.png` is not there\n"
        "  because metadata.jsonl:5: `4.png` is not there\n"
        "  because of 2 more\n\n"
        "hint: mend these rows or take them out, or allow a larger share"
    )
    assert len(read(folder, max_bad_share=0.875)[0]) == 1


def test_nothing_usable_is_an_error_at_any_share(folder):
    describe(folder, {"file_name": "none.png", "text": "x"})
    with pytest.raises(DataError):
        read(folder, max_bad_share=1)
    (folder / "metadata.jsonl").write_text("\n")
    with pytest.raises(DataError) as caught:
        read(folder, max_bad_share=1)
    assert str(caught.value) == (f"error: picture folder `{folder}` has no rows\n  because its metadata file is empty")


def test_limit_and_progress(folder):
    describe(folder, *({"file_name": name, "text": "x"} for name in ("a.png", "b.png", "sub/c.jpg")))
    seen: list[tuple[int, int]] = []
    samples, report = read(folder, limit=2, progress=lambda done, total: seen.append((done, total)))
    assert [sample.key for sample in samples] == ["a.png", "b.png"]
    assert report.num_rows == 2
    assert seen == [(1, 2), (2, 2)]


def test_a_byte_order_mark_and_windows_line_ends_are_read(folder):
    (folder / "metadata.jsonl").write_bytes(b'\xef\xbb\xbf{"file_name": "a.png", "text": "x"}\r\n\r\n')
    assert read(folder)[0] == [Sample("a.png", folder / "a.png", ("x",))]


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
    samples, report = read(folder, max_bad_share=1)
    assert samples == [
        Sample("a.png", folder / "a.png", ("a boat, red", "um barco")),
        Sample("b.png < a.png < sub/c.jpg", folder / "b.png", ("bee",), (folder / "a.png", folder / "sub/c.jpg")),
    ]
    assert [str(row) for row in report.bad] == [
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
        "  because the first line of metadata.csv names no column `file_name`\n\n"
        "hint: begin it with: file_name,text"
    )


def test_csv_with_bytes_that_are_no_text(folder):
    (folder / "metadata.csv").write_bytes(b"file_name,text\na.png,\xff\nb.png,good\n")
    assert reasons(folder) == ["metadata.csv:2: a caption is not valid Unicode"]


def test_text_files_beside_the_pictures(folder):
    (folder / "a.txt").write_text("first\n\n second \n", encoding="utf-8-sig")
    (folder / "sub/c.TXT").write_text("三", encoding="utf-8")
    (folder / "lone.txt").write_text("no picture")
    (folder / "._a.png").write_bytes(b"what a Mac leaves")
    samples, report = read(folder, max_bad_share=1)
    assert samples == [
        Sample("a.png", folder / "a.png", ("first", "second")),
        Sample("sub/c.jpg", folder / "sub/c.jpg", ("三",)),
    ]
    assert [str(row) for row in report.bad] == [
        "b.png: no caption: no `.txt` file beside it",
        "lone.txt: no picture beside it",
    ]


def test_folders_that_say_nothing_or_two_things(folder, tmp_path):
    with pytest.raises(DataError) as caught:
        read(folder)
    assert str(caught.value) == (
        f"error: picture folder `{folder}` cannot be read\n"
        "  because it has no metadata.jsonl, no metadata.csv, and no pictures with `.txt` captions beside them\n\n"
        'hint: write metadata.jsonl, a line a picture: {"file_name": "a.png", "text": "what it shows"}'
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
