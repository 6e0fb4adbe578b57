"""Answers of dated rules as people read them: one question, a file of cases, a question over time, chips by sites.

Wording is part of it. Nothing is called more than what a rule's text says; where none matched, that is said, with how many
were asked and on which day. Rules that only the press reported say so; days after the horizon say that later changes are
unknown.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from sampan.catalog import load as catalog
from sampan.catalog.records import Chip
from sampan.errors import SampanError
from sampan.screen.matching import RuleMatcher, ScreenResult
from sampan.screen.query import COUNTRIES, ScreenQuery, read_query
from sampan.screen.rules import NO_RULE, Rule, Rules

NO_ADVICE = "Screening of published rules, not legal advice; read the sources and ask counsel before you act."
MARKS = {
    NO_RULE: ".", "permitted": "p", "notification": "n", "revenue_share": "r", "guidance_red_flag": "g",
    "case_by_case": "c", "licence_required": "L", "presumption_of_denial": "D", "prohibited": "X",
}  # fmt: skip
"""A letter a verdict, so that a table's meaning does not hang on colour."""
FIRST_DAY = datetime.date(2022, 1, 1)


def headline(answer: ScreenResult, date: datetime.date) -> str:
    """Return the verdict in a line."""
    if answer.verdict == NO_RULE:
        return f"none of {answer.num_rules} rules matched on {date}"
    return f"{answer.verdict} (confidence {answer.confidence})"


def horizon_of(answer: ScreenResult) -> str | None:
    """Return what is to be said of a day after the last on which anybody looked."""
    return f"as known on {answer.horizon}; later changes unknown" if answer.is_past_horizon else None


def as_dict(query: ScreenQuery, answer: ScreenResult) -> dict[str, Any]:
    """Return an answer as JSON can hold it."""
    return {
        "query": facts(query),
        "verdict": answer.verdict,
        "worst_case": answer.worst_case,
        "confidence": answer.confidence,
        "by_jurisdiction": dict(answer.by_jurisdiction),
        "rules": [{**_rule(one.rule), "overridden_by": one.overridden_by} for one in answer.rules],
        "announcements": [_rule(rule) for rule in answer.announcements],
        "unknowns": list(answer.unknowns),
        "horizon": answer.horizon.isoformat(),
        "is_past_horizon": answer.is_past_horizon,
        "num_rules": answer.num_rules,
        "note": NO_ADVICE,
    }


def facts(query: ScreenQuery) -> dict[str, Any]:
    """Return the facts that were given, as they were."""
    found: dict[str, Any] = {}
    for one in fields(query):
        value = getattr(query, one.name)
        if value is not None:
            if isinstance(value, Chip):
                value = value.label
            found[one.name] = value.isoformat() if isinstance(value, datetime.date) else value
    return found


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id, "jurisdiction": rule.jurisdiction, "title": rule.title, "effect": rule.effect,
        "severity": rule.severity, "since": rule.begins.isoformat(),
        "until": None if rule.effective_to is None else rule.effective_to.isoformat(), "status": rule.status,
        "binding": rule.binding, "confidence": rule.confidence, "summary": rule.summary, "note": rule.note,
        "source_title": rule.source_title, "source_url": rule.source_url or None,
        "source_date": rule.source_date.isoformat(), "checked": rule.checked.isoformat(), "verify": rule.verify,
    }  # fmt: skip


def lines(query: ScreenQuery, answer: ScreenResult) -> Iterator[str]:
    """Yield an answer as text."""
    yield headline(answer, query.date)
    if answer.worst_case != answer.verdict:
        yield f"at worst, by what is not known: {answer.worst_case}"
    if horizon := horizon_of(answer):
        yield horizon
    for name, verdict in answer.by_jurisdiction.items():
        yield f"  {name}: {verdict}"
    left = [one.rule for one in answer.rules if one.overridden_by is None]
    if left:
        yield ""
        yield "rules that matched"
        for rule in left:
            yield from _described(rule)
    taken_out = [one for one in answer.rules if one.overridden_by is not None]
    if taken_out:
        yield ""
        yield "matched, and taken out by another"
        for one in taken_out:
            yield f"  {one.rule.title} ({one.rule.effect}): {one.overridden_by} says what holds instead"
    if answer.announcements:
        yield ""
        yield "announced, proposed or reported; does not bind"
        for rule in answer.announcements:
            yield from _described(rule)
    if answer.unknowns:
        yield ""
        yield f"not known, and could make it more severe: {', '.join(answer.unknowns)}"
    yield ""
    yield f"{answer.num_rules} rules, looked up to {answer.horizon}. {NO_ADVICE}"


def _described(rule: Rule) -> Iterator[str]:
    severity = f", {rule.severity}" if rule.severity else ""
    until = f" until {rule.effective_to}" if rule.effective_to else ""
    yield f"  {rule.effect}{severity}: {rule.title}"
    yield f"    {rule.jurisdiction}, since {rule.begins}{until}; {standing(rule)}"
    yield f"    {rule.summary}"
    yield f"    source: {rule.source_title}, {rule.source_date}{', ' + rule.source_url if rule.source_url else ''}"


def standing(rule: Rule) -> str:
    """Return how well a rule is known."""
    said = "reported, no published text" if rule.status == "reported" else rule.status.replace("_", " ")
    checked = "; read the current text first" if rule.verify else ""
    return f"{said}; confidence {rule.confidence}{checked}"


# ------------------------------------------------------------------------------------------------------------ timeline


@dataclass(frozen=True, kw_only=True)
class AnswerPeriod:
    """Days on which the answer to a question was the same."""

    first: datetime.date
    last: datetime.date
    answer: ScreenResult


def timeline(query: ScreenQuery, matcher: RuleMatcher, first: datetime.date = FIRST_DAY) -> list[AnswerPeriod]:
    """Return how the answer to a question changed, from the first day to the horizon."""
    horizon = matcher.rules.horizon
    days = {first}
    for rule in matcher.rules.rules:
        days.add(rule.begins)
        if rule.effective_to is not None:
            days.add(rule.effective_to + datetime.timedelta(days=1))
    firms = matcher.rules.entities.values()
    days |= {firm.listed_from for firm in firms if firm.listed_from is not None}
    found: list[AnswerPeriod] = []
    ordered = sorted(day for day in days if first <= day <= horizon)
    for day, after in zip(ordered, [*ordered[1:], horizon + datetime.timedelta(days=1)], strict=True):
        answer = matcher(replace(query, date=day))
        last = after - datetime.timedelta(days=1)
        if found and _same(found[-1].answer, answer):
            found[-1] = replace(found[-1], last=last)
        else:
            found.append(AnswerPeriod(first=day, last=last, answer=answer))
    return found


def _same(one: ScreenResult, other: ScreenResult) -> bool:
    return (one.verdict, [rule.id for rule in one.decided]) == (other.verdict, [rule.id for rule in other.decided])


def timeline_rows(spans: Sequence[AnswerPeriod]) -> list[list[str]]:
    """Return a timeline as a table with its head."""
    rows = [["from", "to", "verdict", "decided by"]]
    for span in spans:
        decided = "; ".join(f"{rule.title} ({standing(rule)})" for rule in span.answer.decided)
        none = f"none of {span.answer.num_rules} rules matched"
        rows.append([str(span.first), str(span.last), span.answer.verdict, decided or none])
    return rows


# -------------------------------------------------------------------------------------------------------------- matrix


def matrix(
    query: ScreenQuery, chips: Sequence[Chip], sites: Sequence[str], matcher: RuleMatcher
) -> dict[tuple[str, str], ScreenResult]:
    """Return the answer for every chip at every site."""
    return {(chip.label, site): matcher(replace(query, chip=chip, site=site)) for chip in chips for site in sites}


# --------------------------------------------------------------------------------------------------------------- check


def check(known: Rules) -> list[str]:
    """Return what is wrong with the rules as a whole, beyond what reading them already refuses."""
    found = []
    names = known.by_id
    for rule in known.rules:
        found += [
            f"{rule.id}: it overrides `{name}`, which is not a rule" for name in rule.overrides if name not in names
        ]
        if rule.id in rule.overrides:
            found.append(f"{rule.id}: it overrides itself")
        if (
            rule.effective_to is not None
            and rule.begins > rule.effective_to
            and rule.status not in ("rescinded", "withdrawn")
        ):
            found.append(f"{rule.id}: it ends before it has to be followed, and is neither rescinded nor withdrawn")
        if rule.binding and rule.status in ("proposed", "withdrawn", "rescinded"):
            found.append(f"{rule.id}: it is {rule.status} and binds")
        if rule.effective_from > rule.checked:
            found.append(f"{rule.id}: it begins after the day on which it was last checked, {rule.checked}")
        found += [f"{rule.id}: {said}" for one in rule.when for said in _contradictions(one, known)]
        found += [
            f"{rule.id} and {name} override each other" for name in rule.overrides
            if name in names and rule.id in names[name].overrides and rule.id < name
        ]  # fmt: skip
        found += _examples(rule, known)
    return found


def _contradictions(when: Mapping[str, Any], known: Rules) -> Iterator[str]:
    """Yield why no question can meet an alternative: bounds that leave nothing, places in and out at once, unknown names."""
    chip = when.get("chip", {})
    for bounds in (chip, when):
        for name, low in bounds.items():
            fact = name.removesuffix("_gte")
            high = bounds.get(f"{fact}_lt") if name != fact else None
            if high is not None and low >= high:
                yield f"no value of `{fact}` is at least {low} and below {high}"
    for name in ("site", "ships_from", "actor_hq"):
        if name in when and f"{name}_not" in when:
            inside, outside = (known.countries(tuple(when[key])) for key in (name, f"{name}_not"))
            if inside <= outside:
                yield f"no `{name}` is one of those it names and none of those it leaves out"
    chips = catalog.chips()
    yield from (f"`{name}` is not a chip of the catalogue" for name in when.get("chip_ids", ()) if name not in chips)
    makers = {one.vendor for one in chips.values()}
    yield from (
        f"`{name}` makes no chip of the catalogue" for name in when.get("chip_vendor", ()) if name not in makers
    )
    for name in (
        "site",
        "site_not",
        "site_from",
        "actor_hq",
        "actor_hq_not",
        "customer_hq",
        "ships_from",
        "ships_from_not",
    ):
        strange = [word for word in known.countries(tuple(when.get(name, ()))) if word not in COUNTRIES]
        yield from (f"`{word}` of `{name}` is not a country" for word in sorted(strange))


def _examples(rule: Rule, known: Rules) -> Iterator[str]:
    """Yield what is wrong with a rule's own two queries."""
    alone = RuleMatcher(replace(known, rules=(replace(rule, overrides=()),)))
    if rule.effective_to is not None and rule.begins > rule.effective_to:
        alone = RuleMatcher(replace(known, rules=(replace(rule, compliance_from=None, overrides=()),)))
    for name, expected in (("matches", True), ("differs", False)):
        try:
            answer = alone(read_query(getattr(rule, name), known))
        except SampanError as error:
            yield f"{rule.id}: its query `{name}` cannot be asked: {error.what}"
            continue
        if bool(answer.rules or answer.announcements) is not expected:
            yield f"{rule.id}: its query `{name}` {'does not match' if expected else 'matches'}"
