"""A plan in a terminal: what is shown at which width, and how amounts and reasons are written."""

from types import SimpleNamespace

import pytest

from sampan import job
from sampan.plan import table, verb
from sampan.plan.planner import Infeasible
from sampan.plan.records import Interval, ParallelLayout
from sampan.plan.runnable import is_runnable

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


def test_layouts_that_train_cannot_run_are_said_to_be_so(plan):
    said = " ".join(" ".join(table.lines(plan, 120)).split())
    ways = {row.key: row.candidate for row in plan.rows}
    alone = [way for way in ways.values() if way.count == 1]
    assert len(alone) < len(ways)
    assert f"{len(alone)} of these {len(ways)} layouts can be run by this version of `sampan train`: on PyTorch" in said
    asked = verb.PlanArguments(chips=("l40s",), count=(1, 1), sites=("sg",))
    one = " ".join(table.lines(verb.plan(job.parse(JOB, []), asked), 120))
    assert "sampan train" not in one


@pytest.mark.parametrize(
    ("framework", "layout", "runs"),
    [
        ("torch", {}, True),
        ("torch", {"dp": 2}, False),
        ("torch", {"zero_stage": 3}, True),  # with one chip all are alike
        ("mindspore", {"dp": 8, "zero_stage": 1}, True),
        ("mindspore", {"dp": 8, "zero_stage": 3}, False),
        ("mindspore", {"dp": 4, "tp": 2}, False),
        ("mindspore", {"pp": 2}, False),
        ("megatron", {}, False),
    ],
)
def test_what_train_runs(framework, layout, runs):
    stages = [SimpleNamespace(layout=ParallelLayout(**layout))]
    assert is_runnable(SimpleNamespace(framework=framework, stages=stages)) is runs
