"""What rules say of a plan's rows: for the job's actor, at the sites that were named, and never a way round."""

import datetime
from pathlib import Path

import pytest

from sampan import job as jobs
from sampan.compliance import column_for
from sampan.errors import PlanError
from sampan.plan import verb
from sampan.plan.page import page
from sampan.plan.table import lines
from sampan.plan.verb import PlanArguments
from well_formed import assert_well_formed

ROOT = Path(__file__).resolve().parents[2]


def planned(*overrides, **options):
    job = jobs.read(ROOT / "jobs" / "lora.toml", ["actor.hq=CN", "actor.start=2026-02-15", *overrides])
    arguments = {"sites": ("my_johor", "cn_beijing"), "chips": ("h200", "ascend_910c"), "count": (1, 1)} | options
    return verb.plan(job, PlanArguments(**arguments), column=column_for(job))


def verdict(row):
    assert row.note is not None
    return row.note.document["verdict"]


def at(plan, chip, site):
    return next(row for row in plan.rows if (row.candidate.label, row.site.name) == (chip, site))


def test_every_row_carries_what_rules_say_of_it():
    plan = planned("actor.relation=buy")
    verdicts = {(row.candidate.label, row.site.name): verdict(row) for row in plan.rows}
    assert verdicts == {
        ("h200", "my_johor"): "presumption_of_denial", ("h200", "cn_beijing"): "case_by_case",
        ("ascend_910c", "my_johor"): "guidance_red_flag", ("ascend_910c", "cn_beijing"): "guidance_red_flag",
    }  # fmt: skip
    assert [row.is_restricted for row in plan.rows] == [False, False, True, True], "restricted rows stand last"
    document = plan.as_dict()["rows"][-1]["rules"]
    assert document["is_restricted"]
    decided = document["decided_by"][0]
    assert decided.pop("source_url").startswith("https://")
    assert decided == {
        "id": "us-2023-10-17-hq-d5", "title": "Headquarters test: D:5 or Macau parent, anywhere in the world",
        "since": "2023-11-17", "source_title": "15 CFR 744.23(a)(3), later 742.6(a)(6)(iii)(A)",
    }  # fmt: skip


def test_rows_that_a_rule_restricts_stay_and_name_the_rule():
    plan = planned("actor.relation=buy")
    text = "\n".join(lines(plan, 1000))
    assert "§ a rule restricts it" in text
    source = "source: 15 CFR 744.23(a)(3), later 742.6(a)(6)(iii)(A)"
    assert (
        "presumption_of_denial: h200 at my_johor: Headquarters test: D:5 or Macau parent, anywhere in the world "
        f"(since 2023-11-17; in force; confidence high; {source})"
    ) in text
    drawn = page(plan)
    assert f"anywhere in the world (since 2023-11-17; {source})" in drawn
    assert_well_formed(drawn)
    assert drawn.count('<tr class="grey">') == 2
    hidden = planned("actor.relation=buy", hide_restricted=True)
    assert not any(row.is_restricted for row in hidden.rows)
    assert "2 rows that a rule restricts are hidden." in hidden.notes()


def test_how_chips_are_had_is_part_of_the_question():
    rented = at(planned(), "h200", "my_johor")
    owned = at(planned(owned=[("h200", 1, "my_johor")]), "h200", "my_johor")
    assert verdict(rented) == "guidance_red_flag"
    assert owned.money.basis == "owned"
    assert not owned.is_restricted


def test_a_start_after_the_horizon_is_marked():
    plan = planned("actor.start=2027-01-01")
    assert all(row.note is not None and row.note.cell.endswith("?") for row in plan.rows)
    assert any("as known on 2026-10-08; later changes unknown" in line for line in lines(plan, 120))


def test_sites_are_named_by_who_asks():
    with pytest.raises(PlanError) as caught:
        planned(sites=None)
    assert caught.value.what == "no site is named, and the job names an actor"
    assert planned('plan.sites=["sg"]', sites=None).sites[0].name == "sg"


def test_without_an_actor_nothing_is_screened():
    job = jobs.read(ROOT / "jobs" / "lora.toml", [])
    assert column_for(job) is None
    plan = verb.plan(job, PlanArguments(sites=("sg",), chips=("h20",), count=(1, 1)))
    assert plan.rows[0].note is None
    assert plan.as_dict()["rows"][0]["rules"] is None
    assert "rules" not in "\n".join(lines(plan, 160)).splitlines()[2]


def test_a_wrong_fact_of_the_actor_is_an_error():
    with pytest.raises(PlanError) as caught:
        planned("actor.hq=XX")
    assert caught.value.what == "`XX` of `actor_hq` is not a country"
    job = jobs.read(ROOT / "jobs" / "lora.toml", ["actor.hq=SG"])
    today = datetime.date(2026, 3, 1)
    column = column_for(job, today)
    assert column is not None
    assert (column.query.date, column.query.relation) == (today, "rent")


def test_a_job_that_names_an_actor_is_not_planned_without_its_column():
    job = jobs.read(ROOT / "jobs" / "lora.toml", ["actor.hq=SG"])
    with pytest.raises(ValueError, match=r"planned with the column of sampan\.compliance"):
        verb.plan(job, PlanArguments(sites=("sg",), chips=("h20",), count=(1, 1)))
