"""CVTG-2K's files are read as they are published, and what is none of them is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sampan.errors import DataError
from sampan.evaluate import cvtg


def write(folder: Path, subset: str, area: int, prompts: list[str]) -> None:
    (folder / subset).mkdir(parents=True, exist_ok=True)
    rows = [{"index": index, "prompt": prompt, "carrier_list": []} for index, prompt in enumerate(prompts)]
    (folder / subset / f"{area}.json").write_text(json.dumps({"data_list": rows}), encoding="utf-8")


def test_words_are_what_stands_in_quotes():
    assert cvtg.quoted("It's a shop's door with 'Open Daily' over 'Baker's Row'.") == ("Open Daily", "Baker's Row")
    assert cvtg.quoted('a sign "EXIT" and “Way Out”') == ("EXIT", "Way Out")
    assert cvtg.quoted("nothing to read, isn't it") == ()


def test_files_take_turns(tmp_path: Path):
    write(tmp_path, "CVTG", 2, [f"a sign 'two {n}'" for n in range(5)])
    write(tmp_path, "CVTG", 3, [f"a sign 'three {n}'" for n in range(2)])
    write(tmp_path, "CVTG-Style", 2, ["in red 'style'"])
    suite = cvtg.questions(tmp_path, 5, 0)
    assert [case.words for case in suite.cases] == [("two 0",), ("style",), ("three 0",), ("two 1",), ("three 1",)]
    assert suite.cases[1].groups == (("subset", "CVTG-Style"), ("texts", "2"))
    assert len({case.seed for case in suite.cases}) == 5
    assert "8 questions in the folder" in suite.notes and any("CVTG/5.json" in note for note in suite.notes)
    assert all(case.truth is None for case in suite.cases)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[]", "TypeError"),
        ("{", "line 1, column 2 is not JSON"),
        ('{"data_list": [{"prompt": "x"}]}', "KeyError"),
    ],
)
def test_another_format_is_refused(tmp_path: Path, content: str, says: str):
    (tmp_path / "CVTG").mkdir()
    (tmp_path / "CVTG/2.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=says):
        cvtg.questions(tmp_path, 4, 0)


def test_a_folder_without_questions_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="no questions of CVTG-2K"):
        cvtg.questions(tmp_path, 4, 0)
    with pytest.raises(DataError, match="no folder"):
        cvtg.questions(tmp_path / "none", 4, 0)
