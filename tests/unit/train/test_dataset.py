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


def test_few_pictures_start_no_workers():
    assert num_workers(DataSection(path=Path("x")), 10) == 0
    assert num_workers(DataSection(path=Path("x")), 100_000) >= 1
    assert num_workers(DataSection(path=Path("x"), workers=3), 10) == 3
