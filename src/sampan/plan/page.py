"""A plan as one HTML file: the answer, charts, tables, and where every number comes from. No script, nothing loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from sampan.plan import inference
from sampan.plan.cost import DAY_S, HOUR_S
from sampan.plan.memory import ChipMemory
from sampan.plan.planner import Candidate
from sampan.plan.rank import PlanRow, best_inference_sites, best_sites
from sampan.plan.report import Plan
from sampan.plan.sensitivity import sensitivity, share
from sampan.plan.table import amount, between, layouts, marks, money, reasons
from sampan.report.charts import Bar, Drawing, Point, TornadoBar, bars, curves, scatter, tornado
from sampan.report.render import render
from sampan.units import UNKNOWN, format_bytes, format_seconds

_BEST = 8  # rows that are drawn
_FIRST = 15  # rows that are seen at once; the others unfold
_BASIS = {"rent": "rented", "bought": "bought and paid off", "owned": "owned: electricity alone"}


def page(plan: Plan) -> str:
    """Return the whole file."""
    # where rules differ from site to site, every site has its row
    best = list(plan.rows) if plan.notes_on_rows else best_sites(plan.rows)
    used = {row.candidate.label for row in best} | {one.chip for one in plan.infeasible}
    return render(
        "plan/page.html",
        title=f"sampan plan: {plan.work.name}",
        plan=plan, best=best, num_seen=_FIRST, num_drawn=_BEST, num_pictures=inference.NUM_PICTURES,
        charts=_charts(plan, best) if best else {},
        pictures=best_inference_sites(plan.pictures),
        impossible=[
            *reasons(plan.infeasible),
            *(f"pictures on {one.chip} with {one.framework}: {one.reason}" for one in plan.not_made),
        ],
        chips=[chip for chip in plan.chips if chip.label in used],
        speeds=dict.fromkeys(
            f"{row.candidate.label}, {row.candidate.framework}: {stage.prediction.rests_on}"
            for row in best for stage in row.candidate.stages
        ),
        basis=_BASIS, unknown=UNKNOWN, amount=amount, between=between,
        layouts=layouts, marks=marks, money=money,
    )  # fmt: skip


def _charts(plan: Plan, best: Sequence[PlanRow]) -> dict[str, Any]:
    first: dict[str, PlanRow] = {}
    for row in best:
        first.setdefault(row.candidate.label, row)
    drawn = [row.candidate for row in first.values()][:_BEST]
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
    is_long = max(row.candidate.time_s.typical for row in rows) > 2 * DAY_S
    unit, size = ("days", DAY_S) if is_long else ("hours", HOUR_S)
    points = [
        Point(
            name=_name(row.candidate), x=time.typical, y=usd.typical,
            x_ends=(time.low, time.high), y_ends=(usd.low, usd.high), is_on_front=row.is_on_front,
        )
        for row in rows
        if (time := row.candidate.time_s.times(1 / size)) and (usd := row.money.usd)
    ]  # fmt: skip
    return scatter("each point is a row; joined and with intervals those that none beats in both", points, unit, "USD")


def _scaling(plan: Plan, best: Sequence[PlanRow]) -> Drawing:
    lines = []
    keys = list(dict.fromkeys((row.candidate.label, row.candidate.framework) for row in best))[:_BEST]
    labels = [label for label, _ in keys]
    for key in keys:
        candidates = sorted(
            (candidate for candidate in plan.curves if (candidate.label, candidate.framework) == key),
            key=lambda candidate: candidate.count,
        )
        name = key[0] if labels.count(key[0]) == 1 else ", ".join(key)
        lines.append((name, [(float(candidate.count), candidate.time_s.typical / HOUR_S) for candidate in candidates]))
    caption = "time of the whole job; dotted where twice the chips would take half the time"
    return curves(caption, [line for line in lines if line[1]], "chips", "hours")


def _steps(candidates: Sequence[Candidate]) -> Drawing:
    rows = []
    for candidate in candidates:
        for stage in candidate.stages:
            seconds = stage.prediction.parts.items()
            parts = [(name.removesuffix("_s").replace("_", " "), value) for name, value in seconds]
            text = format_seconds(stage.prediction.step_s)
            rows.append(Bar(name=f"{_name(candidate)}: {stage.name}", parts=parts, text=text))
    return bars("seconds of an update, or of a pass where nothing is trained, by what takes them", rows)


def _memory(candidates: Sequence[Candidate]) -> Drawing:
    rows = []
    for candidate in candidates:
        fullest = max((stage.memory for stage in candidate.stages), key=lambda memory: memory.total)
        parts = [(field.name, getattr(fullest, field.name)) for field in fields(ChipMemory)]
        limit = candidate.chip.memory.bytes
        text = f"{format_bytes(fullest.total)} of {format_bytes(limit)}"
        rows.append(Bar(name=_name(candidate), parts=parts, text=text, limit=limit))
    return bars("bytes of the fullest chip by what takes them; the line is what the chip has", rows)


def _tornados(plan: Plan, row: PlanRow) -> list[Drawing]:
    """Return a chart each of time, money and money if bought: inputs that move it, those that move it most first."""
    drawings = []
    inputs = sensitivity(row, plan.work, plan.assumptions)
    for what, field, planned in (
        ("time", "time_s", row.candidate.time_s),
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


def _name(candidate: Candidate) -> str:
    return f"{candidate.count} x {candidate.label}"
