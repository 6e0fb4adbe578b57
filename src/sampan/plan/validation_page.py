"""How wrong predictions were, as one HTML file: summaries as tables, every run as a point, and what was left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape

from sampan.plan.charts import Point, scatter
from sampan.plan.validate import ErrorSummary, ValidationReport, ratios, summary
from sampan.report.frame import page as frame
from sampan.report.frame import table

_HEAD = ["", "runs", "median error", "mean", "nine of ten below", "bias", "80 % intervals hold"]
_TITLES = {
    "by_vendor": "By maker",
    "by_family": "By kind of model",
    "by_framework": "By software",
    "by_source": "By source",
}


def page(report: ValidationReport, title: str) -> str:
    """Return the whole file."""
    return frame(title, [f"<h1>{escape(title)}</h1>", *_body(report)])


def _body(report: ValidationReport) -> Iterator[str]:
    rule = summary(one for one in report.rule if one.is_good)
    yield '<p class="words">Errors are shares of what was measured: predicted over measured, less 1.</p>'
    yield _table(
        {
            "predictions": summary(report.good()),
            "one-line rule: full-recompute FLOPs at 45 % of peak": rule,
            "ratios of Ascend to other chips, in published pairs": ratios(report.good()),
        }
    )
    for line in report.about_the_fit():
        yield f"<p>{escape(line)}</p>"
    points = [
        Point(
            name=f"{one.id}: predicted {one.predicted:.4g}, measured {one.measured:.4g} {one.row['metric']}",
            x=one.measured, y=one.predicted, x_ends=(one.measured, one.measured), y_ends=(one.predicted, one.predicted),
        )
        for one in report.good()
    ]  # fmt: skip
    if points:
        caption = "every run that is judged, each in the unit of its own metric; on the line both are equal"
        yield "<h2>Predicted against measured</h2>"
        yield scatter(caption, points, "measured", "predicted", _mark, _mark, diagonal=True)
    for name, parts in report.groups().items():
        yield f"<h2>{escape(_TITLES[name])}</h2>"
        yield _table(parts)
    if report.skipped:
        yield f"<h2>Left out: {len(report.skipped)} runs</h2>"
        yield table([["run", "why"], *[[name, reason] for name, reason in report.skipped]], ["", "wrap"])


def _table(parts: Mapping[str, ErrorSummary]) -> str:
    return table([_HEAD, *(_row(name, part) for name, part in parts.items())], ["wrap", *["number"] * 6])


def _row(name: str, part: ErrorSummary) -> list[str]:
    values = (part.median_abs_rel_err, part.mean_abs_rel_err, part.p90_abs_rel_err)
    said = ["" if value is None else f"{value:.1%}" for value in values]
    bias = "" if part.bias is None else f"{part.bias:+.1%}"
    held = "" if part.coverage_80 is None else f"{part.coverage_80:.0%}"
    return [name, str(part.count), *said, bias, held]


def _mark(value: float) -> str:
    return f"{value:,.6g}" if value < 1e6 else f"{value:.0e}"
