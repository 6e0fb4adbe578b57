"""Dated rules: their own examples, the days on which they matter, what is overridden and what is unknown."""

import datetime
from dataclasses import fields, replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.catalog import load as catalog
from sampan.screen.matching import RuleMatcher
from sampan.screen.query import END_USES, ScreenQuery, read_query
from sampan.screen.report import as_dict, check, facts, headline, lines, timeline
from sampan.screen.rules import CONFIDENCE, NO_RULE, RELATIONS, SEVERITY, Rule, load_rules

KNOWN = load_rules()
SCREEN = RuleMatcher(KNOWN)
EXAMPLES = Path(__file__).resolve().parents[4] / "shared" / "data" / "screening_examples.yaml"
DAY = datetime.timedelta(days=1)
COUNTRIES = ("CN", "HK", "US", "MY", "SG", "DE", "BR", "AE", "VN", "IR", "KR", "TW", "JP")
CHIPS = (
    "h100_sxm",
    "h200",
    "h20",
    "a100_80",
    "b200",
    "rtx4090",
    "rtx4090d",
    "ascend_910b2",
    "ascend_910c",
    "mlu590",
    "l20",
    "thead_ppu",
)


def rank(verdict):
    return -1 if verdict == NO_RULE else SEVERITY.index(verdict)


def ask(**facts_of):
    return SCREEN(read_query(facts_of, KNOWN))


@cache
def chip(name):
    return catalog.chip(name)


QUERIES = st.builds(
    ScreenQuery,
    date=st.dates(datetime.date(2019, 1, 1), datetime.date(2027, 12, 31)),
    relation=st.sampled_from(RELATIONS),
    site=st.sampled_from(COUNTRIES) | st.none(),
    site_from=st.sampled_from(COUNTRIES) | st.none(),
    chip=st.sampled_from(CHIPS).map(chip) | st.none(),
    actor_hq=st.sampled_from(COUNTRIES) | st.none(),
    actor_id=st.sampled_from(sorted(KNOWN.entities)) | st.none(),
    entity_listed=st.booleans() | st.none(),
    owned_by_listed_pct=st.sampled_from([0.0, 49.0, 50.0, 60.0]) | st.none(),
    ships_from=st.sampled_from(COUNTRIES) | st.none(),
    certs_met=st.booleans() | st.none(),
    end_use=st.sampled_from(END_USES) | st.none(),
    state_funded=st.booleans() | st.none(),
    completion_pct=st.sampled_from([10.0, 30.0, 90.0]) | st.none(),
)


def only(*some: Rule):
    return RuleMatcher(replace(KNOWN, rules=some))


@pytest.mark.parametrize("rule", KNOWN.rules, ids=lambda rule: rule.id)
def test_a_rule_matches_its_own_example_and_not_the_other(rule):
    # one was rescinded before anybody had to follow it: its example is about the days between
    alone = only(replace(rule, compliance_from=None, overrides=()))
    yes, no = (alone(read_query(one, KNOWN)) for one in (rule.matches, rule.differs))
    assert yes.rules or yes.announcements
    assert not no.rules
    assert not no.announcements


def test_nothing_is_wrong_with_the_rules_as_a_whole():
    assert check(KNOWN) == []
    assert len(KNOWN.rules) == 74


@pytest.mark.skipif(not EXAMPLES.is_file(), reason="the file of questions with their answers is not beside the project")
def test_questions_with_known_answers():
    for case in yaml.safe_load(EXAMPLES.read_text(encoding="utf-8")):
        answer = SCREEN(read_query(case["query"], KNOWN))
        assert answer.verdict in (case["verdict"], *case["also_ok"]), case


@settings(max_examples=300)
@given(QUERIES)
def test_a_rule_outside_its_days_never_matters(query):
    held = RuleMatcher(replace(KNOWN, rules=tuple(rule for rule in KNOWN.rules if rule.is_in_force(query.date))))
    one, other = SCREEN(query), held(query)
    assert (one.verdict, one.worst_case, one.by_jurisdiction, one.unknowns) == (
        other.verdict, other.worst_case, other.by_jurisdiction, other.unknowns,
    )  # fmt: skip


@settings(max_examples=300)
@given(QUERIES, st.sampled_from(KNOWN.rules))
def test_adding_a_binding_rule_never_makes_a_verdict_milder_unless_it_overrides(query, rule):
    if not rule.binding or rule.overrides:
        return
    without = RuleMatcher(replace(KNOWN, rules=tuple(one for one in KNOWN.rules if one.id != rule.id)))
    assert rank(SCREEN(query).verdict) >= rank(without(query).verdict)
    assert rank(SCREEN(query).worst_case) >= rank(without(query).worst_case)


@settings(max_examples=100)
@given(QUERIES, st.randoms())
def test_the_order_of_files_never_matters(query, random):
    shuffled = list(KNOWN.rules)
    random.shuffle(shuffled)
    one, other = SCREEN(query), RuleMatcher(replace(KNOWN, rules=tuple(shuffled)))(query)
    assert (one.verdict, one.worst_case, one.by_jurisdiction, one.unknowns, one.rules, one.announcements) == (
        other.verdict, other.worst_case, other.by_jurisdiction, other.unknowns, other.rules, other.announcements,
    )  # fmt: skip


@settings(max_examples=300)
@given(QUERIES)
def test_the_worst_case_is_never_milder_and_is_told_apart_by_unknown_facts(query):
    answer = SCREEN(query)
    assert rank(answer.worst_case) >= rank(answer.verdict)
    assert bool(answer.unknowns) == (answer.worst_case != answer.verdict)
    given = facts(query)
    assert not set(answer.unknowns) & set(given), "a fact that was given is not unknown"


@settings(max_examples=300)
@given(QUERIES, st.data())
def test_a_fact_that_is_told_keeps_the_verdict_within_the_worst_case(query, data):
    answer = SCREEN(query)
    told = {
        "entity_listed": st.booleans(), "state_funded": st.booleans(), "certs_met": st.booleans(),
        "end_use": st.sampled_from(END_USES), "ships_from": st.sampled_from(COUNTRIES), "false_end_user": st.booleans(),
    }  # fmt: skip
    missing = {name: data.draw(values) for name, values in told.items() if getattr(query, name) is None}
    # a firm that rules name is on the list or not: nobody can tell otherwise
    if query.actor_id is not None:
        missing.pop("entity_listed", None)
    assert rank(SCREEN(replace(query, **missing)).verdict) <= rank(answer.worst_case)


@settings(max_examples=200)
@given(QUERIES)
def test_a_reply_is_about_the_facts_that_were_given(query):
    document = as_dict(query, SCREEN(query))
    assert document["query"] == facts(query)
    # beyond the rules' own words nothing names a chip that was not asked about
    own = {
        word for rule in KNOWN.rules for word in (rule.title, rule.summary, rule.source_title, rule.source_url, rule.id)
    }
    for line in lines(query, SCREEN(query)):
        left = line
        for words in own:
            left = left.replace(words, "") if words else left
        for name in CHIPS:
            assert name not in left or (query.chip is not None and query.chip.name == name), line


def test_nothing_is_called_more_than_it_is():
    words = ("lawful", "legally", "illegal", "is legal", "allowed")
    texts = [f"{rule.title} {rule.summary} {rule.note} {rule.binds} {rule.detail}" for rule in KNOWN.rules]
    answer = ask(date="2026-02-15", relation="buy", actor_hq="BR", chip="h100_sxm", site="BR")
    for text in (*texts, *lines(ScreenQuery(date=datetime.date(2026, 2, 15), relation="buy"), answer)):
        assert not any(word in text.lower() for word in words), text


def test_no_match_says_how_many_were_asked():
    query = read_query(
        {"date": "2025-12-20", "relation": "buy", "actor_hq": "BR", "chip": "h100_sxm", "site": "BR"}, KNOWN
    )
    answer = SCREEN(query)
    assert answer.verdict == NO_RULE
    assert answer.confidence is None
    assert headline(answer, query.date) == "none of 74 rules matched on 2025-12-20"


def test_a_rule_is_taken_out_only_where_the_other_matches():
    asked = {"date": "2026-02-15", "relation": "buy", "actor_hq": "CN", "chip": "h200", "site": "CN"}
    answer = ask(**asked, certs_met=True, ships_from="US", entity_listed=False)
    out = {one.rule.id: one.overridden_by for one in answer.rules if one.overridden_by}
    assert out["us-2023-10-17-3a090a-d5"] == "us-2026-01-15-case-by-case"
    assert answer.verdict == "case_by_case"
    unmet = ask(**asked, certs_met=False, ships_from="US", entity_listed=False)
    assert unmet.verdict == "presumption_of_denial"


def test_an_unknown_fact_of_a_chip_does_not_match_and_is_named():
    chips = catalog.chips().values()
    unknown = next(c for c in chips if c.maker_country == "US" and c.performance_density is None and c.tpp)
    base = {f.name: getattr(KNOWN.rules[0], f.name) for f in fields(Rule)}
    changed = {
        "id": "x", "effective_from": datetime.date(2020, 1, 1), "effective_to": None, "effect": "prohibited", "binding": True,
        "when": ({"relation": ["buy"], "chip": {"pd_gte": 1.0}},),
    }  # fmt: skip
    bound = Rule(**base | changed)
    answer = only(bound)(ScreenQuery(date=datetime.date(2026, 1, 1), relation="buy", chip=unknown))
    assert (answer.verdict, answer.worst_case) == (NO_RULE, "prohibited")
    assert answer.unknowns == (f"performance density of {unknown.name}",)


def test_the_confidence_is_the_least_of_the_rules_that_decided():
    answer = ask(date="2025-04-20", relation="buy", actor_hq="CN", chip="h20", site="CN")
    assert {rule.id for rule in answer.decided} == {"us-2025-04-h20-is-informed", "us-2025-04-bandwidth-is-informed"}
    assert answer.confidence == min((rule.confidence for rule in answer.decided), key=CONFIDENCE.index) == "memory"


def test_a_firm_is_listed_from_its_day_on():
    asked = {"relation": "buy", "chip": "h20", "site": "SG", "actor_id": "zhipu"}
    assert "us-entity-list-buy" not in [one.rule.id for one in ask(date="2025-01-15", **asked).rules]
    assert "us-entity-list-buy" in [one.rule.id for one in ask(date="2025-01-16", **asked).rules]


def test_a_day_after_the_horizon_is_marked():
    asked = {"relation": "buy", "actor_hq": "BR", "chip": "h100_sxm", "site": "BR"}
    within, after = (ask(date=day, **asked) for day in (KNOWN.horizon, KNOWN.horizon + DAY))
    assert (within.is_past_horizon, after.is_past_horizon) == (False, True)
    query = read_query({"date": KNOWN.horizon + DAY, **asked}, KNOWN)
    assert "as known on 2026-10-08; later changes unknown" in list(lines(query, after))


def test_press_only_rules_say_so():
    query = read_query({"date": "2025-08-20", "relation": "buy", "actor_hq": "CN", "chip": "h20", "site": "CN"}, KNOWN)
    assert any("reported, no published text" in line for line in lines(query, SCREEN(query)))


def test_a_timeline_covers_every_day_once():
    query = read_query({"date": "2026-01-01", "relation": "buy", "actor_hq": "CN", "chip": "h20", "site": "CN"}, KNOWN)
    spans = timeline(query, SCREEN)
    assert spans[0].first == datetime.date(2022, 1, 1)
    assert spans[-1].last == KNOWN.horizon
    assert all(after.first == span.last + DAY for span, after in pairwise(spans))
    for span in spans:
        for day in (span.first, span.last):
            assert SCREEN(replace(query, date=day)).verdict == span.answer.verdict
    assert [span.answer.verdict for span in spans][:3] == [NO_RULE, "licence_required", "licence_required"]


# Beside a review that is more severe on each of its days: it tells a price, and decides nothing alone.
BESIDE_ANOTHER = "us-2025-08-11-15pct"


def _ever(rule):
    return rule.effective_to is None or rule.begins <= rule.effective_to


@pytest.mark.parametrize("rule", [one for one in KNOWN.rules if one.binding and _ever(one)], ids=lambda rule: rule.id)
def test_every_binding_rule_decides_a_case(rule):
    query = read_query(rule.matches, KNOWN)
    if rule.id == "us-2023-10-17-3a090b-nac":
        # no chip of the catalogue lies in its band alone
        query = replace(query, chip=replace(chip("h100_sxm"), tpp=2500.0, performance_density=2.0))
    answer = SCREEN(query)
    assert rule.id in {one.rule.id for one in answer.rules if one.overridden_by is None}
    assert (answer.by_jurisdiction[rule.jurisdiction] == rule.effect) is (rule.id != BESIDE_ANOTHER)


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ({"chip": {"tpp_gte": 4800, "tpp_lt": 4800}}, "no value of `tpp` is at least 4800 and below 4800"),
        (
            {"site": ["CN"], "site_not": ["@D5_or_MO"]},
            "no `site` is one of those it names and none of those it leaves out",
        ),
        ({"chip_ids": ["h100"]}, "`h100` is not a chip of the catalogue"),
        ({"site": ["UK"]}, "`UK` of `site` is not a country"),
    ],
)
def test_an_alternative_that_no_question_can_meet_is_found(when, said):
    rule = replace(KNOWN.rules[0], when=(when,), overrides=())
    assert f"{rule.id}: {said}" in check(replace(KNOWN, rules=(rule,)))


def test_rules_that_take_each_other_out_are_found():
    first, second = KNOWN.rules[:2]
    both = (replace(first, overrides=(second.id,)), replace(second, overrides=(first.id,)))
    assert f"{first.id} and {second.id} override each other" in check(replace(KNOWN, rules=both))
