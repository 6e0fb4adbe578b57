"""Answers of dated rules as one HTML file: a question over time, chips by sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sampan.report.charts import TimeSpan, timeline
from sampan.report.render import render
from sampan.screen.matching import ScreenResult
from sampan.screen.query import ScreenQuery
from sampan.screen.report import MARKS, NO_ADVICE, AnswerPeriod, facts, horizon_of, timeline_rows


def matrix_page(query: ScreenQuery, answers: Mapping[tuple[str, str], ScreenResult]) -> str:
    """Return chips by sites."""
    first = next(iter(answers.values()))
    notes = [NO_ADVICE, f"{first.num_rules} rules, looked up to {first.horizon}.", horizon_of(first)]
    return render(
        "screen/page.html",
        title="sampan screen --matrix",
        heading=_asked(query),
        verdicts=MARKS,
        answers=answers,
        chips=dict.fromkeys(chip for chip, _ in answers),
        sites=dict.fromkeys(site for _, site in answers),
        notes=filter(None, notes),
    )


def timeline_page(query: ScreenQuery, periods: Sequence[AnswerPeriod]) -> str:
    """Return a question over time: a bar of periods, and the table."""
    first, last = periods[0].first, periods[-1].last
    spans = [
        TimeSpan(
            first=period.first, last=period.last, mark=MARKS[period.answer.verdict], color=period.answer.verdict,
            title=f"{period.first} to {period.last}: {period.answer.verdict}",
        )
        for period in periods
    ]  # fmt: skip
    return render(
        "screen/page.html",
        title="sampan screen --timeline",
        heading=_asked(query, without="date"),
        verdicts=MARKS,
        chart=timeline(f"verdicts from {first} to {last}", spans),
        rows=timeline_rows(periods),
        notes=[f"{periods[0].answer.num_rules} rules, looked up to {last}. {NO_ADVICE}"],
    )


def _asked(query: ScreenQuery, without: str = "") -> str:
    return ", ".join(f"{name} {value}" for name, value in facts(query).items() if name != without)
