import json

import pytest

from sampan.errors import DataError
from sampan.synthetic import picture_set

RECIPE = {"made_by": "a test", "sides": (1, 2)}


def make(directory, recipe=RECIPE, text="hello") -> None:
    summary: dict[str, int] = {}
    with picture_set.replace_folder(directory, recipe, summary) as beside:
        (beside / "sub").mkdir()
        (beside / "sub" / "a.txt").write_bytes(text.encode())
        summary["num_files"] = 1


def test_written_then_found_finished(tmp_path):
    directory = tmp_path / "deep" / "set"
    assert picture_set.find_summary(directory, RECIPE) is None
    make(directory)
    assert picture_set.find_summary(directory, RECIPE) == {"num_files": 1}
    assert picture_set.find_summary(directory, RECIPE | {"sides": (1, 3)}) is None
    assert sorted(file.name for file in directory.iterdir()) == [picture_set.RECORD, "sub"]
    assert [file.name for file in directory.parent.iterdir()] == ["set"]


def test_its_own_folder_is_replaced_whole(tmp_path):
    make(tmp_path / "set")
    (tmp_path / "set" / ".DS_Store").touch()
    other = {"made_by": "another"}
    assert picture_set.find_summary(tmp_path / "set", other) is None
    make(tmp_path / "set", other, "bye")
    assert (tmp_path / "set/sub/a.txt").read_text() == "bye"
    assert not (tmp_path / "set/.DS_Store").exists()
    assert [file.name for file in tmp_path.iterdir()] == ["set"]


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "set").mkdir()
    assert picture_set.find_summary(tmp_path / "set", RECIPE) is None
    make(tmp_path / "set")
    assert picture_set.find_summary(tmp_path / "set", RECIPE) == {"num_files": 1}


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path):
    make(tmp_path / "set")

    def stopped() -> None:
        with picture_set.replace_folder(tmp_path / "set", {}, {}) as beside:
            (beside / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert picture_set.find_summary(tmp_path / "set", RECIPE) == {"num_files": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["set"]


def test_another_folder_is_refused(tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(DataError) as caught:
        picture_set.find_summary(tmp_path, RECIPE)
    assert str(caught.value) == (
        f"error: `{tmp_path}` is not overwritten\n"
        "  because it has files in it, and no sampan-data.json that says they were made here\n\n"
        "hint: name another folder, or delete this one yourself"
    )
    with pytest.raises(DataError, match="it is a file"):
        picture_set.find_summary(tmp_path / "mine.txt", RECIPE)


@pytest.mark.parametrize("change", ["edit", "add", "remove", "rename"])
def test_a_folder_changed_since_is_refused(tmp_path, change):
    make(tmp_path)
    file = tmp_path / "sub/a.txt"
    if change == "edit":
        file.write_text("mine")
    elif change == "add":
        (tmp_path / "note.txt").touch()
    elif change == "remove":
        file.unlink()
    else:
        file.rename(tmp_path / "sub/b.txt")
    with pytest.raises(DataError) as caught:
        picture_set.find_summary(tmp_path, RECIPE)
    assert caught.value.because == ("files in it have been changed, added or removed since it was written",)


@pytest.mark.parametrize("record", ["{oops", "[]", "{}"])
def test_an_unreadable_record_is_refused(tmp_path, record):
    (tmp_path / picture_set.RECORD).write_text(record)
    with pytest.raises(DataError, match=r"its sampan-data\.json cannot be read: "):
        picture_set.find_summary(tmp_path, RECIPE)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        make(tmp_path / "file" / "set")


def test_the_record_is_plain_json(tmp_path):
    make(tmp_path / "set")
    record = json.loads((tmp_path / "set" / picture_set.RECORD).read_text(encoding="utf-8"))
    assert record["recipe"] == {"made_by": "a test", "sides": [1, 2]}
    assert len(record["sha256"]) == 64
