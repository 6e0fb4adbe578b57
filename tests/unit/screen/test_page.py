"""Pages of dated rules: verdicts as letters and classes, every name escaped."""

import datetime
from dataclasses import replace

from sampan.catalog import load
from sampan.screen import report
from sampan.screen.matching import load_matcher
from sampan.screen.page import matrix_page, timeline_page
from sampan.screen.query import read_query
from well_formed import assert_well_formed

SCRIPT = "<script>alert(1)</script>"


def asked(**facts):
    matcher = load_matcher()
    query = {"date": datetime.date(2026, 2, 15), "actor_hq": "CN", "relation": "buy", **facts}
    return read_query(query, matcher.rules), matcher


def test_a_matrix_marks_every_verdict_and_escapes_chips_and_rules():
    query, matcher = asked()
    answers = report.matrix(query, [replace(load.chip("h200"), variant=SCRIPT)], ["CN", "US"], matcher)
    odd = {key: replace(answer, worst_case="prohibited") for key, answer in answers.items()}
    written = matrix_page(query, odd)
    assert SCRIPT in assert_well_formed(written)
    for answer in answers.values():
        assert f'class="verdict {answer.verdict}" title="{answer.verdict}: ' in written
    assert written.count("<small> (at worst X)</small>") == len(answers)
    late = {key: replace(answer, is_past_horizon=True) for key, answer in answers.items()}
    assert "later changes unknown" in matrix_page(query, late) and "?</b>" in matrix_page(query, late)


def test_a_timeline_draws_a_span_for_each_period_and_escapes_its_question():
    query, matcher = asked(chip="h20", site="CN")
    periods = report.timeline(query, matcher)
    written = timeline_page(replace(query, chip=replace(load.chip("h20"), variant=SCRIPT)), periods)
    text = assert_well_formed(written)
    assert SCRIPT in text
    for period in periods:
        assert f"{period.first} to {period.last}: {period.answer.verdict}" in text
    assert written.count("<rect ") == len(periods)
