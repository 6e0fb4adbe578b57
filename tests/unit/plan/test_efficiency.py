"""Effects and intervals come from the file alone; what was never measured has none of the first and more of the second."""

import math

import pytest

from sampan.catalog import load
from sampan.plan import efficiency
from sampan.plan.efficiency import Efficiency, ErrorSpread
from sampan.plan.time import PART_NAMES, Rates, StepTime, speeds
from sampan.plan.workloads.language import LanguageShape, language_model
from sampan.plan.workloads.named import workload_of

MODEL = language_model("model", LanguageShape(layers=2, hidden=64, ffn=160, heads=4, kv_heads=4, vocab=512), 64)


def levels(chip="h100_sxm", framework="NeMo 24.07", precision="bf16", workload=MODEL, method="full"):
    found = load.chip(chip)
    speed = speeds(found, precision)
    assert not isinstance(speed, str)
    return efficiency.levels(workload, found, speed, framework, precision, method, "a model")


def made(effects=None, counts=None, products=None):
    spreads = {name: ErrorSpread(half=0.1 * (1 + i), num=3) for i, name in enumerate(efficiency.classes())}
    return Efficiency(
        rates=Rates(), effects=effects or {}, counts=counts or {}, spreads=spreads, products=products or {}, num_runs=3,
        made="2026-01-01",
    )  # fmt: skip


def test_a_run_is_made_of_its_chip_its_software_its_numbers_and_its_model():
    assert levels() == {
        "maker": "NVIDIA", "silicon": "NVIDIA 4 nm 814 mm2", "chip": "h100_sxm", "engine": "torch",
        "engine on maker": "torch on NVIDIA", "family": "megatron", "family on silicon": "megatron on NVIDIA 4 nm 814 mm2",
        "product": "nemo", "product on silicon": "nemo on NVIDIA 4 nm 814 mm2", "release": "nemo 24.07", "precision": "half",
        "precision on silicon": "half on NVIDIA 4 nm 814 mm2", "method": "full", "kind": "llm-dense",
        "kind on maker": "llm-dense on NVIDIA", "kind in product": "llm-dense in nemo", "model": "a model, full",
        "geometry": "given",
    }  # fmt: skip


def test_releases_of_one_product_share_its_name():
    assert levels(framework="NeMo 26.02")["product"] == levels(framework="NeMo 24.07")["product"]
    assert levels(framework="NeMo 26.02")["release"] != levels(framework="NeMo 24.07")["release"]


def test_fewer_bits_are_told_apart_where_the_chip_has_units_for_them():
    assert [levels(precision=p)["precision"] for p in ("bf16", "fp8", "mxfp8")] == ["half", "fp8", "fp8"]
    assert levels(chip="b200", precision="nvfp4")["precision"] == "fp4"
    assert levels(chip="a100_80", precision="fp8")["precision"] == "half"


def test_sizes_that_were_taken_from_a_default_are_assumed():
    assert levels(workload=workload_of("SDXL"))["geometry"] == "assumed"
    assert levels(workload=workload_of("SDXL", resolution_px=1024))["geometry"] == "given"


def test_an_effect_is_of_all_of_a_step_or_of_a_part_of_it():
    shares = dict.fromkeys(efficiency.PARTS, 0.0) | {"matmul_s": 0.6, "other_s": 0.4}
    fitted = made({"maker": {"NVIDIA": {"all": 0.1, "matmul_s": 0.5}}, "product": {"nemo": {"all": -0.02}}})
    assert fitted.offset(levels(), shares) == pytest.approx(0.1 + 0.6 * 0.5 - 0.02)
    assert made().offset(levels(), shares) == 0


def test_shares_of_a_step_add_up_to_it():
    time = StepTime(*(float(i + 1) for i in range(len(PART_NAMES))))
    found = efficiency.shares(time)
    assert tuple(found) == efficiency.PARTS
    assert sum(found.values()) == pytest.approx(1)
    assert found["matmul_s"] == pytest.approx(1 / sum(range(1, len(PART_NAMES) + 1)))


def test_the_class_is_what_of_the_software_and_of_the_chip_was_measured():
    of = levels()

    def known(**counts):
        return efficiency.spread_class(of, {level.replace("_", " "): {name: 5} for level, name in counts.items()})

    assert known() == "dense; of the software nothing is known; of the chip nothing is known"
    assert known(maker="NVIDIA", family="megatron") == (
        "dense; of the software family is known; of the chip maker is known"
    )
    assert known(maker="NVIDIA", silicon=of["silicon"], family="megatron", product="nemo", release="nemo 24.07") == (
        "dense; of the software release is known; of the chip silicon is known"
    )
    assumed = {**of, "geometry": "assumed"}
    assert efficiency.spread_class(assumed, {}) == "sizes assumed; the model is new"
    assert efficiency.spread_class(assumed, {"model": {of["model"]: 1}}) == "sizes assumed; the model is known"


def test_every_class_is_one_that_the_file_holds():
    names = set(efficiency.classes())
    assert len(names) == 2 + 3 * 4 * 3
    assert set(efficiency.load().spreads) == names


def test_a_product_that_is_steadier_than_its_class_has_a_narrower_interval():
    wide, narrow = made().half_width(levels()), made(products={"nemo": 0.5}).half_width(levels())
    assert narrow == wide / 2


def test_less_is_never_surer_in_the_file():
    spreads = efficiency.load().spreads
    for group in efficiency.GROUPS:
        table = [
            [spreads[efficiency.spread_name(group, software, chip)].half for chip in efficiency.CHIP]
            for software in efficiency.SOFTWARE
        ]
        assert all(row == sorted(row) for row in table)
        assert all(list(column) == sorted(column) for column in zip(*table, strict=True))


def test_the_nearest_runs_are_counted():
    of = levels()
    assert made().count(of) == (0, "no run on chips of this maker")
    assert made(counts={"maker": {"NVIDIA": 7}}).count(of) == (7, "runs on NVIDIA chips, of other silicon")
    nearer = made(counts={"maker": {"NVIDIA": 7}, "product on silicon": {of["product on silicon"]: 2}})
    assert nearer.count(of) == (2, "runs of nemo on this silicon")


def test_an_interval_is_as_far_up_as_down_by_factors():
    low, high = efficiency.interval(10.0, math.log(2))
    assert (low, high) == (pytest.approx(5), pytest.approx(20))


def test_the_file_says_how_it_was_made_and_holds_its_cross_validation():
    known = efficiency.load()
    assert known.num_runs > 1000
    assert known.left_out.startswith(f"{known.num_runs} runs, median ")
    assert known.ratio is not None
    assert 0 < known.ratio.half < 1
