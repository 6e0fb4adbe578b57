"""A plan's page: the answer first, every row and source, nothing loaded; also where there is little to show."""

from dataclasses import replace
from pathlib import Path

import pytest

from sampan import job as jobs
from sampan.plan import verb
from sampan.plan.page import page
from sampan.plan.rank import plan_rows
from sampan.plan.sensitivity import sensitivity, share
from sampan.plan.verb import PlanArguments
from well_formed import assert_well_formed

ROOT = Path(__file__).resolve().parents[3]


def planned(**given):
    job = jobs.read(ROOT / "jobs" / "lora.toml", [])
    return verb.plan(
        job, PlanArguments(**({"sites": ("sg",), "chips": ("h100_sxm", "h20"), "count": (1, 4), "all": True} | given))
    )


@pytest.fixture(scope="module")
def plan():
    return planned()


def test_the_answer_stands_first_and_everything_after_it(plan):
    text = page(plan)
    assert_well_formed(text)
    heads = [part.split("</h2>")[0] for part in text.split("<h2>")[1:]]
    assert heads == [
        "Rows", "Time against money", "How time falls with the number of chips", "What a step is made of", "Memory of a chip",
        "What moves the first row", "Layouts of the first row", "Then 1,000 pictures, on one chip", "What was supposed",
        "The job", "Sources: chips", "Sources: sites", "Sources: speeds",
    ]  # fmt: skip
    first = plan.rows[0].candidate
    assert f"First by money: {first.count} x {first.chip.title} with torch in Singapore." in text
    assert text.index("First by money") < text.index("<h2>")
    for chip in plan.chips:
        for source in chip.sources:
            assert source in text
    assert text.count("<svg") >= 6


def test_a_plan_that_cannot_be_done_says_so():
    text = page(planned(chips=("thead_ppu",)))
    assert_well_formed(text)
    assert "Nothing that was asked for can do this job." in text
    assert "nobody has published its peak in bf16 and its memory bandwidth" in text


def test_rows_without_a_price_are_not_drawn_and_named():
    text = page(planned(chips=("gaudi2", "h20")))
    assert_well_formed(text)
    assert "Not drawn, because their price is not known: gaudi2." in text
    alone = page(planned(chips=("gaudi2",)))
    assert_well_formed(alone)
    assert "No row&#39;s money is known." in alone


def test_what_comes_in_is_escaped(plan):
    script = "<script>alert(1)</script>"
    first = plan.rows[0].candidate
    candidate = replace(first, chip=replace(first.chip, title=script, variant=script))
    site = replace(plan.sites[0], region=script, sources=(script,))
    odd = replace(
        plan, work=replace(plan.work, name=script), chips=(candidate.chip, *plan.chips), sites=(site,),
        rows=(replace(plan.rows[0], candidate=candidate, site=site), *plan.rows[1:]),
        curves=(candidate, *plan.curves), derived=(script,),
    )  # fmt: skip
    text = assert_well_formed(page(odd))
    assert text.count(script) > 8


def test_every_input_moves_the_row_the_way_it_should(plan):
    row = plan.rows[0]
    moved = {one.name: one for one in sensitivity(row, plan.work, plan.assumptions)}
    time, usd, bought = row.candidate.time_s.typical, row.money.usd.typical, row.bought.usd.typical
    low, high = moved["number of steps"].time_s
    assert low < time < high
    assert moved["speed (80 % interval)"].time_s == (row.candidate.time_s.low, row.candidate.time_s.high)
    assert moved["rent"].time_s == (time, time)
    assert moved["rent"].usd[0] < usd < moved["rent"].usd[1]
    assert moved["rent"].bought_usd == pytest.approx((bought, bought))
    for name in ("price of a chip", "electricity", "overhead of the site", "load of the chips", "years until paid off"):
        assert moved[name].bought_usd[0] < bought < moved[name].bought_usd[1], name
        assert moved[name].usd == pytest.approx((usd, usd)), name


def test_an_owned_row_moves_with_electricity_and_not_with_rent(plan):
    candidate = plan.rows[0].candidate
    (row,) = plan_rows([candidate], plan.sites, plan.assumptions, {(candidate.label, "sg"): candidate.count})
    moved = {one.name: one for one in sensitivity(row, plan.work, plan.assumptions)}
    assert "rent" not in moved
    assert moved["electricity"].usd == pytest.approx((0.7 * row.money.usd.typical, 1.3 * row.money.usd.typical))


def test_a_share_of_what_is_not_known_is_not_known(plan):
    span = plan.rows[0].candidate.time_s
    assert share((None, 1.0), span) is None
    assert share((1.0, 2.0), None) is None
    assert share((span.typical, 2 * span.typical), span) == (1.0, 2.0)
