"""The compliance column of a plan: what dated rules say of each row, for the actor that the job names.

`plan` and `screen` do not know each other; this module asks `screen` about a plan's rows and hands `plan` notes to print.
Sites are those that the job or the command names. No site is added, left out or moved up because rules would be milder
there, but rows that a rule restricts stand last, with the rule's name, the day from which it holds, and its source.
"""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from sampan.job import Job
from sampan.plan.rank import PlanRow, RowNote
from sampan.screen import report
from sampan.screen.matching import RuleMatcher, ScreenQuery, ScreenResult, load_matcher
from sampan.screen.query import read_query
from sampan.screen.rules import SEVERITY, Rule

_RESTRICTS = SEVERITY.index("case_by_case")  # from here on something has to be asked for, or is refused


@dataclass(frozen=True, kw_only=True)
class ComplianceColumn:
    """Asks the rules about rows of a plan, once for each chip, country and relation.

    Args:
        query: What the job says of its actor: a query without chip and site.
    """

    query: ScreenQuery
    matcher: RuleMatcher
    _results: dict[tuple[str, str, str], ScreenResult] = field(default_factory=dict)

    def result(self, row: PlanRow) -> ScreenResult:
        """Return what the rules say of a row; chips that are owned already are asked about as being operated."""
        relation = "operate" if row.money.basis == "owned" else self.query.relation
        key = row.candidate.label, row.site.country, relation
        if key not in self._results:
            query = replace(self.query, relation=relation, chip=row.candidate.chip, site=row.site.country)
            self._results[key] = self.matcher(query)
        return self._results[key]

    def note(self, row: PlanRow) -> RowNote:
        """Return a row's note: its verdict, and where it restricts the rules that decided it."""
        result = self.result(row)
        verdict, restricts = _verdict(result), is_restricted(result)
        rules = "; ".join(f"{rule.title} ({_origin(rule)})" for rule in result.decided)
        return RowNote(
            cell=verdict,
            text=f"{verdict}: {rules}" if restricts else verdict,
            document=_as_dict(result),
            is_restricted=restricts,
        )

    def lines(self, rows: Iterable[PlanRow]) -> Iterator[str]:
        """Yield of whom and of which day the rules were asked, then each result once with the rules that decided it."""
        facts = ", ".join(f"{name} {value}" for name, value in report.facts(self.query).items())
        yield f"Rules that bear on these rows ({facts}):"
        places: dict[tuple[str, tuple[str, ...]], dict[str, None]] = defaultdict(dict)
        results: dict[tuple[str, tuple[str, ...]], ScreenResult] = {}
        for row in rows:
            result = self.result(row)
            key = result.verdict, tuple(rule.id for rule in result.decided)
            results[key] = result
            places[key][f"{row.candidate.label} at {row.site.name}"] = None
        for key, result in results.items():
            rules = "; ".join(f"{rule.title} ({_origin(rule, report.standing(rule))})" for rule in result.decided)
            reason = rules or f"none of {result.num_rules} rules matched on {self.query.date}"
            worst = (
                "" if result.worst_case == result.verdict else f"; at worst, by what is not known, {result.worst_case}"
            )
            yield f"  {_verdict(result)}: {', '.join(places[key])}: {reason}{worst}"
        horizon = next((report.horizon_of(result) for result in results.values()), None)
        if horizon:
            yield f"  ? {horizon}"
        yield f"  {report.NO_ADVICE}"


def column_for(job: Job, today: datetime.date | None = None) -> ComplianceColumn | None:
    """Return the column for a job's actor; None where the job names none.

    Raises:
        PlanError: A fact of the actor cannot be one.
    """
    actor = job.actor
    if actor.hq is None:
        return None
    facts = {
        "date": actor.start or (today or datetime.date.today()), "relation": actor.relation, "actor_hq": actor.hq,
        "actor_id": actor.id, "entity_listed": actor.entity_listed, "owned_by_listed_pct": actor.owned_by_listed_pct,
        "state_funded": actor.state_funded, "ships_from": actor.ships_from, "end_use": actor.end_use,
    }  # fmt: skip
    matcher = load_matcher()
    return ComplianceColumn(query=read_query(facts, matcher.rules), matcher=matcher)


def is_restricted(result: ScreenResult) -> bool:
    """Return whether something has to be asked for, or is refused."""
    return result.verdict in SEVERITY and SEVERITY.index(result.verdict) >= _RESTRICTS


def _verdict(result: ScreenResult) -> str:
    """Return a verdict as a row's cell: "guidance_red_flag", "no_rule?" after the horizon."""
    return result.verdict + ("?" if result.is_past_horizon else "")


def _origin(rule: Rule, *standing: str) -> str:
    """Return the day from which a rule holds and where that was read: "since 2025-05-13; source: BIS guidance"."""
    return "; ".join([f"since {rule.begins}", *standing, f"source: {rule.source_title}"])


def _as_dict(result: ScreenResult) -> dict[str, Any]:
    return {
        "verdict": result.verdict, "worst_case": result.worst_case, "confidence": result.confidence,
        "is_restricted": is_restricted(result), "by_jurisdiction": dict(result.by_jurisdiction),
        "decided_by": [
            {
                "id": rule.id, "title": rule.title, "since": rule.begins.isoformat(), "source_title": rule.source_title,
                "source_url": rule.source_url or None,
            }
            for rule in result.decided
        ],
        "unknowns": list(result.unknowns), "horizon": result.horizon.isoformat(), "is_past_horizon": result.is_past_horizon,
    }  # fmt: skip
