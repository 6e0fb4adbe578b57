"""Energy and carbon by hand, and what is said where a fact is missing."""

from dataclasses import replace

import pytest

from sampan.catalog.records import Chip, ChipServer, Site
from sampan.plan.assumptions import Assumptions, Interval
from sampan.plan.energy import energy, power

CHIP = Chip(
    name="c", title="C", vendor="V", maker_country="X", status="released", board_power_w=700,
    server=ChipServer(title="S8", num_chips=8, power_w=8000),
)  # fmt: skip
SITE = Site(name="s", country="XX", region="R", pue=1.5, grid_g_co2_per_kwh=400)
HOURS = Interval(low=10, typical=20, high=40)


def test_a_chips_share_of_its_server():
    assert power(CHIP).w == 1000
    assert power(CHIP).basis == "share of S8"


def test_a_held_chip_keeps_what_the_server_takes_beside_it():
    assert power(replace(CHIP, power_cap_w=500)).w == 800
    assert power(replace(CHIP, power_cap_w=500, server=ChipServer())).w == 500


def test_a_board_alone_says_so():
    assert power(replace(CHIP, server=ChipServer())).w == 700
    assert power(replace(CHIP, server=ChipServer())).basis == "board alone; its server is not in it"


def test_by_hand():
    used = energy(CHIP, SITE, HOURS, Assumptions(load_share=0.5))
    assert used.kwh == Interval(low=7.5, typical=15, high=30)  # 1 kW, half loaded, 1.5 with the site
    assert used.kg_co2 is not None
    assert used.kg_co2.typical == pytest.approx(6)


def test_what_is_not_known_is_said():
    unknown = energy(replace(CHIP, board_power_w=None, server=ChipServer()), SITE, HOURS, Assumptions())
    assert (unknown.kwh, unknown.reason) == (None, "how much power `c` draws is not known")
    no_pue = energy(CHIP, replace(SITE, pue=None), HOURS, Assumptions())
    assert (no_pue.kwh, no_pue.reason) == (None, "the overhead (PUE) of `s` is not known")
    no_grid = energy(CHIP, replace(SITE, grid_g_co2_per_kwh=None), HOURS, Assumptions())
    assert no_grid.kwh is not None
    assert (no_grid.kg_co2, no_grid.carbon_reason) == (None, "the carbon of the grid of `s` is not known")
