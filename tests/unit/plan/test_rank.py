"""Order, limits and the front of rows, against trying every pair."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.catalog.records import Chip, ChipServer, Price, Rent, Site
from sampan.plan.cost import DAY_S, Assumptions, Energy, Money, Power
from sampan.plan.rank import SORTS, PlanRow, best_sites, inference_rows, plan_rows, rank, worthwhile
from sampan.plan.records import Interval

CHIP = Chip(
    name="c", title="C", vendor="V", maker_country="X", status="released", board_power_w=1000,
    server=ChipServer(), price=Price(usd=1000), rent=Rent(low_usd_per_h=1, typical_usd_per_h=2, high_usd_per_h=4),
)  # fmt: skip
SITE = Site(name="s", country="XX", region="R", pue=1.25, electricity_usd_per_kwh=0.1, grid_g_co2_per_kwh=500)


def span(value):
    return None if value is None else Interval(low=value / 2, typical=value, high=value * 2)


def candidate(time_s, count=1, chip="c", framework="torch"):
    return SimpleNamespace(
        time_s=span(time_s), count=count, label=chip, framework=framework, chip=CHIP,
        chip_hours=span(time_s * count / 3600),
    )  # fmt: skip


def row(time_s, usd, kwh=1.0, kg=1.0, site="s", **of):
    used = Energy(power=Power(w=1, basis=""), kwh=span(kwh), kg_co2=span(kg))
    money = Money(basis="rent", usd=span(usd), said="")
    return PlanRow(
        candidate=candidate(time_s, **of), site=replace(SITE, name=site), money=money, bought=money, energy=used
    )  # type: ignore[arg-type]


amounts = st.one_of(st.none(), st.integers(1, 6).map(float))
worlds = st.lists(st.builds(row, st.integers(1, 6).map(float), amounts, amounts, amounts), max_size=12)


def value(row, sort):
    span = {
        "money": row.money.usd,
        "time": row.candidate.time_s,
        "energy": row.energy.kwh,
        "carbon": row.energy.kg_co2,
    }[sort]
    return math.inf if span is None else span.typical


@given(worlds)
def test_the_front_is_what_no_other_row_beats(world):
    def beats(one, other):
        a, b = (value(one, "time"), value(one, "money")), (value(other, "time"), value(other, "money"))
        return a[0] <= b[0] and a[1] <= b[1] and a != b

    for one in (found := rank(world)):
        known = one.money.usd is not None
        assert one.is_on_front == (
            known and not any(beats(other, one) for other in found if other.money.usd is not None)
        )


@given(worlds, st.sampled_from(SORTS), st.integers(1, 6), st.integers(1, 6))
def test_rows_that_keep_the_limits_come_first_and_each_kind_in_order(world, sort, deadline_s, budget_usd):
    found = rank(world, sort, deadline_s=deadline_s, budget_usd=budget_usd)
    assert len(found) == len(world)
    kept = [one for one in found if not one.misses]
    assert found[: len(kept)] == kept
    assert all(one.candidate.time_s.typical <= deadline_s and value(one, "money") <= budget_usd for one in kept)
    for kind in (kept, found[len(kept) :]):
        values = [value(one, sort) for one in kind]
        assert values == sorted(values)


def test_misses_in_words():
    (one,) = rank([row(3 * DAY_S, None)], deadline_s=2 * DAY_S, budget_usd=1500)
    assert one.misses == ("takes longer than 2 days", "whether it costs more than 1,500 USD is not known")
    (one,) = rank([row(1, 1501)], budget_usd=1500)
    assert one.misses == ("costs more than 1,500 USD",)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 9)), max_size=9))
def test_worthwhile_ways_are_faster_than_all_with_fewer_chips(pairs):
    candidates = [candidate(time_s, count=1 << power) for power, time_s in pairs]
    kept = worthwhile(candidates)  # type: ignore[arg-type]
    for one in candidates:
        fewer = [other for other in candidates if other.count < one.count]
        if all(one.time_s.typical < other.time_s.typical for other in fewer):
            alike = [
                other for other in candidates if other.count == one.count and other.time_s.typical <= one.time_s.typical
            ]
            assert any(other in kept for other in alike)
    times = [one.time_s.typical for one in kept]
    assert times == sorted(times, reverse=True)
    assert len(set(times)) == len(times)


def test_rented_and_owned_rows_by_hand():
    far = replace(SITE, name="far")
    found = plan_rows([candidate(3600, count=4)], [SITE, far], Assumptions(load_share=0.8), {("c", "s"): 4})  # type: ignore[list-item]
    assert [(one.site.name, one.money.basis) for one in found] == [("s", "owned"), ("far", "rent")]
    # 4 chips x 1 h x 1 kW x 0.8 x 1.25 = 4 kWh
    owned, rented = (one.money.usd.typical for one in found)  # type: ignore[union-attr]
    assert (owned, rented) == (pytest.approx(0.4), 8.0)
    (short,) = plan_rows([candidate(3600, count=5)], [SITE], Assumptions(), {("c", "s"): 4})  # type: ignore[list-item]
    assert short.money.basis == "rent"


@given(st.floats(1, 1e7), st.integers(1, 4096))
def test_money_is_time_times_chips_times_price(time_s, count):
    (one,) = plan_rows([candidate(time_s, count=count)], [SITE], Assumptions())  # type: ignore[list-item]
    assert one.money.usd is not None
    assert one.money.usd.typical == pytest.approx(time_s / 3600 * count * 2)
    assert one.money.usd.low == pytest.approx(one.candidate.chip_hours.low * 1)
    assert one.money.usd.high == pytest.approx(one.candidate.chip_hours.high * 4)


def test_of_sites_the_first_stands_for_the_rest():
    found = [row(1, 1, site="a"), row(1, 1, site="b"), row(1, 1, site="b", count=2)]
    assert [(one.site.name, one.candidate.count) for one in best_sites(found)] == [("a", 1), ("b", 2)]


def test_pictures_at_sites():
    slow = SimpleNamespace(label="c", chip=CHIP, framework="torch", time_s=span(7200), chip_hours=span(2))
    quick = SimpleNamespace(
        label="d", chip=replace(CHIP, rent=None), framework="torch", time_s=span(3600), chip_hours=span(1)
    )
    estimates = [quick, slow]
    found = inference_rows(estimates, [SITE], Assumptions())  # type: ignore[arg-type]
    assert [one.estimate.label for one in found] == ["c", "d"]  # no rent is known for the other
    assert [one.estimate.label for one in inference_rows(estimates, [SITE], Assumptions(), sort="time")] == ["d", "c"]  # type: ignore[arg-type]
    first = inference_rows(estimates, [SITE], Assumptions(), {("d", "s"): 1})[0]  # type: ignore[arg-type]
    assert (first.estimate.label, first.is_owned, first.usd) == ("d", True, first.split.power)
