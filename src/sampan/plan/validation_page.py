"""How wrong predictions were, as one HTML file: summaries as tables, every run as a point, and what was left out."""

from __future__ import annotations

from sampan.plan.validate import ValidationReport, ratios, summary
from sampan.report.charts import Point, scatter
from sampan.report.render import render

_TITLES = {
    "by_vendor": "By maker",
    "by_family": "By kind of model",
    "by_framework": "By software",
    "by_source": "By source",
}


def page(report: ValidationReport, title: str) -> str:
    """Return the whole file."""
    good = report.good()
    points = [
        Point(
            name=f"{run.id}: predicted {run.predicted:.4g}, measured {run.measured:.4g} {run.row['metric']}",
            x=run.measured, y=run.predicted, x_ends=(run.measured, run.measured), y_ends=(run.predicted, run.predicted),
        )
        for run in good
    ]  # fmt: skip
    caption = "every run that is judged, each in the unit of its own metric; on the line both are equal"
    return render(
        "plan/validation_page.html",
        title=title,
        report=report,
        overall={
            "predictions": summary(good),
            "one-line rule: full-recompute FLOPs at 45 % of peak": summary(run for run in report.rule if run.is_good),
            "ratios of Ascend to other chips, in published pairs": ratios(good),
        },
        chart=scatter(caption, points, "measured", "predicted", diagonal=True) if points else None,
        groups={_TITLES[name]: parts for name, parts in report.groups().items()},
    )
