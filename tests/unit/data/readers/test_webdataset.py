import gzip
import io
import json
import tarfile
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import pytest

from sampan.data.image_source import SliceSource
from sampan.data.readers import CaptionOptions, Columns, Listing
from sampan.data.readers.webdataset import read
from sampan.errors import DataError, JobError

Member = tuple[str, bytes | str] | tarfile.TarInfo


def write(path: Path, members: Iterable[Member], kind: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            name, data = member[0], member[1].encode() if isinstance(member[1], str) else member[1]
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def shown(listing: Listing) -> list[tuple]:
    """Key, captions, bytes of the picture and of the references."""
    return [
        (sample.key, sample.captions, sample.image.read(), *(reference.read() for reference in sample.references))
        for sample in listing.samples
    ]


def faults(listing: Listing) -> list[str]:
    return [f"{fault.where}: {fault.kind}: {fault.reason}" for fault in listing.faults]


def notes(listing: Listing) -> list[str]:
    return [f"{note.where}: {note.kind}: {note.reason}" for note in listing.notes]


def test_members_of_one_name_are_a_sample(tmp_path):
    path = write(
        tmp_path / "a.tar",
        [
            ("0001.png", b"one"),
            ("0001.txt", "first\n\n second \n"),
            ("0001.cls", "7"),
            ("0002.target.JPG", b"two"),
            ("0002.ref10.png", b"ten"),
            ("0002.ref2.webp", b"re-two"),
            ("0002.json", json.dumps({"caption": "edit", "text": ["edit", "change"], "texts": {"pt": "mudar"}})),
            ("0002.depth.png", b"a map"),
            ("sub/0001.png", b"inner"),
            ("sub/0001.reference.png", b"ref"),
            ("sub/0001.txt", "\ufeffthree"),
        ],
    )
    listing = read(path)
    assert shown(listing) == [
        ("a.tar/0001", ("first", "second"), b"one"),
        ("a.tar/0002", ("edit", "change", "mudar"), b"two", b"re-two", b"ten"),
        ("a.tar/sub/0001", ("three",), b"inner", b"ref"),
    ]
    assert listing.faults == ()
    assert listing.num_rows == 3
    image = listing.samples[0].image
    assert isinstance(image, SliceSource)
    assert image.name == f"{path.as_posix()}/0001.png"


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_all_kinds_of_tars_with_long_names(tmp_path, kind):
    name = "/".join(["folder" * 8] * 3) + "/é"
    path = write(tmp_path / "a.tar", [(f"./{name}.png", b"one"), (f"./{name}.txt", "said")], kind)
    assert shown(read(path)) == [(f"a.tar/{name}", ("said",), b"one")]


def test_bad_samples_are_named_and_shift_nothing(tmp_path):
    link = tarfile.TarInfo("link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    hard = tarfile.TarInfo("hard.txt")
    hard.type, hard.linkname = tarfile.LNKTYPE, "good.txt"
    folder = tarfile.TarInfo("folder.png")
    folder.type = tarfile.DIRTYPE
    path = write(
        tmp_path / "a.tar",
        [
            ("mute.png", b"x"),
            ("blank.png", b"x"),
            ("blank.txt", " \n"),
            ("lone.txt", "no picture"),
            link,
            ("link.txt", "leads out"),
            ("hard.png", b"x"),
            hard,
            folder,
            ("two.png", b"x"),
            ("two.jpg", b"x"),
            ("two.txt", "which"),
            ("twice.png", b"x"),
            ("twice.txt", "a"),
            ("twice.txt", "b"),
            ("refs.png", b"x"),
            ("refs.ref.png", b"x"),
            ("refs.ref0.png", b"x"),
            ("refs.txt", "x"),
            ("oops.png", b"x"),
            ("oops.json", "{oops"),
            ("list.png", b"x"),
            ("list.json", "[]"),
            ("latin.png", b"x"),
            ("latin.txt", b"\xff"),
            ("long.png", b"x"),
            ("long.txt", b"x" * 1_000_001),
            ("p.2.png", b"x"),
            ("p.2.txt", "x"),
            ("._good.png", b"what a Mac leaves"),
            ("README", "no kind"),
            ("/abs/good.png", b"good"),
            ("/abs/good.txt", "good"),
            ("../good.png", b"up"),
            ("../good.txt", "up"),
        ],
    )
    listing = read(path)
    assert shown(listing) == [("a.tar/abs/good", ("good",), b"good"), ("a.tar/../good", ("up",), b"up")]
    found = faults(listing)
    assert found[-5].startswith("a.tar/oops: bad-row: its `.json` is not JSON: ")
    del found[-5]
    assert found == [
        "a.tar/mute: no-caption: no caption",
        "a.tar/blank: no-caption: no caption",
        "a.tar/link: bad-row: `link.png` is a link or a device",
        "a.tar/hard: bad-row: `hard.txt` is a link or a device",
        "a.tar/two: bad-row: it has 2 pictures, `two.png` and `two.jpg`, and which one holds is not known",
        "a.tar/twice: bad-row: `twice.txt` is there twice",
        "a.tar/refs: bad-row: it has two reference pictures of number 0",
        "a.tar/list: bad-row: its `.json` is not an object",
        "a.tar/latin: bad-row: `latin.txt` is not UTF-8",
        "a.tar/long: bad-row: `long.txt` has 1,000,001 bytes, and at most 1,000,000 are read",
        "a.tar/p: no-file: no picture among its members: `p.2.png` is another kind, which its name's first dot begins",
    ]
    assert notes(listing) == ["a.tar/lone: stray-text: no picture among its members"]
    assert listing.num_rows == 14


SAMPLES = [
    (f"{number}.{kind}", bytes([48 + number]) * 700) for number in range(3) for kind in ("txt", "png", "ref0.png")
]


@pytest.mark.parametrize(
    ("size", "num_samples", "reason"),
    [
        # each member has a header of 512 bytes and 1024 bytes of padded data; a sample 4608, an end mark follows
        (3 * 4608 - 1024, 2, "it ends inside `2.ref0.png`"),
        (3 * 4608 - 1536, 2, "it ends at byte 12,288 without an end mark, so that it may be cut short"),
        (2 * 4608 - 700, 1, "it ends inside `1.ref0.png`"),
        (4608 + 100, 0, "it ends at byte 4,708 without an end mark, so that it may be cut short"),
        (100, 0, "it is not a tar: truncated header"),
        (0, 0, "it is not a tar: empty file"),
    ],
)  # fmt: skip
def test_a_tar_that_is_cut_short_gives_what_is_whole(tmp_path, size, num_samples, reason):
    path = write(tmp_path / "a.tar", SAMPLES)
    path.write_bytes(path.read_bytes()[:size])
    listing = read(path)
    assert [len(sample.references) for sample in listing.samples] == [1] * num_samples
    lost = f"; `{num_samples}` may not be whole and is left out" if size > 512 else ""
    assert faults(listing) == [f"a.tar: damaged-shard: {reason}{lost}"]
    assert listing.num_rows == num_samples + 1


def test_a_tar_that_is_damaged_inside_gives_what_stands_before(tmp_path):
    path = write(tmp_path / "a.tar", SAMPLES)
    data = bytearray(path.read_bytes())
    data[4608 : 4608 + 200] = b"\xff" * 200
    path.write_bytes(data)
    listing = read(path)
    reason = "it is damaged at byte 4,608: what stands there is no header; `0` may not be whole and is left out"
    assert faults(listing) == [f"a.tar: damaged-shard: {reason}"]
    assert not listing.samples
    path.write_bytes(b"hello world" * 100)
    assert faults(read(path)) == ["a.tar: damaged-shard: it is not a tar: invalid header"]


def test_a_cut_anywhere_never_raises_and_never_loses_a_reference(tmp_path):
    path = write(tmp_path / "a.tar", SAMPLES)
    data = path.read_bytes()
    for size in range(0, len(data), 256):
        path.write_bytes(data[:size])
        listing = read(path)
        assert all(len(sample.references) == 1 for sample in listing.samples)
        assert listing.faults or len(listing.samples) == 3


def test_several_tars_and_patterns(tmp_path):
    for name in ("train-000", "train-001", "val-000", "deep/train-002"):
        write(tmp_path / f"{name}.tar", [("0001.png", name.encode()), ("0001.txt", name)])
    (tmp_path / "notes.md").write_text("x")

    def keys(path: Path, **options) -> list[str]:
        return [sample.key for sample in read(path, **options).samples]

    train = ["train-000.tar/0001", "train-001.tar/0001"]
    assert keys(tmp_path) == ["deep/train-002.tar/0001", *train, "val-000.tar/0001"]
    assert keys(tmp_path / "train-{000..001}.tar") == train
    assert keys(tmp_path / "{train,val}-000.tar") == ["train-000.tar/0001", "val-000.tar/0001"]
    assert keys(tmp_path / "train-*.tar") == train
    assert keys(tmp_path / "**/train-*.tar") == ["deep/train-002.tar/0001", *train]
    assert keys(tmp_path, split="train") == ["deep/train-002.tar/0001", *train]
    assert keys(tmp_path, split="deep") == ["deep/train-002.tar/0001"]
    assert keys(tmp_path, limit=2) == ["deep/train-002.tar/0001", train[0]]
    for path, options, because in (
        (tmp_path / "train-{000..003}.tar", {}, f"there is no file `{tmp_path / 'train-002.tar'}`"),
        (tmp_path / "test-*.tar", {}, f"there is no file `{tmp_path / 'test-*.tar'}`"),
        (tmp_path / "none.tar", {}, "there is no such file or folder"),
        (tmp_path / "train-000.tar", {"split": "train"}, "only a folder has splits"),
    ):
        with pytest.raises(DataError) as caught:
            read(path, **options)
        assert caught.value.because == (because,)
    with pytest.raises(DataError) as caught:
        read(tmp_path, split="trian")
    assert str(caught.value) == (
        f"error: tars `{tmp_path}` have no split `trian`\n"
        "  because no `.tar` file is in a folder `trian` or has a name that begins with `trian-`\n\n"
        "hint: did you mean `train`?"
    )


def test_compressed_tars_are_refused(tmp_path):
    tar = write(tmp_path / "a.tar", SAMPLES)
    packed = tmp_path / "b.tar.gz"
    packed.write_bytes(gzip.compress(tar.read_bytes()))
    with pytest.raises(DataError) as caught:
        read(packed)
    assert str(caught.value) == (
        f"error: tar `{packed}` cannot be read\n"
        "  because it is compressed with gzip, so that no picture in it can be reached alone\n\n"
        f"hint: decompress it first: gunzip {packed}"
    )
    with pytest.raises(DataError, match="is compressed"):
        read(tmp_path)
    with pytest.raises(DataError, match="is compressed with gzip"):
        read(packed.rename(tmp_path / "c.tar"))


def test_chosen_captions(tmp_path):
    fields = {"text": "usual", "long": "a long one", "tags": ["x", "y"], "number": 3}
    path = write(tmp_path / "a.tar", [("1.png", b"x"), ("1.json", json.dumps(fields)), ("1.txt", "beside")])

    def said(*names: str) -> tuple[str, ...]:
        return read(path, columns=Columns(captions=names)).samples[0].captions

    assert read(path).samples[0].captions == ("beside", "usual")
    assert said("text") == ("usual",)
    assert said("TEXT", "long", "txt") == ("a long one", "beside")
    assert said("long", "tags") == ("a long one", "x", "y")
    assert said("txt") == ("beside",)
    assert faults(read(path, columns=Columns(captions=("number",)))) == ["a.tar/1: bad-row: a caption is not a text: 3"]


@pytest.mark.parametrize("kind", ["caption.txt", "text.txt", "captions.txt", "caption", "CAPTION.TXT"])
def test_captions_in_members_of_other_names(tmp_path, kind):
    path = write(tmp_path / "a.tar", [("00.jpg", b"x"), ("00.cls", "3"), (f"00.{kind}", "a lamp")])
    assert shown(read(path)) == [("a.tar/00", ("a lamp",), b"x")]
    # the usual places hold where they have something, as they always did
    path = write(tmp_path / "b.tar", [("00.jpg", b"x"), (f"00.{kind}", "a lamp"), ("00.txt", "a light")])
    assert shown(read(path)) == [("b.tar/00", ("a light",), b"x")]


def test_other_texts_are_captions_when_they_are_named(tmp_path):
    fields = json.dumps({"url": "u", "prompt": "a lamp"})
    path = write(tmp_path / "a.tar", [("00.jpg", b"x"), ("00.ocr.txt", "OPEN"), ("00.json", fields)])
    reason = "no caption; `.ocr.txt` is none unless data.caption_columns names it"
    assert faults(read(path)) == [f"a.tar/00: no-caption: {reason}"]
    for names, captions in {
        ("ocr",): ("OPEN",),
        ("ocr.txt",): ("OPEN",),
        ("prompt", "ocr"): ("a lamp", "OPEN"),
    }.items():
        assert read(path, columns=Columns(captions=names)).samples[0].captions == captions
    with pytest.raises(JobError) as caught:
        read(path, columns=Columns(captions=("promt",)))
    assert str(caught.value) == (
        f"error: `data.caption_columns` names `promt`, and no sample of `{path}` has it\n"
        "  because its samples have `ocr.txt`, `url`, `prompt`\n\n"
        "hint: did you mean `prompt`?"
    )
    assert read(path, captions=CaptionOptions(default="any")).samples[0].captions == ("any",)


def test_lines_of_a_member_are_captions_or_one_is(tmp_path):
    path = write(tmp_path / "a.tar", [("1.png", b"x"), ("1.txt", "one\r\n\r\ntwo\r\n")])
    assert read(path).samples[0].captions == ("one", "two")
    assert [note.partition(": 2 ")[0] for note in notes(read(path))] == ["a.tar/1: paragraphs"]
    whole = read(path, captions=CaptionOptions(lines="one", trigger="sks"))
    assert (whole.samples[0].captions, whole.notes) == (("sks, one\n\ntwo",), ())


def test_hidden_members_are_no_samples(tmp_path):
    members = [
        (f"{folder}/1.{kind}", "x") for folder in (".ipynb_checkpoints", "__MACOSX/deep") for kind in ("png", "txt")
    ]
    path = write(tmp_path / "a.tar", [("1.png", b"x"), ("1.txt", "one"), *members, ("__MACOSX/._1.png", b"x")])
    listing = read(path)
    assert [sample.key for sample in listing.samples] == ["a.tar/1"]
    assert notes(listing) == [
        "a.tar/.ipynb_checkpoints: hidden: 1 pictures in it are not read",
        "a.tar/__MACOSX: hidden: 2 pictures in it are not read",
    ]
    assert listing.num_rows == 1


def test_members_whose_accents_are_composed_in_another_way_are_one_sample(tmp_path):
    decomposed, composed = (unicodedata.normalize(form, "maçã") for form in ("NFD", "NFC"))
    path = write(tmp_path / "a.tar", [(f"{decomposed}.png", b"x"), (f"{composed}.txt", "apple")])
    assert shown(read(path)) == [(f"a.tar/{decomposed}", ("apple",), b"x")]


def test_a_picture_of_a_format_that_is_not_read_is_a_row(tmp_path):
    path = write(
        tmp_path / "a.tar", [("1.heic", b"x"), ("1.txt", "one"), ("2.jxl", b"x"), ("2.png", b"x"), ("2.txt", "two")]
    )
    assert faults(read(path)) == ["a.tar/1: no-file: no picture among its members: `1.heic` is HEIF, which is not read"]
    assert shown(read(path)) == [("a.tar/2", ("two",), b"x")]


def test_hidden_tars_and_splits_that_are_read_together_are_noted(tmp_path):
    for name in ("train-000", "test-000", ".ipynb_checkpoints/train-000-checkpoint"):
        write(tmp_path / f"{name}.tar", [("1.png", b"x"), ("1.txt", name)])
    (tmp_path / ".trash").mkdir()
    (tmp_path / ".trash/old.tar.gz").write_bytes(b"x")
    listing = read(tmp_path)
    assert [sample.key for sample in listing.samples] == ["test-000.tar/1", "train-000.tar/1"]
    assert notes(listing) == [
        ".ipynb_checkpoints: hidden: 1 `.tar` files in it are not read",
        f'{tmp_path.name}: splits: `train` and `test` are read together; data.split = "train" reads one',
    ]
    assert [note.kind for note in read(tmp_path, split="train").notes] == ["hidden"]
    assert len(read(tmp_path / "**/*.tar").samples) == 2
    assert len(read(tmp_path / ".ipynb_checkpoints/*.tar").samples) == 1
