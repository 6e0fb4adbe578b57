"""Results are only added to."""

from __future__ import annotations

import json
from pathlib import Path

from sampan.report import results


def test_a_second_result_of_a_day_has_a_number_and_the_first_stays(tmp_path: Path):
    folder = tmp_path / "results"
    paths = [results.add("bench_cpu", {"date": "2026-11-23", "number": number}, folder) for number in range(3)]
    assert [path.name for path in paths] == [
        "bench_cpu_20261123.json", "bench_cpu_20261123_2.json", "bench_cpu_20261123_3.json",
    ]  # fmt: skip
    assert [json.loads(path.read_text(encoding="utf-8"))["number"] for path in paths] == [0, 1, 2]


def test_a_named_file_is_written_where_it_was_said(tmp_path: Path):
    path = tmp_path / "new" / "x.json"
    for number in range(2):
        assert results.put(path, {"number": number}) == path
    assert json.loads(path.read_text(encoding="utf-8")) == {"number": 1}


def test_what_is_said_of_the_machine_is_plain():
    assert json.loads(json.dumps(results.machine())).keys() == {
        "system", "cpu", "cores", "usable_cores", "python", "sampan",
    }  # fmt: skip
