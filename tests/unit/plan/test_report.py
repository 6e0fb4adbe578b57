"""A plan as JSON: every row's parts add up, and every number's source is in the file."""

import json

import pytest

from sampan import job
from sampan.plan import verb

JOB = 'out = "runs/x"\ndata.path = "pictures"\n'


@pytest.fixture(scope="module")
def document():
    asked = verb.PlanArguments(chips=("h100_sxm", "l40s", "metax_c550"), count=(1, 4), sites=("sg", "us_va"))
    found = verb.plan(job.parse(JOB, ["stage.glyph.grad_accum_steps=4"]), asked, name="j.toml")
    return json.loads(verb.as_text(found.as_dict()))


def total(span):
    return span["typical"]


def test_a_rows_parts_add_up(document):
    assert [row["rank"] for row in document["rows"]] == list(range(1, len(document["rows"]) + 1))
    for row in document["rows"]:
        assert sum(total(stage["time_s"]) for stage in row["stages"]) == pytest.approx(total(row["time_s"]))
        assert total(row["chip_hours"]) == pytest.approx(total(row["time_s"]) * row["num_chips"] / 3600)
        assert total(row["money"]["usd"]) == pytest.approx(
            total(row["chip_hours"]) * total(row["money"]["usd_per_chip_hour"])
        )
        for stage in row["stages"]:
            assert sum(stage["parts_s"].values()) == pytest.approx(total(stage["step_s"]))
            assert total(stage["time_s"]) == pytest.approx(stage["num_steps"] * total(stage["step_s"]))
            memory = dict(stage["memory_bytes"])
            assert memory.pop("total") == pytest.approx(sum(memory.values()))
            assert stage["basis"]


def test_pictures_parts_and_prices_add_up(document):
    made = document["pictures"]
    assert made["num_pictures"] == 1000
    assert made["rows"]
    for row in made["rows"]:
        assert sum(row["parts_s"].values()) == pytest.approx(total(row["time_s"]))
        parts = total(row["power_usd"]) + total(row["depreciation_usd"]) + total(row["markup_usd"])
        assert parts == pytest.approx(total(row["rent_usd"]))


def test_every_chip_and_site_of_a_row_has_its_facts_and_sources(document):
    for row in document["rows"]:
        chip, site = document["chips"][row["chip"]], document["sites"][row["site"]]
        assert chip["sources"]
        assert chip["confidence"]
        assert site["electricity_usd_per_kwh"] is None or site["sources"] or site["from_memory"]


def test_what_cannot_be_done_stands_beside_the_rest(document):
    done = {row["chip"] for row in document["rows"]}
    left = {one["chip"] for one in document["infeasible"]}
    assert done == {"h100_sxm", "l40s"}
    assert "metax_c550" in left
    assert all(one["reason"] for one in document["infeasible"])
    assert {one["chip"] for one in document["pictures"]["infeasible"]} == {"metax_c550"}
