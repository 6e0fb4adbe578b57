"""What dated rules say of a question: which match, which verdict follows in each jurisdiction, and what is not known.

Screening, not legal advice: no match means that none of the listed rules matched. A fact that nobody gave never counts as
met, unless the rules' own default says what is usual; what could become of the verdict if it were otherwise stands beside
it. Nothing here looks for another answer: a reply is about the facts that were given.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from sampan.catalog.records import Chip
from sampan.screen.query import DEFAULTS, ScreenQuery
from sampan.screen.rules import CONFIDENCE, NO_RULE, RELATIONS, SEVERITY, Rule, Rules, load_rules

_CHINA = ("CN", "HK", "MO")
_LABORATORIES = datetime.date(
    2026, 1, 15
)  # from then on chips for China pass through the US to be tested (91 FR, rule of that day)


@dataclass(frozen=True, slots=True)
class MatchedRule:
    """A rule that matched; `overridden_by` is the rule that took it out, where one did."""

    rule: Rule
    overridden_by: str | None = None


@dataclass(frozen=True, kw_only=True)
class ScreenResult:
    """What rules say of a question.

    Args:
        verdict: The most severe effect of binding rules that matched and were not overridden; "no_rule" where none did.
        worst_case: The most severe that it could be, given what is not known.
        confidence: Least of the rules that decided; None where none matched.
        decided: Those rules.
        rules: All binding ones that matched, overridden ones with what took them out.
        announcements: What matched and does not bind.
        unknowns: Facts that were not given, or that nobody published, and could make the verdict more severe.
        is_past_horizon: Whether the day lies after the last on which anybody looked.
    """

    verdict: str
    worst_case: str
    confidence: str | None
    by_jurisdiction: Mapping[str, str]
    decided: tuple[Rule, ...]
    rules: tuple[MatchedRule, ...]
    announcements: tuple[Rule, ...]
    unknowns: tuple[str, ...]
    horizon: datetime.date
    num_rules: int
    is_past_horizon: bool


# a condition holds (True), does not (False), or nobody knows, and then these facts would tell
_Held = tuple[bool, tuple[str, ...]]
_YES: _Held = (True, ())
_NO: _Held = (False, ())


class RuleMatcher:
    """Rules that are ready to be asked.

    What a rule asks is spelled out once (groups as sets of countries), so that thousands of questions a second are answered.
    """

    def __init__(self, rules: Rules):
        self.rules = rules
        self._compiled = [(rule, [_alternative(one, rules) for one in rule.when]) for rule in rules.rules]
        # every question says what is done: rules about other things need not be looked at
        self._by_relation = {
            relation: [
                (rule, kept)
                for rule in rules.rules
                if (
                    kept := [
                        _alternative({k: v for k, v in one.items() if k != "relation"}, rules)
                        for one in rule.when
                        if relation in one.get("relation", RELATIONS)
                    ]
                )
            ]
            for relation in RELATIONS
        }

    def __call__(self, query: ScreenQuery) -> ScreenResult:
        """Return what the rules say."""
        facts = _Facts(query, self.rules)
        sure: list[Rule] = []
        doubtful: list[tuple[Rule, tuple[str, ...]]] = []
        certain: set[str] = set()  # match whatever the missing facts are
        for rule, alternatives in self._by_relation[query.relation]:
            if not rule.is_in_force(query.date):
                continue
            matches, always, missing = _any(alternatives, facts)
            if matches:
                sure.append(rule)
                if always:
                    certain.add(rule.id)
            elif missing is not None:
                doubtful.append((rule, missing))
        return self._answer(query, sure, doubtful, certain, facts)

    def _answer(
        self,
        query: ScreenQuery,
        sure: list[Rule],
        doubtful: list[tuple[Rule, tuple[str, ...]]],
        certain: set[str],
        facts: _Facts,
    ) -> ScreenResult:
        overridden = {name: rule.id for rule in sure for name in rule.overrides}
        # an override that rests on a default may not hold
        removed_for_sure = {name for rule in sure if rule.id in certain for name in rule.overrides}
        matched = [MatchedRule(rule, overridden.get(rule.id)) for rule in sure if rule.binding]
        left = [one.rule for one in matched if one.overridden_by is None]
        verdict = _worst(left)
        decided = tuple(rule for rule in left if rule.effect == verdict)
        possible = [rule for rule in sure if rule.binding and rule.id not in removed_for_sure]
        possible += [rule for rule, _ in doubtful if rule.binding and rule.id not in removed_for_sure]
        worst = _worst(possible)
        unknowns: dict[str, None] = {}
        for rule, missing in doubtful:
            if rule.binding and rule.id not in removed_for_sure and _rank(rule.effect) > _rank(verdict):
                unknowns.update(dict.fromkeys(missing))
        for one in matched:
            if one.overridden_by and one.rule.id not in removed_for_sure and _rank(one.rule.effect) > _rank(verdict):
                unknowns.update(dict.fromkeys(facts.assumed_by(one.overridden_by, self._compiled)))
        return ScreenResult(
            verdict=verdict,
            worst_case=worst,
            confidence=min((rule.confidence for rule in decided), key=CONFIDENCE.index, default=None),
            by_jurisdiction={
                name: _worst([rule for rule in left if rule.jurisdiction == name])
                for name in sorted({rule.jurisdiction for rule in left})
            },
            decided=decided,
            rules=tuple(sorted(matched, key=lambda one: (-_rank(one.rule.effect), one.rule.id))),
            announcements=tuple(sorted((rule for rule in sure if not rule.binding), key=lambda rule: rule.id)),
            unknowns=tuple(sorted(unknowns)),
            horizon=self.rules.horizon,
            num_rules=len(self.rules.rules),
            is_past_horizon=query.date > self.rules.horizon,
        )


@cache
def load_matcher() -> RuleMatcher:
    """Return the catalogue's rules, ready to be asked."""
    return RuleMatcher(load_rules())


def _rank(effect: str) -> int:
    return -1 if effect == NO_RULE else SEVERITY.index(effect)


def _worst(rules: Iterable[Rule]) -> str:
    return max((rule.effect for rule in rules), key=_rank, default=NO_RULE)


_Condition = Callable[["_Facts"], _Held]


def _any(alternatives: list[list[_Condition]], facts: _Facts) -> tuple[bool, bool, tuple[str, ...] | None]:
    """Return whether one alternative holds, whether it holds whatever is missing, and which facts would make one hold."""
    matches = always = False
    would: tuple[str, ...] | None = None
    for conditions in alternatives:
        missing: list[str] = []
        holds, sure = True, True
        for condition in conditions:
            value, facts_missing = condition(facts)
            if facts_missing:
                sure = False
            if not value:
                holds = False
                missing += facts_missing
                if not facts_missing:
                    break
        else:
            if holds:
                matches = True
                always = always or sure
            elif would is None:
                would = tuple(missing)
            continue
    return matches, always, None if matches else would


class _Facts:
    """A query with the rules' defaults, and which facts are only supposed."""

    __slots__ = ("assumed", "values")

    def __init__(self, query: ScreenQuery, rules: Rules):
        values: dict[str, Any] = dict(vars(query))
        firm = rules.entities.get(query.actor_id) if query.actor_id else None
        if firm is not None:
            if query.entity_listed is None:
                values["entity_listed"] = firm.listed_from is not None and firm.listed_from <= query.date
            if query.actor_hq is None:
                values["actor_hq"] = firm.hq
        self.assumed = {name for name in DEFAULTS if values[name] is None}
        values |= {name: DEFAULTS[name] for name in self.assumed}
        if query.passes_us is None:
            values["passes_us"] = query.site in _CHINA and values["ships_from"] == "US" and query.date >= _LABORATORIES
            self.assumed.add("passes_us")
        if query.item is None and query.chip is not None:
            values["item"] = "chip"
        self.values = values

    def assumed_by(self, rule_id: str, compiled: list[tuple[Rule, list[list[_Condition]]]]) -> list[str]:
        """Return the supposed facts that a rule's match rests on."""
        alternatives = next(alternatives for rule, alternatives in compiled if rule.id == rule_id)
        return [fact for conditions in alternatives for condition in conditions for fact in condition(self)[1]]


def _alternative(table: Mapping[str, Any], rules: Rules) -> list[_Condition]:
    """Return the conditions of an alternative; those that need no fact beyond what is always given come first."""
    conditions: list[_Condition] = []
    for name, value in table.items():
        if name == "chip":
            conditions += [_chip_bound(bound, limit) for bound, limit in value.items()]
        else:
            conditions.append(_condition(name, value, rules))
    return conditions


def _condition(name: str, value: Any, rules: Rules) -> _Condition:
    if name in _OF_CHIP:
        field, allowed = _OF_CHIP[name], frozenset(value)
        return _test("chip", lambda chip: getattr(chip, field) in allowed)
    if name == "received_before":
        limit = value if isinstance(value, datetime.date) else datetime.date.fromisoformat(value)
        return _test(name, lambda day: day <= limit)
    if name == "actor_ids":
        allowed = frozenset(value)
        return _test("actor_id", lambda firm: firm in allowed)
    if name == "actor_tags":
        allowed = frozenset(value)
        return _test(name, lambda tags: bool(allowed & set(tags)))
    for ending, holds in _COMPARED.items():
        if name.endswith(ending):
            return _test(name.removesuffix(ending), partial(holds, value))
    if isinstance(value, bool):
        return _test(name, lambda stated: stated is value)
    allowed = rules.countries(tuple(value))
    if name.endswith("_not"):
        return _test(name.removesuffix("_not"), lambda stated: stated not in allowed)
    return _test(name, lambda stated: stated in allowed)


_OF_CHIP = {"chip_ids": "name", "chip_origin": "maker_country", "chip_vendor": "vendor"}
"""Conditions on a chip, and the fields of its record that they are about."""

_COMPARED: Mapping[str, Callable[[Any, Any], bool]] = {
    "_gte": lambda limit, stated: stated >= limit,
    "_lte": lambda limit, stated: stated <= limit,
    "_lt": lambda limit, stated: stated < limit,
}


def _test(fact: str, holds: Callable[[Any], bool]) -> _Condition:
    """Return the condition that a fact is stated, or usual, and holds."""

    def condition(facts: _Facts) -> _Held:
        value = facts.values[fact]
        if value is None:
            return False, (fact,)
        return holds(value), ((fact,) if fact in facts.assumed else ())

    return condition


def _chip_bound(bound: str, limit: Any) -> _Condition:
    name = next((bound.removesuffix(ending) for ending in ("_gte", "_lt") if bound.endswith(ending)), bound)
    value_of, words = _CHIP_FACTS[name]
    holds = partial(_COMPARED.get(bound.removeprefix(name), lambda wanted, stated: stated is wanted), limit)

    def condition(facts: _Facts) -> _Held:
        chip = facts.values["chip"]
        if chip is None:
            return False, ("chip",)
        value = value_of(chip)
        return (False, (f"{words} of {chip.label}",)) if value is None else (holds(value), ())

    return condition


def _giga(value: float | None) -> float | None:
    return None if value is None else value / 1e9


_CHIP_FACTS: Mapping[str, tuple[Callable[[Chip], Any], str]] = {
    "tpp": (lambda chip: chip.tpp, "total processing performance"),
    "pd": (lambda chip: chip.performance_density, "performance density"),
    "mem_bw_gbs": (lambda chip: _giga(chip.memory.bytes_per_s), "memory bandwidth"),
    "interconnect_gbs": (lambda chip: _giga(chip.scale_up.bytes_per_s), "bandwidth between chips"),
    "datacenter_marketed": (lambda chip: chip.is_datacenter_marketed, "market (data centre or not)"),
}
