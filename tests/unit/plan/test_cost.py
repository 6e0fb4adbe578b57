"""Money by hand: rented, bought, owned, and what of a rent is power, wear and the landlord's; energy and carbon by hand."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.catalog.records import Chip, ChipServer, Price, Rent, Site
from sampan.plan import cost
from sampan.plan.cost import Assumptions, energy, power
from sampan.plan.records import Interval

CHIP = Chip(
    name="c", title="C", vendor="V", maker_country="X", status="released",
    server=ChipServer(title="S8", num_chips=8, power_w=8000), price=Price(usd=35040, year="2024", region="US"),
    rent=Rent(low_usd_per_h=2, typical_usd_per_h=3, high_usd_per_h=5, as_of="2026-01", region="US"),
)  # fmt: skip
SITE = Site(name="s", country="XX", region="R", pue=1.25, electricity_usd_per_kwh=0.1, electricity_year="2025")
SUPPOSED = Assumptions(years=4, used_share=0.5, load_share=0.8)
HOURS = Interval(low=50, typical=100, high=200)
USED = energy(CHIP, SITE, HOURS, SUPPOSED)  # 1 kW x 0.8 x 1.25 = 1 kWh an hour


def test_rent_goes_from_low_price_and_short_time_to_high_price_and_long_time():
    money = cost.if_rented(CHIP, HOURS)
    assert money.usd == Interval(low=100, typical=300, high=1000)
    assert money.said == "rented for 3 USD a chip-hour (2 to 5; US, 2026-01)"


def test_owned_chips_cost_their_electricity_alone():
    money = cost.if_owned(CHIP, SITE, HOURS, USED)
    assert money.usd is not None
    assert money.usd.typical == pytest.approx(10)
    assert money.said == "electricity at 0.1 USD a kWh (R, 2025)"
    assert cost.if_owned(replace(CHIP, price=None, rent=None), SITE, HOURS, USED) == money


def test_bought_is_wear_and_electricity():
    money = cost.if_bought(CHIP, SITE, HOURS, USED, SUPPOSED)
    assert money.usd is not None
    assert money.usd.typical == pytest.approx(100 * (35040 / (4 * 8760 * 0.5) + 0.1))
    assert (
        money.said
        == "bought for 35,040 USD a chip (US, 2024), 2 USD an hour, and electricity at 0.1 USD a kWh (R, 2025)"
    )


def test_a_rent_is_power_wear_and_markup():
    split = cost.split_rent(CHIP, SITE, HOURS, SUPPOSED)
    assert split.rent == Interval(low=100, typical=300, high=1000)
    assert split.power is not None
    assert split.depreciation == Interval(low=100, typical=200, high=400)
    assert split.markup is not None
    assert split.power.typical == pytest.approx(10)
    assert split.markup.typical == pytest.approx(90)
    assert split.markup.low == pytest.approx((2 - 2.1) * 200)  # let below cost: longer is worse
    assert split.markup.high == pytest.approx((5 - 2.1) * 200)
    assert split.reasons == ()
    assert split.bought is not None
    assert split.bought.typical == pytest.approx(210)


def test_what_is_not_known_is_said():
    assert cost.if_rented(replace(CHIP, rent=None), HOURS).said == "no rental price is known for `c`"
    assert cost.if_bought(replace(CHIP, price=None), SITE, HOURS, USED, SUPPOSED).said == "no price is known for `c`"
    dark = replace(SITE, electricity_usd_per_kwh=None)
    assert cost.if_owned(CHIP, dark, HOURS, USED).said == "no price of electricity is known for `s`"
    split = cost.split_rent(replace(CHIP, price=None, rent=None), dark, HOURS, SUPPOSED)
    assert (split.rent, split.power, split.depreciation, split.markup, split.bought) == (None,) * 5
    assert split.reasons == (
        "no rental price is known for `c`", "no price of electricity is known for `s`", "no price is known for `c`",
    )  # fmt: skip


@given(
    st.tuples(*[st.floats(1e-3, 1e6)] * 3), st.tuples(*[st.floats(0.1, 50)] * 3), st.floats(100, 1e5),
    st.floats(0.01, 0.5),
)  # fmt: skip
def test_parts_of_a_rent_add_up_and_lie_in_order(hours, rents, price, electricity):
    low, typical, high = sorted(rents)
    chip = replace(
        CHIP, price=Price(usd=price), rent=Rent(low_usd_per_h=low, typical_usd_per_h=typical, high_usd_per_h=high)
    )
    short, middle, long = sorted(hours)
    site = replace(SITE, electricity_usd_per_kwh=electricity)
    split = cost.split_rent(chip, site, Interval(low=short, typical=middle, high=long), SUPPOSED)
    assert split.rent and split.power and split.depreciation and split.markup
    total = split.power.typical + split.depreciation.typical + split.markup.typical
    assert total == pytest.approx(split.rent.typical, rel=1e-9, abs=1e-9)
    for part in (split.rent, split.power, split.depreciation, split.markup):
        rounding = 1e-9 * max(abs(part.low), abs(part.typical), abs(part.high))
        assert part.low <= part.typical + rounding
        assert part.typical <= part.high + rounding


DRAWING = Chip(
    name="c", title="C", vendor="V", maker_country="X", status="released", board_power_w=700,
    server=ChipServer(title="S8", num_chips=8, power_w=8000),
)  # fmt: skip
GRID = Site(name="s", country="XX", region="R", pue=1.5, grid_g_co2_per_kwh=400)
FEW_HOURS = Interval(low=10, typical=20, high=40)


def test_a_chips_share_of_its_server():
    assert power(DRAWING).w == 1000
    assert power(DRAWING).basis == "share of S8"


def test_a_held_chip_keeps_what_the_server_takes_beside_it():
    assert power(replace(DRAWING, power_cap_w=500)).w == 800
    assert power(replace(DRAWING, power_cap_w=500, server=ChipServer())).w == 500


def test_a_board_alone_says_so():
    assert power(replace(DRAWING, server=ChipServer())).w == 700
    assert power(replace(DRAWING, server=ChipServer())).basis == "board alone; its server is not in it"


def test_energy_and_carbon_by_hand():
    used = energy(DRAWING, GRID, FEW_HOURS, Assumptions(load_share=0.5))
    assert used.kwh == Interval(low=7.5, typical=15, high=30)  # 1 kW, half loaded, 1.5 with the site
    assert used.kg_co2 is not None
    assert used.kg_co2.typical == pytest.approx(6)


def test_what_is_not_known_of_energy_is_said():
    unknown = energy(replace(DRAWING, board_power_w=None, server=ChipServer()), GRID, FEW_HOURS, Assumptions())
    assert (unknown.kwh, unknown.reason) == (None, "how much power `c` draws is not known")
    no_pue = energy(DRAWING, replace(GRID, pue=None), FEW_HOURS, Assumptions())
    assert (no_pue.kwh, no_pue.reason) == (None, "the overhead (PUE) of `s` is not known")
    no_grid = energy(DRAWING, replace(GRID, grid_g_co2_per_kwh=None), FEW_HOURS, Assumptions())
    assert no_grid.kwh is not None
    assert (no_grid.kg_co2, no_grid.carbon_reason) == (None, "the carbon of the grid of `s` is not known")


@pytest.mark.parametrize(
    ("name", "value"), [("years", 0), ("years", 101), ("load_share", 1.01), ("memory_share", -0.1)]
)
def test_what_cannot_be_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} cannot be {value!r}"):
        Assumptions(**{name: value})


def test_every_number_is_said():
    said = " ".join(Assumptions(years=3, used_share=0.55, load_share=0.66, memory_share=0.77).lines())
    assert all(word in said for word in ("3 years", "55%", "66%", "77%"))
