import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from sampan.data.examine import Problem
from sampan.data.image_source import FileSource
from sampan.data.pictures import ImageFacts
from sampan.data.readers import Listing, RowFault, Sample
from sampan.data.report import KINDS, DataReport, usable
from sampan.errors import BadRowError, DataError

GOOD = ImageFacts(8, 8, "00")
TURNED = ImageFacts(8, 8, "01", ("cmyk", "rotated"))
BROKEN = Problem("truncated", "cut")
A, B, C = (FileSource(Path(name)) for name in ("a.png", "b.png", "c.png"))


def test_a_row_with_one_bad_picture_is_left_out_whole():
    listing = Listing(
        samples=(
            Sample("1", "m:1", A, ("one",)),
            Sample("2", "m:2", B, ("two",), (A,)),
            Sample("3", "m:3", A, ("three",), (C, B)),
            Sample("4", "m:4", C, ("four",)),
        ),
        faults=(RowFault("m:5", "no-caption", "no caption"),),
        num_rows=5,
    )
    samples, report = usable(listing, {A: GOOD, B: BROKEN, C: TURNED}, max_bad_share=0.6, what="the set")
    assert [(sample.key, sample.captions) for sample in samples] == [("1", ("one",)), ("4", ("four",))]
    assert report == DataReport(
        num_rows=5,
        num_samples=2,
        left_out=(
            RowFault("m:5", "no-caption", "no caption"),
            RowFault("m:2", "truncated", "`b.png`: cut"),
            RowFault("m:3", "truncated", "`b.png`: cut"),
        ),
        converted=(RowFault("m:4", "cmyk", "`c.png`"), RowFault("m:4", "rotated", "`c.png`")),
        num_captions=(2, 1, 1),
    )
    assert report.bad_share == 0.6
    assert report.counts == {"no-caption": 1, "truncated": 2, "cmyk": 1, "rotated": 1}


def test_lines_for_people():
    left_out = tuple(RowFault(f"metadata.jsonl:{number}", "empty", "it is empty") for number in range(5))
    report = DataReport(1000, 995, left_out, (RowFault("x" * 60, "cmyk", "`c.png`"),))
    assert report.lines() == [
        "1,000 rows: 995 can be used, 5 are left out (0.5%)",
        "",
        "kind   action       count  meaning, and the first of them",
        "empty  left out         5  the picture's file has no bytes",
        "                             metadata.jsonl:0, metadata.jsonl:1, metadata.jsonl:2 …",
        "cmyk   converted        1  inks; brought to sRGB",
        "                             …" + "x" * 47,
    ]
    assert DataReport(3, 3, (), ()).lines() == ["3 rows: 3 can be used, 0 are left out (0.0%)"]


def test_both_files_list_every_fault(tmp_path):
    left_out = tuple(RowFault(f"m:{number}", "empty", "it is \udcff") for number in range(50))
    DataReport(100, 50, left_out, (RowFault("m:77", "cmyk", "`c.png`"),)).write(tmp_path / "new")
    text = (tmp_path / "new/report.txt").read_text(encoding="utf-8")
    assert all(f"  m:{number}: empty: it is \\udcff\n" in text for number in range(50))
    assert text.endswith("Converted:\n  m:77: cmyk: `c.png`\n")
    found = json.loads((tmp_path / "new/report.json").read_text(encoding="utf-8"))
    assert found["kinds"]["empty"] == {"action": "left out", "count": 50, "meaning": KINDS["empty"][1]}
    assert len(found["left_out"]) == found["num_left_out"] == 50
    assert found["converted"] == [{"where": "m:77", "kind": "cmyk", "reason": "`c.png`"}]


def test_too_many_are_refused_and_the_report_is_there(tmp_path):
    listing = Listing(tuple(Sample(str(n), f"m:{n}", A if n else B, ("x",)) for n in range(4)), (), 4)
    with pytest.raises(DataError) as caught:
        usable(listing, {A: GOOD, B: BROKEN}, max_bad_share=0.2, what="`pictures`", folder=tmp_path)
    assert str(caught.value) == (
        "error: 1 of 4 rows (25.0%) of `pictures` cannot be used, and at most 20.0% may be\n"
        "  because 1 truncated (the first is m:0: `b.png`: cut)\n\n"
        f"hint: mend these rows or take them out; all are listed in `{tmp_path / 'report.txt'}`;"
        " or set data.max_bad_share higher"
    )
    assert (tmp_path / "report.txt").exists()
    assert len(usable(listing, {A: GOOD, B: BROKEN}, max_bad_share=0.25, what="`pictures`")[0]) == 3


def test_notes_are_said_and_count_as_no_bad_row(tmp_path):
    notes = tuple(RowFault(f"{n}.txt", "stray-text", "no picture beside it") for n in range(4))
    samples = (Sample("1", "m:1", A, ("one", "two", "three")), Sample("2", "m:2", C, ("x",), (A,)))

    def check(sample: Sample, facts: Sequence[ImageFacts]) -> list[RowFault]:
        assert facts == ([TURNED, GOOD] if sample.references else [GOOD])
        return [RowFault(sample.where, "enlarged", "`a.png`")] if sample.key == "1" else []

    listing = Listing(samples, (), 2, notes)
    kept, report = usable(listing, {A: GOOD, C: TURNED}, max_bad_share=0, what="x", folder=tmp_path, check=check)
    assert tuple(kept) == samples
    assert report.noted == (*notes, RowFault("m:1", "enlarged", "`a.png`"))
    assert (report.bad_share, report.num_captions) == (0.0, (4, 1, 3))
    assert report.lines()[:2] == ["2 rows: 2 can be used, 0 are left out (0.0%)", "captions: 4, 1 to 3 for a row"]
    assert "stray-text  noted            4  " in "\n".join(report.lines())
    text = (tmp_path / "report.txt").read_text(encoding="utf-8")
    assert "Noted:\n  0.txt: stray-text: no picture beside it\n" in text
    found = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert found["captions"] == {"total": 4, "fewest": 1, "most": 3}
    assert [note["where"] for note in found["noted"]] == ["0.txt", "1.txt", "2.txt", "3.txt", "m:1"]
    with pytest.raises(DataError, match=r"has no rows\n  because 0\.txt: a text that belongs to no picture"):
        usable(Listing((), (), 0, notes), {}, max_bad_share=1, what="x")


def test_a_sample_that_the_check_refuses_is_left_out():
    def check(sample: Sample, facts: Sequence[ImageFacts]) -> list[RowFault]:
        if sample.key == "1":
            raise BadRowError("control-token", "`[MASK]`")
        return []

    listing = Listing((Sample("1", "m:1", A, ("x",)), Sample("2", "m:2", A, ("y",))), (), 2)
    samples, report = usable(listing, {A: GOOD}, max_bad_share=0.5, what="x", check=check)
    assert [sample.key for sample in samples] == ["2"]
    assert report.left_out == (RowFault("m:1", "control-token", "`[MASK]`"),)


def test_none_left_is_refused_at_any_share():
    listing = Listing((Sample("1", "m:1", A, ("x",)),), (), 1)
    with pytest.raises(DataError, match=r"1 of 1 rows \(100\.0%\) of `pictures` cannot be used: none is left"):
        usable(listing, {A: BROKEN}, max_bad_share=1, what="`pictures`")
    with pytest.raises(DataError) as caught:
        usable(Listing((), (), 0), {}, max_bad_share=1, what="`pictures`")
    assert str(caught.value) == "error: `pictures` has no rows\n\nhint: check the path, the split and the limit"


def test_every_kind_is_one_of_three_actions_and_explained():
    assert {action for action, _ in KINDS.values()} == {"left out", "converted", "noted"}
    assert all(meaning for _, meaning in KINDS.values())


def test_the_documentation_names_every_kind():
    text = (Path(__file__).parents[3] / "docs/data.md").read_text(encoding="utf-8")
    for kind, (action, meaning) in KINDS.items():
        assert f"| `{kind}` | {action} | {meaning} |\n" in text
