"""Measured throughput beside measured throughput: pairs, the same work, and earlier chips."""

from dataclasses import replace

import pytest

from sampan.catalog import load
from sampan.plan import measured_throughput
from sampan.plan.measured_throughput import MeasuredThroughput

A100, ASCEND, H100 = load.chip("a100_80"), load.chip("ascend_910b3"), load.chip("h100_sxm")
RUN = MeasuredThroughput(
    id="a", chip=A100, kind="llm-dense", model="m", method="full", framework="Megatron-LM", precision="bf16", num_chips=8,
    sample_s=2.0, flops=4e14, params=7e9, flops_per_s=2e14, metric="tokens_per_s_per_chip", pair="", source="s", url="https://x",
    is_sure=True,
)  # fmt: skip


@pytest.fixture
def measured(monkeypatch):
    def give(*runs):
        monkeypatch.setattr(measured_throughput, "measured", lambda: runs)

    return give


def on(chip, sample_s, **more):
    return replace(RUN, chip=chip, sample_s=sample_s, flops_per_s=RUN.flops / sample_s, **more)


def test_a_pair_is_what_a_source_sets_side_by_side_in_one_metric():
    ones = [on(ASCEND, 3.0, id="1", pair="p"), on(ASCEND, 3.0, id="2")]
    others = [on(A100, 2.0, id="3", pair="p"), on(A100, 2.0, id="4", pair="p", metric="mfu"), on(A100, 9.0, id="5")]
    (ratio,) = measured_throughput.pairs(ones, others)
    assert (ratio.value, ratio.is_pair, ratio.first[0].id, ratio.second[0].id) == (1.5, True, "1", "3")


def test_the_same_work_is_the_same_flops_and_parameters_whatever_its_name():
    ones = [on(ASCEND, 3.0, model="llama2_7b"), on(ASCEND, 4.0, model="LLaMA-2 7B", flops=RUN.flops * 1.002)]
    others = [on(A100, 2.0), on(A100, 2.0, flops=8e14), on(A100, 1.0, method="lora"), on(A100, 1.0, is_sure=False)]
    (ratio,) = measured_throughput.match_work(ones, others)
    assert ratio.value == pytest.approx((3.0 * 4.0) ** 0.5 / 2.0)
    assert not ratio.is_pair


def test_bins_of_a_chip_are_alike_and_cut_down_ones_are_not():
    assert measured_throughput.alike(load.chip("ascend_910b1"), load.chip("ascend_910b3"))
    assert measured_throughput.alike(A100, load.chip("a800"))
    assert not measured_throughput.alike(H100, load.chip("h20"))
    assert not measured_throughput.alike(H100, load.chip("h200")), "another memory"
    assert not measured_throughput.alike(H100, A100)


def test_a_framework_is_its_family_and_an_engines_name_all_that_run_on_it():
    runs = [replace(RUN, framework=name) for name in ("Megatron-LM", "NeMo 24.07", "MindFormers r1.3.0", "torchtitan")]
    assert [measured_throughput.under(run, "torch") for run in runs] == [True, True, False, True]
    assert [measured_throughput.under(run, "mindspore") for run in runs] == [False, False, True, False]
    assert [measured_throughput.under(run, "torchtitan") for run in runs] == [False, False, False, True]
    assert all(measured_throughput.under(run, None) for run in runs)


def test_an_earlier_chip_reached_the_same_and_the_earliest_is_told(measured):
    def runs(chip, flops_per_s):
        return [on(chip, RUN.flops / flops_per_s, id=f"{chip.name}{i}") for i in range(3)]

    measured(*runs(ASCEND, 1.6e14), *runs(A100, 1.6e14), *runs(H100, 4e14), *runs(load.chip("v100"), 0.5e14))
    found = measured_throughput.earlier(load.chip("ascend_910b2"), "llm-dense")
    assert found is not None
    assert (found.chip.name, found.num_runs) == ("a100_80", 3)
    assert found.years == pytest.approx(2023.5 - (2020 + 10 / 12), abs=0.05)
    assert measured_throughput.earlier(load.chip("v100"), "llm-dense") is None
    assert measured_throughput.earlier(ASCEND, "unet") is None


def test_two_runs_are_not_what_is_usual(measured):
    measured(on(A100, 2.0, id="1"), on(A100, 2.0, id="2"), on(A100, 2.0, id="3", precision="fp8"))
    assert measured_throughput.usual(A100, "llm-dense") is None


@pytest.mark.parametrize(
    ("launched", "year"),
    [
        ("2022-09", 2022 + 8 / 12),
        ("2023", 2023.5),
        ("2026-Q4", 2026.75),
        ("2026-H2", 2026.5),
        (None, None),
        ("soon", None),
    ],
)
def test_a_launch_is_a_year(launched, year):
    assert measured_throughput.launch_year(replace(A100, launched=launched)) == (
        None if year is None else pytest.approx(year)
    )


def test_runs_of_the_catalogue_are_read_as_what_a_chip_does(monkeypatch):
    row = next(
        row
        for row in load.runs()
        if row["quality"] == "ok" and row["metric"] == "tokens_per_s_per_chip" and row["seq_len"]
    )
    monkeypatch.setattr(load, "runs", lambda: (row, row | {"quality": "weak"}))
    (found,) = measured_throughput._each(r for r in load.runs() if r["quality"] == "ok")
    assert found.sample_s == pytest.approx(float(row["seq_len"]) / float(row["value"]))


def test_a_quantile_lies_between_values():
    assert measured_throughput.quantile([1.0, 2.0, 4.0], 0.5) == 2.0
    assert measured_throughput.quantile([1.0, 2.0], 0.25) == 1.25
    assert measured_throughput.quantile([3.0], 0.9) == 3.0
