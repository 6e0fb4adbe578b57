"""JSON and text files of a checkpoint are read whole, or refused with their name and the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from sampan.checkpoint.json_files import read_json, read_text
from sampan.errors import CheckpointError


def test_an_object_is_read(tmp_path: Path):
    (tmp_path / "a.json").write_text('{"word": "maçã"}', "utf-8")
    assert read_json(tmp_path / "a.json") == {"word": "maçã"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{,}", "line 1, column 2 is not JSON: Expecting property name enclosed in double quotes"),
        (b'{"a": 1,\n "b": }', "line 2, column 7 is not JSON: Expecting value"),
        (b"", "line 1, column 1 is not JSON: Expecting value"),
        (b"[1]", "it holds a list, not an object of keys"),
        (
            b'{"a": "\xff"}',
            "it is not UTF-8 text: 'utf-8' codec can't decode byte 0xff in position 7: invalid start byte",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n",
            (
                "it is a Git LFS pointer, not the file itself\n"
                "\nhint: fetch the real file: `git lfs pull` in that folder, or download the folder again"
            ),
        ),
    ],
)
def test_what_cannot_be_read_is_named(content: bytes, says: str, tmp_path: Path):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_json(tmp_path / "a.json")
    assert caught.value.render() == f"error: `{tmp_path / 'a.json'}` cannot be read\n  because {says}"


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError) as caught:
        read_text(tmp_path / "a.json")
    assert caught.value.render() == f"error: `{tmp_path / 'a.json'}` is missing"


def test_a_folder_in_its_place_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_text(tmp_path)
