"""The page about errors: summaries, a point for each judged run, what was left out; also where nothing was judged."""

from sampan.plan.validate import RunPrediction, ValidationReport
from sampan.plan.validation_page import page
from well_formed import assert_well_formed

ROW = {
    "quality": "ok", "vendor": "nvidia", "family": "dit", "framework": "torch", "source_title": "<b>A paper</b>",
    "metric": "step_s", "pair_id": "", "chip": "h100_sxm",
}  # fmt: skip


def judged(name, predicted, **changed):
    return RunPrediction(
        id=name, predicted=predicted, low=predicted / 2, high=predicted * 2, measured=2.0, row={**ROW, **changed}
    )


def report(*found, skipped=()):
    return ValidationReport(judged=found, rule=found, skipped=skipped)


def test_every_judged_run_is_a_point_and_every_other_is_left_out():
    text = page(
        report(
            judged("a", 3.0), judged("b", 1.0), judged("doubtful", 9.0, quality="suspect"), skipped=(("c<", "no chip"),)
        ),
        "How wrong",
    )
    assert_well_formed(text)
    assert text.count("<circle") == 2
    assert "a: predicted 3, measured 2 step_s" in text
    assert "doubtful" not in text
    assert "<h2>Left out: 1 runs</h2>" in text
    assert "<td>c&lt;</td>" in text
    assert "&lt;b&gt;A paper&lt;/b&gt;" in text
    assert text.count("<b>") == 0
    assert (
        '<td class="wrap">predictions</td><td class="number">2</td><td class="number">50.0%</td>'
        '<td class="number">50.0%</td>'
    ) in text


def test_nothing_judged_has_no_drawing():
    text = page(report(), "Nothing")
    assert_well_formed(text)
    assert "<svg" not in text
    assert "Left out" not in text
    assert '<td class="wrap">predictions</td><td class="number">0</td><td class="number"></td>' in text


def test_one_run_alone_is_drawn():
    text = page(report(judged("a", 2.0)), "One")
    assert_well_formed(text)
    assert text.count("<circle") == 1
