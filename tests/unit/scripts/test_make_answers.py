"""The page of answers is written by its script: five questions, three lines each, tables whose rows are as wide as heads."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sampan.catalog import load
from sampan.plan.measured_throughput import MeasuredThroughput
from sampan.plan.records import Interval

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs" / "answers.md").read_text(encoding="utf-8")


def _script():
    spec = importlib.util.spec_from_file_location("make_answers", ROOT / "scripts" / "make_answers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = _script()


def test_each_question_is_answered_in_three_lines_first():
    parts = TEXT.split("\n## ")[1:]
    assert len(parts) == 5
    for part in parts:
        head, blank, *lines = part.split("\n")
        assert head.endswith("?"), head
        assert blank == ""
        assert [line.startswith("> ") for line in lines[:4]] == [True, True, True, False], head


def test_the_page_says_who_wrote_it_and_of_which_fit():
    made = json.loads((ROOT / "src/sampan/catalog/efficiency.json").read_text(encoding="utf-8"))["made"]
    assert "<!-- written by scripts/make_answers.py: change the data or the script, then `make answers` -->" in TEXT
    assert f"({made})" in TEXT


def test_rows_are_as_wide_as_their_heads():
    widths = set()
    for line in TEXT.split("\n"):
        if line.startswith("|"):
            widths.add(line.count("|"))
            assert len(widths) == 1, line
        else:
            widths = set()


def test_a_table_keeps_bars_out_of_cells_and_says_where_it_is_empty():
    assert list(script._table([["a", "b"], ["1|2", "3"]])) == ["| a | b |", "| --- | --- |", "| 1/2 | 3 |", ""]
    assert list(script._table([["a", "b"]])) == ["Nothing is known.", ""]


def test_three_lines_are_three():
    assert list(script._three(["a", "b", "c"])) == ["> a  ", "> b  ", "> c  ", ""]
    with pytest.raises(AssertionError, match="each answer is three lines first"):
        list(script._three(["a"]))


def test_what_is_not_known_is_said():
    span = Interval(low=1000.0, typical=2000.0, high=3000.0)
    assert [script._money(None), script._thousand(None), script._typical(None)] == ["unknown"] * 3
    assert script._money(span) == "2,000 (1,000-3,000)"
    assert script._thousand(span) == "2.00"
    assert script._share([], "power") == "an unknown share"


def test_one_model_at_other_lengths_is_compared_by_its_flops():
    run = MeasuredThroughput(
        id="a", chip=load.chip("a100_80"), kind="llm-dense", model="m", method="full", framework="Megatron-LM",
        precision="bf16", num_chips=8, sample_s=1.0, flops=4e14, params=7e9, flops_per_s=4e14,
        metric="tokens_per_s_per_chip", pair="", source="s", url="https://x", is_sure=True,
    )  # fmt: skip
    slower = replace(run, chip=load.chip("ascend_910b3"), sample_s=4.0, flops=8e14, flops_per_s=1e14)
    (ratio,) = script.same_model([slower], [run])
    assert ratio.value == pytest.approx(4.0)
    assert script.same_model([replace(slower, params=7e10)], [run]) == []


@pytest.mark.slow
def test_the_page_is_what_the_data_say():
    command = [sys.executable, str(ROOT / "scripts" / "make_answers.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "docs/answers.md is current\n")
