"""Which dated rules bear on a plan's rows, for the actor of the job. See sampan.screen.matching for what an answer is.

Sites are those that the job or the command names; none is added, left out or moved up because rules would be milder there,
but rows that a rule restricts stand last, with its name.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator
from dataclasses import replace

from sampan.job import Job
from sampan.plan.rank import PlanRow
from sampan.screen import report
from sampan.screen.matching import ScreenQuery, ScreenResult
from sampan.screen.query import question
from sampan.screen.rules import SEVERITY

_RESTRICTS = SEVERITY.index("case_by_case")  # from here on something has to be asked for, or is refused
_OWNED = "operate"


def actor_query(job: Job, today: datetime.date | None = None) -> ScreenQuery | None:
    """Return what the job says of its actor, as a question without chip and site; None where it names none.

    Raises:
        PlanError: A fact cannot be one.
    """
    actor = job.actor
    if actor.hq is None:
        return None
    known, _ = report.load()
    given = {
        "date": actor.start or (today or datetime.date.today()), "relation": actor.relation, "actor_hq": actor.hq,
        "actor_id": actor.id, "entity_listed": actor.entity_listed, "owned_by_listed_pct": actor.owned_by_listed_pct,
        "state_funded": actor.state_funded, "ships_from": actor.ships_from, "end_use": actor.end_use,
    }  # fmt: skip
    return question(given, known)


def screened(rows: Iterable[PlanRow], query: ScreenQuery) -> list[PlanRow]:
    """Return rows with what rules say of them: of chips that are owned already, of operating them."""
    _, screen = report.load()
    answers: dict[tuple[str, str, str], ScreenResult] = {}
    found = []
    for row in rows:
        relation = _OWNED if row.money.basis == "owned" else query.relation
        key = row.way.label, row.site.country, relation
        if key not in answers:
            answers[key] = screen(replace(query, relation=relation, chip=row.way.chip, site=row.site.country))
        found.append(replace(row, answer=answers[key], is_restricted=is_restricted(answers[key])))
    return found


def is_restricted(answer: ScreenResult) -> bool:
    """Return whether something has to be asked for, or is refused."""
    return answer.verdict in SEVERITY and SEVERITY.index(answer.verdict) >= _RESTRICTS


def word(answer: ScreenResult) -> str:
    """Return a verdict as a row's cell: "guidance_red_flag", "no_rule?" after the horizon."""
    return answer.verdict + ("?" if answer.is_past_horizon else "")


def words(answer: ScreenResult) -> str:
    """Return a verdict with the names of the rules that restrict, if some do."""
    if not is_restricted(answer):
        return word(answer)
    return f"{word(answer)}: {'; '.join(rule.title for rule in answer.decided)}"


def lines(rows: Iterable[PlanRow], query: ScreenQuery) -> Iterator[str]:
    """Yield what rules say of rows: of whom and when it was asked, then each answer once, with the rules that decided it."""
    rows = list(rows)
    asked = ", ".join(f"{name} {value}" for name, value in report.facts(query).items())
    yield f"Rules that bear on these rows ({asked}):"
    seen: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    answers: dict[tuple[str, tuple[str, ...]], ScreenResult] = {}
    for row in rows:
        if row.answer is not None:
            key = row.answer.verdict, tuple(rule.id for rule in row.answer.decided)
            answers[key] = row.answer
            where = f"{row.way.label} at {row.site.name}"
            if where not in seen.setdefault(key, []):
                seen[key].append(where)
    for key, places in seen.items():
        answer = answers[key]
        names = "; ".join(f"{rule.title} ({report.standing(rule)})" for rule in answer.decided)
        said = names or f"none of {answer.num_rules} rules matched on {query.date}"
        worst = "" if answer.worst_case == answer.verdict else f"; at worst, by what is not known, {answer.worst_case}"
        yield f"  {word(answer)}: {', '.join(places)}: {said}{worst}"
    found = next(iter(answers.values()), None)
    horizon = None if found is None else report.horizon_of(found)
    if horizon:
        yield f"  ? {horizon}"
    yield f"  {report.NO_ADVICE}"
