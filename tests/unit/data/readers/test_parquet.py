import pickle
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from sampan.data.image_source import FileSource
from sampan.data.readers import CaptionOptions, Columns, Listing
from sampan.data.readers.parquet import read
from sampan.data.table_images import TableImage
from sampan.errors import DataError, JobError

CELL = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def cell(data: bytes | None, path: str | None = None) -> dict:
    return {"bytes": data, "path": path}


def write(path: Path, group_size: int = 2, types: dict | None = None, **columns) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: pa.array(values, (types or {}).get(name)) for name, values in columns.items()}
    pq.write_table(pa.table(arrays), path, row_group_size=group_size)
    return path


def shown(listing: Listing) -> list[tuple]:
    return [
        (sample.key, sample.captions, sample.image.read(), *(reference.read() for reference in sample.references))
        for sample in listing.samples
    ]


def faults(listing: Listing) -> list[str]:
    return [f"{fault.where}: {fault.kind}: {fault.reason}" for fault in listing.faults]


@pytest.mark.parametrize(
    ("kind", "as_cell"),
    [
        (CELL, cell),
        (pa.struct({"path": pa.string(), "bytes": pa.large_binary()}), cell),
        (pa.struct({"bytes": pa.binary()}), lambda data: {"bytes": data}),
        (pa.binary(), bytes),
        (pa.large_binary(), bytes),
        (pa.binary(2), bytes),
    ],
)
def test_pictures_in_cells(tmp_path, kind, as_cell):
    path = write(
        tmp_path / "a.parquet",
        types={"image": kind, "before": pa.list_(kind)},
        image=[as_cell(f"{n}{n}".encode()) for n in range(5)],
        before=[[as_cell(b"r%d" % r) for r in range(n % 3)] for n in range(5)],
        text=[f"row {n}" for n in range(5)],
    )
    listing = read(path, columns=Columns(references="before"))
    assert shown(listing) == [
        ("a.parquet[0]", ("row 0",), b"00"),
        ("a.parquet[1]", ("row 1",), b"11", b"r0"),
        ("a.parquet[2]", ("row 2",), b"22", b"r0", b"r1"),
        ("a.parquet[3]", ("row 3",), b"33"),
        ("a.parquet[4]", ("row 4",), b"44", b"r0"),
    ]
    assert listing.faults == ()
    assert pickle.loads(pickle.dumps(listing)) == listing  # noqa: S301 - sources travel to worker processes
    assert len({sample.image for sample in listing.samples}) == 5
    stamps = {source.fingerprint() for sample in listing.samples for source in (sample.image, *sample.references)}
    assert len(stamps) == 9


def test_a_cell_says_what_its_picture_is_called(tmp_path):
    path = write(
        tmp_path / "a.parquet",
        types={"image": CELL},
        image=[cell(b"x", "/home/me/one.JPG"), cell(b"y"), cell(b"z", "c:\\two.png")],
        text=["x"] * 3,
    )
    assert [sample.image.name for sample in read(path).samples] == [
        f"{path.as_posix()}[0.0]/image/one.JPG",
        f"{path.as_posix()}[0.1]/image",
        f"{path.as_posix()}[1.0]/image/two.png",
    ]


def test_names_of_files_stay_in_the_folder(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/a.png").write_bytes(b"A")
    (tmp_path / "b.png").write_bytes(b"B")
    names = ["a.png", "../b.png", str(tmp_path / "b.png"), "none.png", None, ""]
    plain = write(tmp_path / "set/plain.parquet", image=names, text=["x"] * 6)
    cells = [cell(None, name) for name in names]
    mixed = write(
        tmp_path / "set/mixed.parquet", types={"image": CELL}, image=[*cells, cell(b"C"), None], text=["x"] * 8
    )
    for path in (plain, mixed):
        listing = read(path)
        assert listing.samples[0].image == FileSource(tmp_path / "set/a.png")
        assert faults(listing)[:5] == [
            f"{path.name}[1]: outside: `../b.png` leads out of the folder",
            f"{path.name}[2]: outside: `{tmp_path / 'b.png'}` leads out of the folder",
            f"{path.name}[3]: no-file: `none.png` is not there",
            f"{path.name}[4]: no-file: no picture in `image`",
            f"{path.name}[5]: no-file: no picture in `image`",
        ]
    assert [sample.image.read() for sample in read(mixed).samples] == [b"A", b"C"]
    assert faults(read(mixed))[5:] == ["mixed.parquet[7]: no-file: no picture in `image`"]


def test_captions_of_several_columns_and_kinds(tmp_path):
    path = write(
        tmp_path / "a.parquet",
        image=[b"x"] * 4,
        text=["one", " two ", None, None],
        more=[["one", "uno"], [], None, [None, ""]],
        by_language=[{"en": "one", "zh": "一"}, None, {"en": "three", "zh": None}, None],
    )
    listing = read(path, columns=Columns(captions=("text", "more", "by_language")))
    assert [sample.captions for sample in listing.samples] == [("one", "uno", "一"), ("two",), ("three",)]
    assert faults(listing) == ["a.parquet[3]: no-caption: no caption"]


def test_a_null_among_references_leaves_its_row_out(tmp_path):
    path = write(
        tmp_path / "a.parquet",
        types={"before": pa.list_(CELL)},
        image=[b"x"] * 3,
        text=["x"] * 3,
        before=[[cell(b"r")], [cell(b"r"), None], None],
    )
    listing = read(path, columns=Columns(references="before"))
    assert [(sample.key, len(sample.references)) for sample in listing.samples] == [
        ("a.parquet[0]", 1),
        ("a.parquet[2]", 0),
    ]
    assert faults(listing) == ["a.parquet[1]: no-file: an entry of `before` has no picture"]


def test_a_single_reference_needs_no_list(tmp_path):
    path = write(
        tmp_path / "a.parquet",
        types={"before": CELL},
        image=[b"x", b"y"],
        text=["x"] * 2,
        before=[cell(b"r", "r.png"), None],
    )
    assert shown(read(path, columns=Columns(references="before"))) == [
        ("a.parquet[0]", ("x",), b"x", b"r"),
        ("a.parquet[1]", ("x",), b"y"),
    ]


def test_listing_reads_no_pictures(tmp_path, monkeypatch):
    path = write(
        tmp_path / "a.parquet",
        types={"image": CELL, "before": pa.list_(CELL)},
        image=[cell(b"x" * 1000, "a.png"), None, cell(b"x", None)],
        before=[[cell(b"r")], [], None],
        text=["x"] * 3,
    )
    asked: list[str] = []
    real = pq.ParquetFile.read_row_group

    def counting(self, group, columns=None, **options):
        asked.extend(columns)
        return real(self, group, columns=columns, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counting)
    read(path, columns=Columns(references="before"))
    assert set(asked) == {"text", "image.path", "before.list.element.path"}


def test_reading_in_order_opens_each_group_once(tmp_path, monkeypatch):
    path = write(tmp_path / "a.parquet", group_size=10, image=[b"%d" % n for n in range(40)], text=["x"] * 40)
    listing = read(path)
    opened: list[int] = []
    real = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_group",
        lambda self, group, **rest: (opened.append(group), real(self, group, **rest))[1],
    )
    assert [sample.image.read() for sample in listing.samples] == [b"%d" % n for n in range(40)]
    assert opened == [0, 1, 2, 3]


def test_a_changed_file_is_read_anew_and_a_lost_row_is_an_oserror(tmp_path):
    path = write(tmp_path / "a.parquet", image=[b"old", b"last"], text=["x"] * 2)
    first, last = (sample.image for sample in read(path).samples)
    assert (first.read(), last.read()) == (b"old", b"last")
    before = first.fingerprint()
    write(path, image=[b"newer"], text=["x"])
    assert first.read() == b"newer"
    assert first.fingerprint() != before
    with pytest.raises(OSError, match="cannot be read at"):
        last.read()
    with pytest.raises(OSError, match="cannot be read at"):
        TableImage(path, 0, "other", row_group=0).read()
    path.write_bytes(b"PAR1 broken PAR1")
    with pytest.raises(OSError, match="cannot be read at"):
        first.read()


def test_files_of_a_folder_splits_and_limit(tmp_path):
    for name in ("data/train-00000-of-00002", "data/train-00001-of-00002", "data/test-00000-of-00001"):
        write(tmp_path / f"{name}.parquet", image=[name.encode()] * 3, text=["x"] * 3)
    assert len(read(tmp_path).samples) == 9
    assert [sample.key for sample in read(tmp_path, split="train", limit=4).samples] == [
        "data/train-00000-of-00002.parquet[0]",
        "data/train-00000-of-00002.parquet[1]",
        "data/train-00000-of-00002.parquet[2]",
        "data/train-00001-of-00002.parquet[0]",
    ]
    assert len(read(tmp_path / "data/test-*.parquet").samples) == 3
    with pytest.raises(DataError, match="have no split `val`"):
        read(tmp_path, split="val")


def test_columns_that_are_not_there_or_hold_something_else(tmp_path):
    path = write(tmp_path / "a.parquet", picture=[b"x"], text=["x"], label=[3], others=[[b"x"]])
    said = "  because its columns are `picture` (a picture), `text` (text), `label` (int64), `others` (pictures)\n\n"
    absent, other = "which is not a column of", "which holds {} in"
    could = "data.image_column could be `picture`, `text`"
    for columns, setting, name, why, hint in (
        (None, "image_column", "image", absent, could),
        (Columns(image="pictures"), "image_column", "pictures", absent, "did you mean `picture`?"),
        (Columns("others"), "image_column", "others", other.format("pictures"), could),
        (
            Columns("picture", ("label",)),
            "caption_columns",
            "label",
            other.format("int64"),
            "data.caption_columns could be `text`",
        ),
        (Columns("picture", references="other"), "references_column", "other", absent, "did you mean `others`?"),
    ):
        with pytest.raises(JobError) as caught:
            read(path, columns=columns)
        assert str(caught.value) == f"error: `data.{setting}` names `{name}`, {why} `{path}`\n{said}hint: {hint}"


def test_a_damaged_file_is_an_error_alone_and_a_fault_among_others(tmp_path):
    good = write(tmp_path / "a.parquet", image=[b"x"], text=["x"])
    (tmp_path / "b.parquet").write_bytes(good.read_bytes()[:-20])
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "b.parquet")
    listing = read(tmp_path)
    assert len(listing.samples) == 1
    assert [(fault.where, fault.kind) for fault in listing.faults] == [("b.parquet", "damaged-shard")]
    assert listing.num_rows == 2


def test_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError) as caught:
        read(tmp_path / "a.parquet")
    assert str(caught.value) == (
        "error: tables cannot be read\n  because the package `pyarrow` is missing\n\nhint: pip install 'sampan[hub]'"
    )


def test_columns_by_case_and_rows_without_captions(tmp_path):
    path = write(tmp_path / "a.parquet", Image=[b"one", b"two"], **{" Prompt": ["p", None]})
    assert shown(read(path, columns=Columns("IMAGE", ("prompt",)))) == [("a.parquet[0]", ("p",), b"one")]
    with pytest.raises(JobError, match=r"`data\.caption_columns` names `text`, which is not a column"):
        read(path)
    every = CaptionOptions(default="sitting", trigger="sks")
    both = [("a.parquet[0]", ("sks, sitting",), b"one"), ("a.parquet[1]", ("sks, sitting",), b"two")]
    assert shown(read(path, captions=every)) == both
    named = [("a.parquet[0]", ("sks, p",), b"one"), both[1]]
    assert shown(read(path, columns=Columns(captions=("prompt",)), captions=every)) == named


def test_files_that_windows_names(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/0.png").write_bytes(b"zero")
    path = write(tmp_path / "a.parquet", image=["images\\0.png", "..\\0.png"], text=["x", "y"])
    assert shown(read(path)) == [("a.parquet[0]", ("x",), b"zero")]
    assert faults(read(path)) == ["a.parquet[1]: outside: `..\\0.png` leads out of the folder"]


def test_with_a_pyarrow_that_cannot_be_imported(tmp_path, breaks):
    breaks("pyarrow", "pyarrow requires NumPy 2.0 or newer, found 1.26.4")
    with pytest.raises(DataError) as caught:
        read(tmp_path / "a.parquet")
    assert caught.value.what == "tables cannot be read"
    assert caught.value.because[0] == (
        "importing pyarrow failed: ImportError: pyarrow requires NumPy 2.0 or newer, found 1.26.4"
    )
    assert "numpy " in caught.value.because[1]
    assert "hub]' brings versions that go together" in (caught.value.hint or "")
