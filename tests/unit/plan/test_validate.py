"""Predictions beside what was measured: sums by hand, what a prediction may not look at, and what a bad file says."""

import csv
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.catalog.load import RUN_COLUMNS
from sampan.errors import PlanError
from sampan.plan.validate import ErrorSummary, RunPrediction, ratios, summary, validate

RUN = dict.fromkeys(RUN_COLUMNS, "") | {
    "id": "r1", "model": "Llama-2-7B", "family": "llm-dense", "params_b": "6.7", "layers": "32", "hidden": "4096",
    "ffn": "11008", "heads": "32", "vocab": "32000", "seq_len": "4096", "global_batch": "64", "micro_batch": "2",
    "precision": "bf16", "framework": "MindSpeed-LLM 1.0.0", "chip": "Ascend910B", "chips": "8", "tp": "2", "pp": "2",
    "recompute": "none", "metric": "tokens_per_s_per_chip", "value": "2500", "vendor": "ascend", "workload": "pretrain",
    "quality": "ok", "source_title": "a table",
}  # fmt: skip


@pytest.fixture
def runs(tmp_path):
    def write(*rows, columns=RUN_COLUMNS):
        path = tmp_path / "runs.csv"
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        return path

    return write


def one(predicted, measured=100.0, low=None, high=None, **row):
    low, high = (predicted if end is None else end for end in (low, high))
    return RunPrediction(id="x", predicted=predicted, low=low, high=high, measured=measured, row=RUN | row)


def test_errors_are_shares_of_what_was_measured():
    found = summary([one(90), one(120), one(100), one(150, low=90, high=160)])
    assert found == ErrorSummary(
        count=4, median_abs_rel_err=pytest.approx(0.15), mean_abs_rel_err=pytest.approx(0.2),
        p90_abs_rel_err=pytest.approx(0.41), bias=pytest.approx(0.1), coverage_80=0.5,
    )  # fmt: skip
    assert str(found) == "4 runs, median 15.0%, mean 20.0%, p90 41.0%, bias +10.0%, 80 % intervals hold 50%"
    assert summary([]) == ErrorSummary(count=0)
    assert str(summary([])) == "0 runs"


def test_ratios_are_of_ascend_runs_over_the_others_of_their_pair():
    pair = {"pair_id": "p"}
    some = [
        one(110, vendor="ascend", **pair), one(100, vendor="nvidia", **pair), one(100, vendor="nvidia", metric="mfu", **pair),
        one(100, vendor="nvidia"),
    ]  # fmt: skip
    assert ratios(some).count == 1
    assert ratios(some).median_abs_rel_err == pytest.approx(0.1)


def test_a_report_has_what_its_form_says(runs):
    path = runs(RUN, RUN | {"id": "r2", "quality": "weak"}, RUN | {"id": "r3", "chips": ""})
    document = validate(path).as_dict()
    assert json.loads(json.dumps(document)) == document
    assert list(document) == [
        "overall", "rule_of_thumb", "by_vendor", "by_family", "by_framework", "by_source", "ratios", "rows", "skipped",
    ]  # fmt: skip
    assert list(document["overall"]) == [
        "count", "median_abs_rel_err", "mean_abs_rel_err", "p90_abs_rel_err", "bias", "coverage_80",
    ]  # fmt: skip
    assert document["overall"]["count"] == 1, "doubtful runs are predicted and not judged"
    assert [(row["id"], row["measured"], row["is_judged"]) for row in document["rows"]] == [
        ("r1", 2500.0, True), ("r2", 2500.0, False),
    ]  # fmt: skip
    assert all(row["low"] < row["predicted"] < row["high"] for row in document["rows"])
    assert document["skipped"] == [{"id": "r3", "reason": "it does not say how many chips ran"}]
    assert list(document["by_source"]) == ["a table"]
    lines = validate(path).lines()
    assert lines[-2:] == ["left out: 1 runs", "  1 x it does not say how many chips ran (r3)"]
    assert "predicted, and not judged: 1 runs whose `quality` is not ok" in lines


def test_the_one_line_rule_is_full_recomputation_at_45_percent(runs):
    report = validate(runs(RUN))
    rule = report.rule[0].predicted
    flops = 4 / 3 * 6 * 6.74e9  # a token; attention is a few percent more
    assert rule == pytest.approx(0.45 * 313e12 / flops, rel=0.15)


FREE = st.sampled_from(["value", "id", "source_title", "source_url", "source_locator", "confidence", "pair_id"])


@given(cell=FREE, said=st.integers(1, 10**6))
def test_a_prediction_never_depends_on_value_id_or_source(tmp_path_factory, cell, said):
    path = tmp_path_factory.mktemp("runs") / "runs.csv"
    text = "\n".join(
        ",".join(row[name] for name in RUN_COLUMNS)
        for row in (dict(zip(RUN_COLUMNS, RUN_COLUMNS, strict=True)), RUN, RUN | {cell: str(said)})
    )
    path.write_text(text, encoding="utf-8")
    first, second = validate(path).judged
    assert (first.predicted, first.low, first.high) == (second.predicted, second.low, second.high)


def test_runs_of_the_fit_are_told_from_others(runs):
    from sampan.catalog import load

    known = next(
        row for row in load.runs() if row["quality"] == "ok" and row["layers"] and row["seq_len"] and row["chips"]
    )
    report = validate(runs(RUN, known))
    assert report.num_fitted == 1
    assert report.about_the_fit()[0] == (
        "1 of these runs are among those that the efficiencies were fitted to: others go less well;"
    )
    assert validate(runs(RUN)).about_the_fit() == []


def complaint(path):
    with pytest.raises(PlanError) as caught:
        validate(path)
    error = caught.value
    return f"{error.what}: {'; '.join(error.because)}", error.hint


def test_a_missing_column_is_named(runs):
    path = runs(RUN, columns=[name for name in RUN_COLUMNS if name != "layers"])
    assert complaint(path) == (
        f"`{path}` cannot be used as a file of runs: it has no column `layers`",
        "the columns are those of src/sampan/catalog/runs/measured.csv",
    )
    path = runs(RUN, columns=["layer", *(name for name in RUN_COLUMNS if name != "layers")])
    assert complaint(path)[1] == "did you mean `layer`?"


@pytest.mark.parametrize(
    ("cell", "junk"),
    [
        ("chips", "eight"),
        ("chips", "-8"),
        ("chips", "0"),
        ("seq_len", "nan"),
        ("value", ""),
        ("value", "inf"),
        ("hidden", "4k"),
        ("tp", "0.5"),
    ],
)
def test_a_junk_cell_is_named_by_line_and_column(runs, cell, junk):
    kind = "number" if cell in ("seq_len", "value") else "whole number"
    path = runs(RUN, RUN | {cell: junk})
    assert complaint(path) == (
        f"`{path}` cannot be used as a file of runs: line 3, column `{cell}`: {junk!r} is not a {kind} above 0",
        "leave a cell empty where a run does not say",
    )


def test_a_line_with_too_many_cells_is_named(runs):
    path = runs(RUN)
    path.write_text(path.read_text(encoding="utf-8").rstrip() + ",more\n", encoding="utf-8")
    assert complaint(path)[0] == (
        f"`{path}` cannot be used as a file of runs: line 2 has not as many cells as there are columns"
    )


def test_a_file_that_is_no_text_or_not_there_is_an_error(tmp_path):
    (tmp_path / "runs.csv").write_bytes(b"\xff\xfe\x00id")
    assert complaint(tmp_path / "runs.csv")[0].startswith(
        f"`{tmp_path / 'runs.csv'}` cannot be read as a file of runs: "
    )
    assert complaint(tmp_path / "none.csv")[0] == (
        f"`{tmp_path / 'none.csv'}` cannot be read as a file of runs: No such file or directory"
    )


def test_an_empty_table_is_a_report_of_nothing(runs):
    report = validate(runs())
    assert report.as_dict()["overall"] == {
        "count": 0, "median_abs_rel_err": None, "mean_abs_rel_err": None, "p90_abs_rel_err": None, "bias": None,
        "coverage_80": None,
    }  # fmt: skip
    assert report.lines()[0] == "predictions    0 runs"


def test_intervals_of_a_report_are_in_the_metric_of_the_run(runs):
    rows = [
        RUN | {"metric": metric, "value": "3", "tokens_total": "1e12"} for metric in ("step_s", "samples_per_s", "days")
    ]
    for judged in validate(runs(*rows)).judged:
        assert judged.low < judged.predicted < judged.high
        assert math.log(judged.high / judged.predicted) == pytest.approx(math.log(judged.predicted / judged.low))
