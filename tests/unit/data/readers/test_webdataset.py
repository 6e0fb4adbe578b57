import gzip
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from sampan.data.image_source import SliceSource
from sampan.data.readers import Columns, Listing
from sampan.data.readers.webdataset import read
from sampan.errors import DataError

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
        "a.tar/lone: no-file: no picture among its members",
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
    assert listing.num_rows == 15


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

    assert said("text") == ("beside", "usual")
    assert said("long", "tags") == ("a long one", "x", "y")
    assert said("txt") == ("beside",)
    assert faults(read(path, columns=Columns(captions=("number",)))) == ["a.tar/1: bad-row: a caption is not a text: 3"]
