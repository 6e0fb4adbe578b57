"""A row planned anew with one input moved: what cannot be known stays None, and what is known is kept beside it."""

from dataclasses import replace
from pathlib import Path

import pytest

from sampan import job as jobs
from sampan.plan import verb
from sampan.plan.rank import plan_rows
from sampan.plan.records import Interval
from sampan.plan.sensitivity import sensitivity, share
from sampan.plan.verb import PlanArguments

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def plan():
    job = jobs.read(ROOT / "jobs" / "lora.toml", [])
    return verb.plan(job, PlanArguments(sites=("sg",), chips=("h100_sxm",), count=(2, 2)))


def moved(plan, row):
    return {one.name: one for one in sensitivity(row, plan.work, plan.assumptions)}


def without(plan, **unknown):
    """Return the first row as it is where something of the chip is not known."""
    candidate = plan.rows[0].candidate
    return plan_rows([replace(candidate, chip=replace(candidate.chip, **unknown))], plan.sites, plan.assumptions, {})[0]


def test_without_rent_and_price_times_still_move(plan):
    row = without(plan, rent=None, price=None)
    found = moved(plan, row)
    assert {"rent", "price of a chip"}.isdisjoint(found)
    time = row.candidate.time_s
    assert found["speed (80 % interval)"].time_s == (time.low, time.high)
    assert found["speed (80 % interval)"].usd == (None, None)
    assert found["number of steps"].time_s[0] < time.typical < found["number of steps"].time_s[1]
    assert found["number of steps"].usd == (None, None)


def test_without_a_price_rent_moves_and_what_is_bought_stays_unknown(plan):
    found = moved(plan, without(plan, price=None))
    assert None not in found["rent"].usd
    assert all(one.bought_usd == (None, None) for one in found.values())


def test_money_moves_with_the_interval_of_time(plan):
    row = plan.rows[0]
    speed = moved(plan, row)["speed (80 % interval)"]
    time = row.candidate.time_s
    of_time = share(speed.time_s, time)
    assert of_time == pytest.approx((time.low / time.typical, time.high / time.typical))
    assert share(speed.usd, row.money.usd) == pytest.approx(of_time)
    assert share(speed.bought_usd, row.bought.usd) == pytest.approx(of_time)


def test_less_memory_never_makes_it_quicker(plan):
    roomy, tight = moved(plan, plan.rows[0])["share of memory that may be taken"].time_s
    assert tight is None or tight >= roomy


def test_nothing_has_no_share():
    nothing, some = Interval(low=0.0, typical=0.0, high=0.0), Interval(low=1.0, typical=2.0, high=3.0)
    assert share((0.0, 0.0), nothing) is None
    assert share((0.0, 1.0), some) is None
    assert share((1.0, 4.0), some) == (0.5, 2.0)
