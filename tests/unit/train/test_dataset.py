"""A job's set, opened: sizes by aspect ratio, a validation side that shares no picture, a digest that notices changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from sampan.errors import DataError, JobError
from sampan.job.sections import DataSection
from sampan.models import presets
from sampan.train.dataset import TrainingSet, num_workers, open_dataset

CONFIG = presets.get("nano")


def write(folder: Path, count: int = 40) -> Path:
    """Write pictures of three shapes, and an edit of every fourth one."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        size = ((128, 128), (256, 128), (128, 256))[number % 3]
        Image.new("RGB", size, (number * 6 % 256, 80, 120)).save(folder / f"{number}.png")
        rows.append({"file_name": f"{number}.png", "text": f"picture {number}"})
        if number % 4 == 1:
            rows.append({"file_name": f"{number}.png", "text": "redo it", "references": [f"{number - 1}.png"]})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def opened(folder: Path, cache: Path, **settings: object) -> TrainingSet:
    values = {"path": folder, "workers": 0, **settings}
    return open_dataset(DataSection(**values), CONFIG, cache, Console(quiet=True))  # type: ignore[arg-type]


def test_pictures_go_to_the_bucket_of_their_shape(tmp_path: Path):
    data = opened(write(tmp_path / "set"), tmp_path / "cache", max_aspect_ratio=2.0)
    sizes = [data.pictures.size_of(p) for p in data.image_of]
    assert sizes[0] == (128, 128)
    wide, tall = sizes[1], sizes[3]  # sample 2 is an edit of the first two
    assert wide[1] > 1.7 * wide[0] and tall[0] > 1.7 * tall[1]
    square = opened(tmp_path / "set", tmp_path / "cache", max_aspect_ratio=1.0)
    assert {square.pictures.size_of(p) for p in range(len(square.pictures))} == {(128, 128)}


def test_no_picture_is_on_both_sides(tmp_path: Path):
    data = opened(write(tmp_path / "set"), tmp_path / "cache", validation_share=0.2)
    assert 0 < len(data.validation) < len(data.samples) / 2 and data.training

    def used(numbers: tuple[int, ...]) -> set[int]:
        return {p for i in numbers for p in (data.image_of[i], *data.references_of[i])}

    assert not used(data.training) & used(data.validation)
    assert not opened(tmp_path / "set", tmp_path / "cache").validation


def test_captions_are_read_as_the_model_reads_prompts(tmp_path: Path):
    folder = write(tmp_path / "set", 4)
    text = (folder / "metadata.jsonl").read_text(encoding="utf-8")
    straight = opened(folder, tmp_path / "cache")
    text = text.replace("picture 3", "picture « 3 », “x” and it\u2019s \u2018y\u2019")
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")
    read = opened(folder, tmp_path / "cache")
    assert 'picture "3", "x" and it’s "y"' in [caption for sample in read.samples for caption in sample.captions]
    assert read.samples[0] == straight.samples[0]
    settings = DataSection(path=folder, workers=0)
    written = open_dataset(settings, presets.get("glm-image"), tmp_path / "cache", Console(quiet=True))
    assert "picture « 3 », “x” and it’s ‘y’" in [caption for sample in written.samples for caption in sample.captions]


def test_the_digest_follows_captions_and_pixels(tmp_path: Path):
    folder = write(tmp_path / "set")
    before = opened(folder, tmp_path / "cache").digest
    assert opened(folder, tmp_path / "other-cache").digest == before
    Image.new("RGB", (128, 128), "red").save(folder / "0.png")
    after = opened(folder, tmp_path / "cache").digest
    assert after != before
    text = (folder / "metadata.jsonl").read_text(encoding="utf-8").replace("picture 3", "picture three")
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")
    assert opened(folder, tmp_path / "cache").digest not in (before, after)


def test_too_many_bad_rows_stop_it_and_leave_the_report(tmp_path: Path):
    folder = write(tmp_path / "set")
    for number in range(6):
        (folder / f"{number}.png").write_bytes(b"")
    with pytest.raises(DataError, match="empty"):
        opened(folder, tmp_path / "cache")
    report = json.loads((tmp_path / "cache" / "report.json").read_text(encoding="utf-8"))
    assert report["kinds"]["empty"]["count"] >= 6
    assert opened(folder, tmp_path / "cache", max_bad_share=0.5).samples


def test_a_resolution_that_the_model_cannot_have_is_refused(tmp_path: Path):
    with pytest.raises(JobError) as caught:
        opened(write(tmp_path / "set", 4), tmp_path / "cache", resolutions_px=(100,))
    assert caught.value.render() == (
        "error: `data.resolutions_px` has 100\n"
        "  because sides of this model's pictures are multiples of 16 px\n\n"
        "hint: 96 is the nearest"
    )


def beside(folder: Path, captions: dict[str, str], size: tuple[int, int] = (128, 128)) -> Path:
    """Write pictures of one size with caption files; an empty caption writes none."""
    for number, (name, caption) in enumerate(captions.items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (number * 9, 80, 120)).save(folder / f"{name}.png")
        if caption:
            (folder / f"{name}.txt").write_text(caption, encoding="utf-8")
    return folder


def said(data: TrainingSet) -> dict[str, tuple[str, ...]]:
    return {sample.key: sample.captions for sample in data.samples}


def noted(data: TrainingSet) -> list[str]:
    return [f"{note.where}: {note.kind}: {note.reason}" for note in data.report.noted]


def test_captions_that_cannot_be_used_are_rows_left_out(tmp_path: Path):
    folder = beside(tmp_path / "set", {str(number): f"lamp {number}" for number in range(8)})
    (folder / "1.txt").write_text("a diagram of BERT with a [MASK] token", encoding="utf-8")
    (folder / "3.txt").write_text('a poster with "' + "word " * 600 + '"', encoding="utf-8")
    data = opened(folder, tmp_path / "cache", max_bad_share=0.25)
    assert list(said(data)) == [f"{number}.png" for number in (0, 2, 4, 5, 6, 7)]
    assert [(fault.where, fault.kind) for fault in data.report.left_out] == [
        ("1.png", "control-token"),
        ("3.png", "long-quotation"),
    ]
    with pytest.raises(DataError, match=r"2 of 8 rows \(25\.0%\)") as caught:
        opened(folder, tmp_path / "cache")
    assert "1.png: `[MASK]` in `a diagram of BERT with a [MASK] token`" in str(caught.value)


def test_what_is_said_in_the_job_is_trained_on_and_changes_the_digest(tmp_path: Path):
    folder = beside(tmp_path / "set", {"a": "sitting\n\non a mat", "b": ""})
    settings: list[dict[str, object]] = [
        {"caption": "a dog"},
        {"trigger": "sks dog"},
        {"caption": " a dog ", "trigger": "sks dog"},
        {"caption": "a dog", "caption_lines": "one"},
    ]
    sets = [opened(folder, tmp_path / "cache", **values) for values in settings]
    assert [said(data) for data in sets] == [
        {"a.png": ("sitting", "on a mat"), "b.png": ("a dog",)},
        {"a.png": ("sks dog, sitting", "sks dog, on a mat"), "b.png": ("sks dog",)},
        {"a.png": ("sks dog, sitting", "sks dog, on a mat"), "b.png": ("sks dog, a dog",)},
        {"a.png": ("sitting\n\non a mat",), "b.png": ("a dog",)},
    ]
    assert len({data.digest for data in sets}) == len(sets)


@pytest.mark.parametrize(
    ("name", "value", "because"),
    [
        ("trigger", "  ", "it is blank"),
        ("caption", "a [MASK]", "`[MASK]` in `a [MASK]` is a control token of the model's tokenizer"),
        ("trigger", "<|user|>", "`<|user|>` in `<|user|>` is a control token of the model's tokenizer"),
    ],
)
def test_a_caption_of_the_job_that_cannot_be_used_is_refused(tmp_path: Path, name: str, value: str, because: str):
    with pytest.raises(JobError) as caught:
        opened(write(tmp_path / "set", 4), tmp_path / "cache", **{name: value})
    assert (caught.value.what, caught.value.because) == (f"`data.{name}` cannot be used", (because,))


def test_repeats_by_the_names_of_folders(tmp_path: Path):
    names = ("3_dog/a", "1_cat/b", "birds/c", "2_x/7_y/d")
    folder = beside(tmp_path / "set", {name: name for name in names})
    plain, repeated = (opened(folder, tmp_path / "cache", folder_repeats=value) for value in (False, True))
    assert list(said(plain)) == ["1_cat/b.png", "2_x/7_y/d.png", "3_dog/a.png", "birds/c.png"]
    assert plain.training == (0, 1, 2, 3)
    assert repeated.training == (0, 1, 2, 3, 1, 2, 2)
    assert plain.digest != repeated.digest
    assert noted(plain) == [
        "1_cat: repeats: 1 repeats; data.folder_repeats = true takes them",
        "2_x: repeats: 2 repeats; data.folder_repeats = true takes them",
        "3_dog: repeats: 3 repeats; data.folder_repeats = true takes them",
    ]
    assert noted(repeated) == []
    flat = beside(tmp_path / "flat", {"a": "one", "b": "two"})
    same = {opened(flat, tmp_path / "cache", folder_repeats=value).digest for value in (False, True)}
    assert len(same) == 1


@pytest.mark.parametrize("number", ["0", "99999999999"])
def test_repeats_that_make_no_sense_are_refused(tmp_path: Path, number: str):
    folder = beside(tmp_path / "set", {f"{number}_dog/a": "one"})
    with pytest.raises(JobError) as caught:
        opened(folder, tmp_path / "cache", folder_repeats=True)
    assert caught.value.because == (f"its name asks for {int(number):,} repeats, and 1 to 10,000 can be had",)


def test_pictures_that_change_much_on_the_way_are_named(tmp_path: Path):
    folder = beside(tmp_path / "set", {"a": "fits", "b": "fits too"}, (140, 130))
    beside(folder, {"small": "x"}, (60, 63))
    beside(folder, {"just": "x"}, (64, 64))
    beside(folder, {"wide": "x"}, (1200, 200))
    data = opened(folder, tmp_path / "cache", max_aspect_ratio=1.0)
    (small, wide) = (f"`{(folder / name).as_posix()}`" for name in ("small.png", "wide.png"))
    assert noted(data) == [
        f"small.png: enlarged: {small}: 60x63 px are brought to 128x128, 2.1 times as large",
        f"wide.png: cropped: {wide}: 1200x200 px are brought to 128x128, 17% of it is kept",
    ]
    assert data.report.counts == {"enlarged": 1, "cropped": 1}


def test_few_pictures_start_no_workers():
    assert num_workers(DataSection(path=Path("x")), 10) == 0
    assert num_workers(DataSection(path=Path("x")), 100_000) >= 1
    assert num_workers(DataSection(path=Path("x"), workers=3), 10) == 3
