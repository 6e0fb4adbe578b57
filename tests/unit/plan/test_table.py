"""A plan in a terminal: what is shown at which width, and how amounts and reasons are written."""

from types import SimpleNamespace

import pytest

from sampan import job
from sampan.catalog.records import Chip
from sampan.plan import runnable, table, verb
from sampan.plan.planner import Infeasible
from sampan.plan.records import Interval, ParallelLayout

JOB = 'out = "runs/x"\ndata.path = "pictures"\n'


@pytest.fixture(scope="module")
def plan():
    asked = verb.PlanArguments(chips=("h100_sxm", "l40s", "metax_c550"), count=(1, 4), sites=("sg", "us_va"))
    return verb.plan(job.parse(JOB, ["stage.glyph.grad_accum_steps=4"]), asked, name="j.toml")


@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_line_is_wider_than_the_terminal(plan, width):
    assert max(map(len, table.lines(plan, width))) <= width


def test_a_narrow_terminal_says_which_columns_it_does_without(plan):
    wide, narrow = list(table.lines(plan, 200)), list(table.lines(plan, 80))
    head = "chip n site time chip-h USD if bought kWh kg CO2 layout"
    assert " ".join(wide[2].split()) == head
    assert "A wider terminal also has" not in " ".join(wide)
    (left, *_) = [line for line in narrow if line.startswith("A wider terminal also has ")]
    told = left.removeprefix("A wider terminal also has ").rstrip(".").split(", ")
    assert " ".join(narrow[2].split()) == " ".join(
        name
        for name in ("chip", "n", "site", "time", "chip-h", "USD", "if bought", "kWh", "kg CO2")
        if name not in told
    )


def test_a_row_is_where_the_head_says(plan):
    found = list(table.lines(plan, 200))
    first = plan.rows[0]
    start = found[2].index("time")
    assert found[3][start:].startswith(table.between(first.candidate.time_s))
    assert found[3][found[2].index("USD") :].startswith(table.money(first))


def test_everything_that_was_supposed_is_said(plan):
    said = " ".join(" ".join(table.lines(plan, 120)).split())
    for note in plan.notes():
        assert " ".join(note.split()) in said


def test_no_row_keeps_the_limits(plan):
    assert list(table.unmet(plan)) == []
    asked = verb.PlanArguments(chips=("l40s",), count=(1, 1), sites=("sg",), deadline=1e-6, budget=1e-6)
    strict = verb.plan(job.parse(JOB, []), asked)
    (said,) = table.unmet(strict)
    row = strict.rows[0]
    assert said == (
        f"No row keeps the limits. The quickest takes {table.between(row.candidate.time_s)} (1 x l40s); the cheapest costs "
        f"{table.money(row)} USD (1 x l40s)."
    )


def test_reasons_that_differ_in_numbers_alone_are_one():
    def no(chip, count, reason):
        return Infeasible(chip=chip, count=count, framework="torch", reason=reason)

    found = [
        no("a", 1, "needs 3.5 GiB"),
        no("a", 2, "needs 1.5 GiB"),
        no("b", 1, "needs 3.5 GiB"),
        no("c", 1, "is dark"),
    ]
    assert list(table.reasons(found)) == [
        "1, 2 x a, torch: needs 3.5 GiB",
        "1 x b, torch: needs 3.5 GiB",
        "1 x c, torch: is dark",
    ]
    many = [no(name, 1, "is dark") for name in "abcdefghi"]
    assert list(table.reasons(many)) == ["1 x a, b, c, d, e, f and 3 other chips, torch: is dark"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "unknown"), (0, "0"), (0.00123, "0.0012"), (0.00996, "0.00996"), (1.4, "1.40"), (99.94, "99.9"),
        (99.96, "100"), (12345, "12,300"), (-0.5, "-0.500"),
    ],
)  # fmt: skip
def test_amounts(value, said):
    assert table.amount(value) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (30, "30.0 s (15.0-60.0)"),
        (90, "1.50 min (0.750-3.00)"),
        (7200, "2.00 h (1.00-4.00)"),
        (172800, "2.00 d (1.00-4.00)"),
    ],
)
def test_a_time_and_its_interval_share_a_unit(seconds, said):
    assert table.between(Interval(low=seconds / 2, typical=seconds, high=seconds * 2)) == said


def test_layouts_that_train_cannot_run_are_planned_where_all_are_asked_for_and_marked():
    asked = verb.PlanArguments(
        chips=("ascend_910b2", "gaudi2"), count=(4, 4), sites=("sg",), frameworks=("mindspeed", "torch"), all=True
    )
    found = verb.plan(job.parse(JOB, ["stage.glyph.grad_accum_steps=4"]), asked)
    said = list(table.lines(found, 200))
    head = said[2].split()
    assert "train" in head
    marks = {row.key: runnable.why_not(row.candidate) for row in found.rows}
    assert any(marks.values())
    number = sum(why is None for why in marks.values())
    which = f"{number} of {len(marks)}" if number else "None"
    assert f"{which} of these can be run by `sampan train` (column `train`)" in " ".join(said)
    reasons = {one["not_runnable"] for one in found.as_dict()["rows"]}
    assert "not runnable by sampan train: `mindspeed` is other software" in reasons
    assert "not runnable by sampan train: it has no device for chips of Intel" in reasons


def test_a_plan_offers_what_train_runs_and_says_so():
    asked = verb.PlanArguments(chips=("h100_sxm", "gaudi2"), count=(3, 4), sites=("sg",))
    found = verb.plan(job.parse(JOB, ["stage.glyph.grad_accum_steps=4"]), asked)
    assert {(row.candidate.label, row.candidate.count) for row in found.rows} == {("h100_sxm", 4)}
    layouts = [stage.layout for row in found.rows for stage in row.candidate.stages]
    assert {(one.tp, one.pp, one.cp, one.ep, one.virtual) for one in layouts} == {(1, 1, 1, 1, 1)}
    assert {one.zero_stage for one in layouts} <= {0, 3}
    assert {one.recompute for one in layouts} <= {"none", "full"}
    said = " ".join(" ".join(table.lines(found, 120)).split())
    assert "not runnable by sampan train: it has no device for chips of Intel" in said
    assert "Layouts are those that `sampan train` can run; --all plans those of other software too." in said
    assert " train " not in next(line for line in table.lines(found, 200) if "chip-h" in line)


@pytest.mark.parametrize(
    ("framework", "vendor", "layout", "why"),
    [
        ("torch", "NVIDIA", {}, None),
        ("torch", "Huawei", {"dp": 2}, None),
        ("torch", "AMD", {"dp": 8, "zero_stage": 3, "recompute": "full"}, None),
        ("torch", "NVIDIA", {"zero_stage": 1}, None),  # with one chip all are alike
        ("torch", "NVIDIA", {"dp": 2, "zero_stage": 1}, "decoder is zero 1"),
        ("torch", "NVIDIA", {"recompute": "selective"}, "decoder is recompute selective"),
        ("mindspore", "Huawei", {"dp": 8, "zero_stage": 1}, None),
        ("mindspore", "Huawei", {"dp": 8, "zero_stage": 3}, "decoder is zero 3"),
        ("mindspore", "Huawei", {"dp": 4, "tp": 2}, "decoder is tensor parallel (tp 2)"),
        ("torch", "NVIDIA", {"pp": 2, "cp": 4}, "decoder is pipeline parallel (pp 2) and context parallel (cp 4)"),
        ("torch", "Google", {}, "it has no device for chips of Google"),
        ("megatron", "NVIDIA", {}, "`megatron` is other software"),
    ],
)
def test_what_train_runs(framework, vendor, layout, why):
    stages = [SimpleNamespace(name="decoder", layout=ParallelLayout(**layout))]
    chip = Chip(name="x", title="X", vendor=vendor, maker_country="ZZ", status="shipping")
    candidate = SimpleNamespace(framework=framework, stages=stages, chip=chip)
    assert runnable.why_not(candidate) == (why and f"not runnable by sampan train: {why}")
