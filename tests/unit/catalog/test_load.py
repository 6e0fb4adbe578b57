"""The catalogue's files: names, misspellings, variants, what is unknown, and what a wrong file says."""

from pathlib import Path

import pytest

from sampan.catalog import load
from sampan.catalog.memory_points import memory_points
from sampan.catalog.models import models
from sampan.errors import CatalogError

ROOT = Path(__file__).resolve().parents[3]


def refused(call, *arguments):
    with pytest.raises(CatalogError) as caught:
        call(*arguments)
    return caught.value.what, "; ".join(caught.value.because), caught.value.hint


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("h100_sxm", "h100_sxm"), ("H100", "h100_sxm"), ("h100 SXM", "h100_sxm"), ("H2O", "h20"), ("h2o", "h20"),
        ("Ascend910B", "ascend_910b3"), ("Atlas 800T A2", "ascend_910b3"), ("GB200 NVL72", "gb200"), ("A100-80G", "a100_80"),
    ],
)  # fmt: skip
def test_a_chip_is_found_by_what_people_call_it(asked, name):
    assert load.chip(asked).name == name


def test_a_variant_is_its_chip_with_another_memory_or_limit():
    plain, more, cooler, both = (load.chip(name) for name in ("H100", "H100-96G", "H100-500W", "H100-96G-500W"))
    assert more.memory.bytes == both.memory.bytes == 96e9
    assert cooler.memory.bytes == plain.memory.bytes
    assert (plain.power_cap_w, cooler.power_cap_w, both.power_cap_w) == (None, 500, 500)
    assert both.variant == "H100-96G-500W"
    assert more.peak("bf16") == plain.peak("bf16")
    assert refused(load.chip, "H100-0G") == (
        "no chip `H100-0G` is in the catalogue", "a variant has more than 0 GB and more than 0 W", None,
    )  # fmt: skip


def test_an_unknown_name_is_told_what_is_near_or_what_there_is():
    assert refused(load.chip, "h10O") == ("no chip `h10O` is in the catalogue", "", "did you mean `h100`?")
    what, _, hint = refused(load.chip, "zzzzz")
    assert what == "no chip `zzzzz` is in the catalogue"
    assert hint is not None
    assert hint.startswith("known: `a100_40`, `a100_80`")
    assert "`910b`" not in hint, "names alone, not what else they are called"
    assert refused(load.site, "singapur")[0] == "no site `singapur` is in the catalogue"


def test_names_are_told_apart_whatever_their_case_and_hyphens():
    words = {}
    for chip in load.chips().values():
        for word in (chip.name, chip.title, *chip.aliases):
            assert words.setdefault(load._plain(word), chip.name) == chip.name, word


def test_every_fact_has_a_source_or_says_that_it_is_from_memory():
    for one in (*load.chips().values(), *load.sites().values()):
        assert one.confidence in ("high", "medium", "low", "memory")
        assert one.sources or one.confidence in ("low", "memory")


def test_what_nobody_published_is_none():
    chip = load.chip("thead_ppu")
    assert chip.peak("bf16") is None
    assert chip.memory.bytes_per_s is None
    assert chip.rent is None


def test_amounts_are_in_base_units():
    for chip in load.chips().values():
        for dtype, peak in chip.peak_dense_flops_per_s.items():
            assert 1e11 < peak < 1e17, (chip.name, dtype)
        assert chip.memory.bytes is None or 8e9 <= chip.memory.bytes <= 1e12
        assert chip.memory.bytes_per_s is None or 1e11 <= chip.memory.bytes_per_s <= 1e14
        assert chip.board_power_w is None or 50 <= chip.board_power_w <= 5000
        if chip.rent:
            assert chip.rent.low_usd_per_h <= chip.rent.typical_usd_per_h <= chip.rent.high_usd_per_h
    for site in load.sites().values():
        assert site.pue is None or 1 <= site.pue < 3
        assert site.electricity_usd_per_kwh is None or 0.01 < site.electricity_usd_per_kwh < 1
        assert site.grid_g_co2_per_kwh is None or 0 < site.grid_g_co2_per_kwh < 1500


def test_runs_have_the_columns_that_are_named():
    assert tuple(load.runs()[0]) == load.RUN_COLUMNS
    assert len({row["id"] for row in load.runs()}) == len(load.runs())


CHIP = 'title = "New"\nvendor = "Maker"\nmaker_country = "XX"\nstatus = "released"\nconfidence = "memory"\n'


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("[memory]\nbyte = 1e9\n", "it has `memory.byte`, which is not a field; did you mean `bytes`?"),
        ("[peak_dense_flops_per_s]\nbf16 = 312\n", "its peak in bf16 is 312 FLOP/s; the unit is FLOP/s, not TFLOP/s"),
        ("[peak_dense_flops_per_s]\nbf15 = 312e12\n", "it has a peak in `bf15`; did you mean `bf16`?"),
        ("board_power_w = -4\n", "its `board_power_w` is -4, and is to be above 0"),
        (
            "[rent]\nlow_usd_per_h = 3\ntypical_usd_per_h = 2\nhigh_usd_per_h = 4\n",
            "its rents are not in order: low, typical, high",
        ),
    ],
)
def test_a_wrong_chip_file_says_what_is_wrong(tmp_path, more, said):
    path = tmp_path / "new.toml"
    path.write_text(CHIP + more, encoding="utf-8")
    assert refused(load.read_chip, path)[:2] == ("the chip file `new.toml` cannot be used", said)


def test_a_chip_file_without_a_source_is_from_memory(tmp_path):
    path = tmp_path / "new.toml"
    path.write_text(CHIP.replace('"memory"', '"high"'), encoding="utf-8")
    assert refused(load.read_chip, path)[1] == "it has no `sources`, and its confidence is 'high'"
    path.write_text(CHIP.replace('vendor = "Maker"\n', ""), encoding="utf-8")
    assert refused(load.read_chip, path)[1] == "it has no `vendor`"


def test_a_wrong_site_file_says_what_is_wrong(tmp_path):
    path = tmp_path / "new.toml"
    path.write_text('country = "XX"\nregion = "R"\nconfidence = "memory"\npue = 0.9\n', encoding="utf-8")
    assert refused(load.read_site, path)[:2] == (
        "the site file `new.toml` cannot be used", "its `pue` is 0.9; it is at least 1",
    )  # fmt: skip


def test_the_page_about_the_catalogue_counts_right():
    text = (ROOT / "docs" / "catalog.md").read_text(encoding="utf-8")
    points = memory_points()
    for said in (
        f"| `chips/` | {len(load.chips())} |",
        f"| `sites/` | {len(load.sites())} |",
        f"| `runs/measured.csv` | {len(load.runs()):,} |",
        f"| `models/` | {len(models())} |",
        f"| `memory/` | {len(points)} |",
    ):
        assert said in text
