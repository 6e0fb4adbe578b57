"""1,000 pictures of which 100 are broken in ten ways: each is counted for what it is, and no caption shifts."""

from pathlib import Path

import pytest

from sampan.data import pictures, readers
from sampan.data.examine import examine
from sampan.data.report import usable
from unit.data.broken_set import CONVERTED, LEFT_OUT, number_said, number_shown, write_folder, write_tar


@pytest.mark.parametrize("reader", ["image_folder", "webdataset"])
def test_each_is_counted_and_no_caption_shifts(tmp_path: Path, reader: str):
    path = tmp_path / ("set.tar" if reader == "webdataset" else "set")
    (write_tar if reader == "webdataset" else write_folder)(path)
    listing = readers.get(reader)(path)
    sources = [sample.image for sample in listing.samples]
    facts = dict(zip(sources, examine(sources, record=tmp_path / "record.jsonl", workers=0), strict=True))
    samples, report = usable(listing, facts, max_bad_share=0.05, what="the set", folder=tmp_path / "report")
    assert report.num_rows == 1000
    assert report.num_samples == len(samples) == 950
    assert report.counts == dict.fromkeys((*LEFT_OUT.values(), *CONVERTED.values()), 10)
    assert report.bad_share == 0.05
    shown = [number_shown(pictures.load_rgb(sample.image.read())) for sample in samples]
    assert shown == [number_said(sample.captions[0]) for sample in samples]
    assert len(set(shown)) == 950
    text = (tmp_path / "report/report.txt").read_text(encoding="utf-8")
    for kind in LEFT_OUT.values():
        assert text.count(f": {kind}: ") == 10
