"""Ways to do a job: the fastest layout by trying all, what follows from counts, and why there is none."""

import math
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan import job
from sampan.catalog import frameworks, load
from sampan.catalog.records import Memory
from sampan.plan.cost import Assumptions
from sampan.plan.jobs import of_job
from sampan.plan.planner import Candidate, Infeasible, Planner
from sampan.plan.predict import predict
from sampan.plan.search import layouts
from sampan.plan.time import speeds

JOB = 'out = "runs/x"\ndata.path = "pictures"\n'
CHIPS = ("h100_sxm", "ascend_910b2", "a100_40", "mi300x", "l40s")
PAIRS = (*((chip, framework) for chip in CHIPS for framework in ("torch", "fsdp")), ("ascend_910b2", "mindspore"))


@cache
def planner(framework="torch"):
    settings = ["stage.ar.grad_accum_steps=4", "stage.decoder.grad_accum_steps=4", f"place.framework={framework}"]
    return Planner(of_job(job.parse(JOB, settings), ("ar", "decoder")), Assumptions())


def candidate(chip, count, framework="torch"):
    found = planner().candidate(load.chip(chip), count, framework)
    assert isinstance(found, Candidate), found
    return found


@pytest.mark.parametrize(("chip", "count", "framework"), [("h100_sxm", 4, "torch"), ("ascend_910b2", 8, "mindspore")])
def test_the_fastest_layout_by_trying_every_one(chip, count, framework):
    chip = load.chip(chip)
    found = planner().candidate(chip, count, framework)
    assert isinstance(found, Candidate)
    stage, one = planner().work.stages[0], found.stages[0]
    search, needs = planner()._search(stage, framework, None)
    speed = speeds(chip, "bf16")
    assert not isinstance(speed, str)
    room = (chip.memory.bytes or 0) * 0.94
    times = [
        predict(stage.workload, layout, chip, framework=framework).step_s
        for layout in layouts(
            stage.workload, count, stage.global_batch or 0, scale_up_domain=speed.domain, limits=search.limits
        )
        if needs.total(layout) <= room
    ]
    assert len(times) > 50
    assert one.prediction.step_s == pytest.approx(min(times), rel=1e-9)
    assert one.memory.total == pytest.approx(needs.total(one.layout))


@settings(max_examples=30)
@given(st.sampled_from(PAIRS), st.sampled_from([1, 2, 4, 8]))
def test_every_way_is_consistent(pair, count):
    chip, framework = pair
    found = candidate(chip, count, framework)
    family = frameworks.family(framework)
    assert found.time_s.low < found.time_s.typical < found.time_s.high
    assert found.chip_hours.typical == pytest.approx(found.time_s.typical * count / 3600)
    assert found.time_s.typical == pytest.approx(sum(one.num_steps * one.prediction.step_s for one in found.stages))
    for stage, one in zip(planner().work.stages, found.stages, strict=True):
        assert sum(one.prediction.parts.values()) == pytest.approx(one.prediction.step_s)
        assert one.layout.num_chips == count
        assert one.layout.global_batch == stage.global_batch
        assert one.memory.total <= (found.chip.memory.bytes or 0) * 0.94
        assert one.layout.zero_stage in family.zero_stages
        assert all(getattr(one.layout, axis) == 1 for axis in ("tp", "pp", "cp", "ep") if axis not in family.axes)


@settings(max_examples=30)
@given(st.sampled_from(CHIPS), st.sampled_from([1, 2, 4, 8, 16]), st.sampled_from([2, 4]))
def test_more_chips_are_never_more_than_ideal(chip, count, times):
    few, many = candidate(chip, count), candidate(chip, count * times)
    # a smaller share of a chip's work is no more efficient, but for memory that no longer has to be saved
    assert many.time_s.typical > few.time_s.typical / times * 0.999


def test_what_is_timed_in_the_search_is_what_is_predicted():
    stage, chip = planner().work.stages[0], load.chip("ascend_910b2")
    speed = speeds(chip, "bf16")
    assert not isinstance(speed, str)
    time_of = planner()._timer(stage, chip, speed, "mindspore")
    for layout in list(layouts(stage.workload, 8, 64))[::29]:
        said = planner()._predict(stage, layout, chip, speed, "mindspore").step_s
        assert time_of(layout) == pytest.approx(said, rel=1e-9)


def test_more_memory_is_never_slower():
    chip = load.chip("h100_sxm")
    times = []
    for room in (2e9, 4e9, 16e9, 80e9):
        found = planner().candidate(replace(chip, memory=Memory(bytes=room, bytes_per_s=3e12)), 2, "torch")
        times.append(found.time_s.typical if isinstance(found, Candidate) else math.inf)
    assert times == sorted(times, reverse=True)
    assert times[-1] < math.inf


def test_unknown_facts_are_named_and_the_rest_is_planned():
    chip = load.chip("h100_sxm")
    blind = replace(chip, name="blind", memory=Memory(bytes=80e9))
    small = replace(chip, name="small", memory=Memory(bytes_per_s=1e12))
    dull = replace(chip, name="dull", peak_dense_flops_per_s={}, memory=Memory(bytes=80e9))
    found = list(planner().candidates([blind, small, dull, chip], [1], ["torch"]))
    assert [one.reason if isinstance(one, Infeasible) else one.label for one in found] == [
        "its time cannot be computed: nobody has published its memory bandwidth",
        "whether it fits cannot be computed: nobody has published its memory",
        "its time cannot be computed: nobody has published its peak in bf16 and its memory bandwidth",
        "h100_sxm",
    ]


def test_counts_that_no_layout_has():
    found = planner().candidate(load.chip("h100_sxm"), 7, "torch")
    assert found == Infeasible(
        chip="h100_sxm", count=7, framework="torch",
        reason="ar: a global batch of 64 cannot be divided evenly over 7 chips, whatever the layout",
    )  # fmt: skip


def test_software_stays_on_the_chips_it_is_written_for():
    found = planner().candidate(load.chip("h100_sxm"), 1, "mindspore")
    assert isinstance(found, Infeasible)
    assert found.reason == "it is written for chips of Huawei"


def test_preparation_runs_as_many_at_once_as_fit():
    chip = load.chip("h100_sxm")
    work = of_job(job.parse(JOB, ["data.limit=100"]), ("preparation",))
    found = Planner(work, Assumptions()).candidate(chip, 2, "torch")
    assert isinstance(found, Candidate)
    assert found.stages[0].num_steps == math.ceil(100 / 32)
    tiny = Planner(work, Assumptions()).candidate(replace(chip, memory=Memory(bytes=1e9, bytes_per_s=1e12)), 2, "torch")
    assert isinstance(tiny, Infeasible)
    assert tiny.reason == "preparation: one picture at a time does not fit"
