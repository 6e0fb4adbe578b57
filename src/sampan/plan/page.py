"""A plan as one HTML file: the answer, charts, tables, and where every number comes from. No script, nothing loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from sampan.plan import bearing, inference
from sampan.plan.assumptions import DAY_S, HOUR_S
from sampan.plan.inference import InferenceEstimate
from sampan.plan.memory import ChipMemory
from sampan.plan.planner import Candidate, label
from sampan.plan.predict import StepPrediction
from sampan.plan.rank import PlanRow, best_sites
from sampan.plan.report import Plan
from sampan.plan.sensitivity import sensitivity, share
from sampan.plan.table import amount, best_picture_sites, between, layouts, marks, money, reasons
from sampan.report.charts import Bar, Drawing, Point, TornadoBar, bars, curves, scatter, tornado
from sampan.report.render import render
from sampan.units import UNKNOWN, format_bytes, format_seconds

_BEST = 8  # rows that are drawn
_FIRST = 15  # rows that are seen at once; the others unfold
_BASIS = {"rent": "rented", "bought": "bought and paid off", "owned": "owned: electricity alone"}


def page(plan: Plan) -> str:
    """Return the whole file."""
    # where rules differ from site to site, every site has its row
    best = list(plan.rows) if plan.query is not None else best_sites(plan.rows)
    predictions = [(row, stage.option.prediction) for row in best for stage in row.way.stages]
    used = {row.way.label for row in best} | {one.chip for one in plan.infeasible}
    return render(
        "plan/page.html",
        title=f"sampan plan: {plan.work.name}",
        plan=plan, best=best, num_seen=_FIRST, num_drawn=_BEST, num_pictures=inference.NUM_PICTURES,
        charts=_charts(plan, best) if best else {},
        rules=() if plan.query is None else bearing.lines(plan.rows, plan.query),
        pictures=best_picture_sites(plan.pictures),
        impossible=[
            *reasons(plan.infeasible),
            *(f"pictures on {one.chip} with {one.framework}: {one.reason}" for one in plan.not_made),
        ],
        chips=[chip for chip in plan.chips if label(chip) in used],
        speeds=dict.fromkeys(f"{row.way.label}, {row.way.framework}: {_rests_on(known)}" for row, known in predictions),
        basis=_BASIS, unknown=UNKNOWN, rests_on=_rests_on, rule_words=bearing.words, amount=amount, between=between,
        layouts=layouts, marks=marks, money=money,
    )  # fmt: skip


def _rests_on(prediction: StepPrediction | InferenceEstimate) -> str:
    return f"{prediction.num_measurements or ''} {prediction.basis}".strip()


def _charts(plan: Plan, best: Sequence[PlanRow]) -> dict[str, Any]:
    first: dict[str, PlanRow] = {}
    for row in best:
        first.setdefault(row.way.label, row)
    drawn = [row.way for row in first.values()][:_BEST]
    return {
        "time_and_money": _time_and_money([row for row in best if row.money.usd and row.money.usd.low > 0]),
        "scaling": _scaling(plan, best),
        "steps": _steps(drawn),
        "memory": _memory(drawn),
        "tornados": _tornados(plan, best[0]),
    }


def _time_and_money(rows: Sequence[PlanRow]) -> Drawing | None:
    if not rows:
        return None
    is_long = max(row.way.time_s.typical for row in rows) > 2 * DAY_S
    unit, size = ("days", DAY_S) if is_long else ("hours", HOUR_S)
    points = [
        Point(
            name=_name(row.way), x=time.typical, y=usd.typical, x_ends=(time.low, time.high), y_ends=(usd.low, usd.high),
            is_on_front=row.is_on_front,
        )
        for row in rows
        if (time := row.way.time_s.times(1 / size)) and (usd := row.money.usd)
    ]  # fmt: skip
    return scatter("each point is a row; joined and with intervals those that none beats in both", points, unit, "USD")


def _scaling(plan: Plan, best: Sequence[PlanRow]) -> Drawing:
    lines = []
    for key in list(dict.fromkeys((row.way.label, row.way.framework) for row in best))[:_BEST]:
        ways = sorted((way for way in plan.curves if (way.label, way.framework) == key), key=lambda way: way.count)
        lines.append((key[0], [(float(way.count), way.time_s.typical / HOUR_S) for way in ways]))
    caption = "time of the whole job; dotted where twice the chips would take half the time"
    return curves(caption, [line for line in lines if line[1]], "chips", "hours")


def _steps(ways: Sequence[Candidate]) -> Drawing:
    rows = []
    for way in ways:
        for stage in way.stages:
            seconds = stage.option.prediction.parts.items()
            parts = [(name.removesuffix("_s").replace("_", " "), value) for name, value in seconds]
            text = format_seconds(stage.option.prediction.step_s)
            rows.append(Bar(name=f"{_name(way)}: {stage.name}", parts=parts, text=text))
    return bars("seconds of an update, or of a pass where nothing is trained, by what takes them", rows)


def _memory(ways: Sequence[Candidate]) -> Drawing:
    rows = []
    for way in ways:
        fullest = max((stage.option.memory for stage in way.stages), key=lambda memory: memory.total)
        parts = [(field.name, getattr(fullest, field.name)) for field in fields(ChipMemory)]
        limit = way.chip.memory.bytes
        rows.append(Bar(name=_name(way), parts=parts, text=format_bytes(fullest.total), limit=limit))
    return bars("bytes of the fullest chip by what takes them; the line is what the chip has", rows)


def _tornados(plan: Plan, row: PlanRow) -> list[Drawing]:
    """Return a chart each of time, money and money if bought: inputs that move it, those that move it most first."""
    drawings = []
    inputs = sensitivity(row, plan.work, plan.assumptions)
    for what, field, planned in (
        ("time", "time_s", row.way.time_s),
        (f"money, {_BASIS[row.money.basis]}", "usd", row.money.usd),
        ("money, if bought", "bought_usd", row.bought.usd),
    ):
        swings = []
        for swing in inputs:
            ends = share(getattr(swing, field), planned)
            if ends is not None and max(abs(ends[0] - 1), abs(ends[1] - 1)) >= 0.005:
                text = f"{ends[0] - 1:+.0%} to {ends[1] - 1:+.0%} ({swing.ends[0]} to {swing.ends[1]})"
                swings.append(TornadoBar(name=swing.name, low=ends[0], high=ends[1], text=text))
        if swings:
            swings.sort(key=lambda bar: -abs(bar.high - bar.low))
            caption = f"{what}: what becomes of it when one input moves and the others stay"
            drawings.append(tornado(caption, swings))
    return drawings


def _name(way: Candidate) -> str:
    return f"{way.count} x {way.label}"
