import io
import json
import pickle
import sys
import tarfile
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet as pq

from sampan.data.image_source import FileSource
from sampan.data.readers import Columns, Listing, hub
from sampan.data.readers.hub import _named_file, _place, read
from sampan.data.table_images import TableImage
from sampan.errors import BadRowError, DataError, JobError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """A cache of this test's own; nothing is asked of a network."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), (number, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(path: Path, numbers: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    features = datasets.Features(
        {"image": datasets.Image(), "before": datasets.List(datasets.Image()), "text": datasets.Value("string")}
    )
    rows = {
        "image": [{"bytes": png(number), "path": f"{number}.png"} for number in numbers],
        "before": [[{"bytes": png(100 + number), "path": None}] * (number % 2) for number in numbers],
        "text": [f"picture {number}" for number in numbers],
    }
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(path))


def shown(listing: Listing) -> list[tuple]:
    return [
        (sample.key, sample.captions, sample.image.read(), *(reference.read() for reference in sample.references))
        for sample in listing.samples
    ]


def test_parquet_files_of_a_folder(tmp_path, monkeypatch):
    folder = tmp_path / "birds"
    write_parquet(folder / "data/train-00000-of-00002.parquet", [0, 1])
    write_parquet(folder / "data/train-00001-of-00002.parquet", [2])
    write_parquet(folder / "data/test-00000-of-00001.parquet", [3])
    listing = read(folder, split="train", columns=Columns(references="before"))
    assert shown(listing) == [
        ("birds/train[0]", ("picture 0",), png(0)),
        ("birds/train[1]", ("picture 1",), png(1), png(101)),
        ("birds/train[2]", ("picture 2",), png(2)),
    ]
    assert all(isinstance(sample.image, TableImage) for sample in listing.samples)
    monkeypatch.setattr(hub, "_ROWS_AT_ONCE", 1)
    assert read(folder, split="train", columns=Columns(references="before")) == listing
    assert pickle.loads(pickle.dumps(listing)) == listing  # noqa: S301 - sources travel to worker processes
    assert listing.samples[0].image.name.endswith("/image/0.png")
    assert len({sample.image.fingerprint() for sample in listing.samples}) == 3
    assert [sample.key for sample in read(folder, split="train", limit=2).samples] == [
        "birds/train[0]",
        "birds/train[1]",
    ]
    with pytest.raises(DataError) as caught:
        read(folder)
    assert str(caught.value) == (
        f"error: picture folder `{folder}` has several splits\n"
        "  because they are `train`, `test`\n\n"
        'hint: choose one: data.split = "train"'
    )
    with pytest.raises(DataError) as caught:
        read(folder, split="tset")
    assert str(caught.value) == f"error: picture folder `{folder}` has no split `tset`\n\nhint: did you mean `test`?"
    with pytest.raises(JobError) as caught:
        read(folder, split="test", columns=Columns(image="picture"))
    assert str(caught.value) == (
        f"error: `data.image_column` names `picture`, which is not a column of picture folder `{folder}`\n"
        "  because its columns are `image` (a picture), `before` (pictures), `text` (text)\n\n"
        "hint: data.image_column could be `image`, `text`"
    )


def test_configurations(tmp_path):
    folder = tmp_path / "birds"
    write_parquet(folder / "small/a.parquet", [1])
    write_parquet(folder / "large/a.parquet", [2])
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: small\n  data_files: small/*.parquet\n"
        "- config_name: large\n  data_files: large/*.parquet\n---\n"
    )
    assert shown(read(f"{folder}:large")) == [("birds/train[0]", ("picture 2",), png(2))]
    with pytest.raises(DataError) as caught:
        read(folder)
    assert str(caught.value) == (
        f"error: picture folder `{folder}` has several configurations\n"
        "  because they are `small`, `large`\n\n"
        f'hint: name one: data.path = "{folder}:small"'
    )
    with pytest.raises(DataError) as caught:
        read(f"{folder}:larg")
    assert str(caught.value) == (
        f"error: picture folder `{folder}` has no configuration `larg`\n\nhint: did you mean `large`?"
    )


def test_an_image_folder_with_metadata(tmp_path):
    folder = tmp_path / "birds/train"
    folder.mkdir(parents=True)
    for number in range(2):
        (folder / f"{number}.png").write_bytes(png(number))
    rows = [json.dumps({"file_name": f"{number}.png", "text": f"picture {number}"}) for number in range(2)]
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    listing = read(tmp_path / "birds")
    assert [sample.image for sample in listing.samples] == [FileSource(folder / "0.png"), FileSource(folder / "1.png")]
    assert [sample.captions for sample in listing.samples] == [("picture 0",), ("picture 1",)]


def test_tars(tmp_path):
    (tmp_path / "birds").mkdir()
    with tarfile.open(tmp_path / "birds/train-000.tar", "w") as tar:
        for number in range(3):
            for kind, data in (("png", png(number)), ("txt", b"picture %d" % number)):
                member = tarfile.TarInfo(f"{number}.{kind}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    listing = read(tmp_path / "birds", columns=Columns("png", ("txt",)))
    assert shown(listing) == [(f"birds/train[{n}]", (f"picture {n}",), png(n)) for n in range(3)]


def test_a_row_names_no_file_outside_the_set(tmp_path):
    (tmp_path / "secret.png").write_bytes(png(9))
    folder = tmp_path / "birds"
    folder.mkdir()
    (folder / "in.png").write_bytes(png(1))
    cells = [
        {"bytes": None, "path": path}
        for path in (str(tmp_path / "secret.png"), "../secret.png", "in.png", "hf://datasets/a/b/c.png", None)
    ]
    table = pa.table(
        {"image": pa.array(cells, pa.struct({"bytes": pa.binary(), "path": pa.string()})), "text": ["x"] * 5}
    )
    pq.write_table(table, folder / "a.parquet")
    listing = read(folder)
    assert [sample.image for sample in listing.samples] == [FileSource(folder / "in.png")]
    assert [(fault.where, fault.kind) for fault in listing.faults] == [
        ("birds/train[0]", "outside"),
        ("birds/train[1]", "outside"),
        ("birds/train[3]", "no-file"),
        ("birds/train[4]", "no-file"),
    ]


def test_what_a_path_means(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner/name").mkdir(parents=True)
    (tmp_path / "file.parquet").touch()
    assert _place("owner/name").is_folder
    assert _place("owner/name:small").config == "small"
    other = _place("owner/other@refs/pr/1:small")
    assert (other.name, other.revision, other.config, other.is_folder) == ("owner/other", "refs/pr/1", "small", False)
    assert _place("owner\\other").name == "owner/other"
    with pytest.raises(DataError, match="it is a file, and a set in a Hub layout is a folder"):
        _place("file.parquet")
    for text in ("birds", "./a/b", "/a/b", "a/b/c", "~/a"):
        with pytest.raises(DataError) as caught:
            _place(text)
        assert str(caught.value) == (
            f"error: `{text}` cannot be read\n"
            "  because there is no such folder, and it is not a name on the Hub\n\n"
            "hint: a name on the Hub is `owner/name`, `owner/name@revision` or `owner/name:config`"
        )


def test_offline(tmp_path):
    with pytest.raises(DataError) as caught:
        read("nobody/nothing@v1")
    assert str(caught.value) == (
        "error: `nobody/nothing@v1` on the Hub cannot be read\n"
        "  because there is no folder `nobody/nothing` here\n"
        "  because Couldn't reach 'nobody/nothing' on the Hub (OfflineModeIsEnabled)\n\n"
        "hint: check the connection and that HF_HUB_OFFLINE is not set, or fetch the set on a machine that has one"
    )


def test_no_code_of_a_set_runs(tmp_path):
    folder = tmp_path / "birds"
    folder.mkdir()
    (folder / "birds.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(DataError, match="cannot be read"):
        read(folder)
    assert not (tmp_path / "ran").exists()
    write_parquet(folder / "data/train-0.parquet", [1])
    with pytest.raises(DataError, match="scripts"):
        read(folder)
    assert not (tmp_path / "ran").exists()


def test_a_broken_file_and_an_empty_folder(tmp_path):
    (tmp_path / "birds").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "birds")
    (tmp_path / "birds/a.parquet").write_bytes(b"PAR1 broken PAR1")
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "birds")


def test_the_library_is_silent_and_as_it_was(tmp_path, capfd):
    write_parquet(tmp_path / "birds/a.parquet", [1])
    capfd.readouterr()
    datasets.enable_progress_bars()
    before = datasets.utils.logging.get_verbosity()
    read(tmp_path / "birds")
    assert capfd.readouterr() == ("", "")
    assert not datasets.are_progress_bars_disabled()
    assert datasets.utils.logging.get_verbosity() == before


def test_without_the_extra_or_with_an_old_one(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "__version__", "3.6.0")
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert str(caught.value) == (
        "error: sets in a Hub layout cannot be read\n"
        "  because `datasets` 3.6.0 can run code that comes with a set\n\n"
        "hint: pip install 'datasets>=4'"
    )
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert str(caught.value) == (
        "error: sets in a Hub layout cannot be read\n"
        "  because the package `datasets` is missing\n\n"
        "hint: pip install 'sampan[hub]'"
    )


def test_with_a_library_that_cannot_be_imported(tmp_path, breaks):
    breaks("datasets", "pyarrow requires NumPy 2.0 or newer, found 1.26.4")
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert caught.value.what == "sets in a Hub layout cannot be read"
    assert caught.value.because[0] == (
        "importing datasets failed: ImportError: pyarrow requires NumPy 2.0 or newer, found 1.26.4"
    )
    assert caught.value.because[1].startswith("here are pyarrow ")
    assert "hub]' brings versions that go together" in (caught.value.hint or "")


def test_a_set_from_the_hub_has_its_pictures_in_it(tmp_path):
    (tmp_path / "fetched.png").write_bytes(png(1))
    named = partial(_named_file, [tmp_path], False)
    assert named(str(tmp_path / "fetched.png")) == FileSource(tmp_path / "fetched.png")
    with pytest.raises(BadRowError, match=r"`fetched\.png` is only the name of a picture"):
        named("fetched.png")
    with pytest.raises(BadRowError, match="is outside the set"):
        named(str(tmp_path.parent / "other.png"))
