"""How a job lies on machines: from a row of a plan, or from what was asked for; and what the plan says it costs."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampan import documents
from sampan.catalog import load
from sampan.catalog.records import Chip
from sampan.errors import BadDocumentError, LaunchError, UsageError
from sampan.job import Job
from sampan.launch.arguments import USUAL_CHIPS_PER_NODE, LaunchArguments
from sampan.units import format_seconds


@dataclass(frozen=True, kw_only=True)
class LaunchLayout:
    """Machines, the ranks on each, and the settings that put a job on them.

    Args:
        settings: `--set` texts of `sampan train`.
        chip: Of the plan's row; None where nothing was planned.
        planned: What the plan says of it, in lines: chips, time, money, energy, what they rest on.
    """

    framework: str
    num_nodes: int
    ranks_per_node: int
    settings: tuple[str, ...]
    planned: tuple[str, ...]
    chip: Chip | None = None

    @property
    def num_ranks(self) -> int:
        """Processes that share a step, one for each chip."""
        return self.num_nodes * self.ranks_per_node


def layout_of(job: Job, options: LaunchArguments) -> LaunchLayout:
    """Return how a job is launched.

    Raises:
        UsageError: A row is asked, and no plan is given.
        LaunchError: There is no such row, it is another job's, training cannot run it, or it cannot lie on such machines.
    """
    if options.plan is None:
        if options.row is not None:
            raise UsageError("--row is a row of a plan, and none is given: --from PLAN.json names it")
        return _as_asked(job, options)
    row = read_row(options.plan, options.row or 1, job)
    chip = load.chip(row["chip"])
    return _planned(job, row, chip, options)


def _as_asked(job: Job, options: LaunchArguments) -> LaunchLayout:
    nodes = options.nodes or 1
    ranks = options.chips_per_node or (1 if options.to == "local" else USUAL_CHIPS_PER_NODE)
    settings = list(_parallel(job.place.framework, nodes * ranks, None))
    for name in job.train.stages:
        stage = getattr(job.stage, name)
        if stage.grad_accum_steps % (nodes * ranks):
            rows = stage.micro_batch_size * stage.grad_accum_steps
            raise LaunchError(
                f"a step of stage {name} cannot be shared by {nodes * ranks} chips",
                f"stage.{name}.grad_accum_steps is {stage.grad_accum_steps}, and each takes as many micro-batches",
                f"plan it, which chooses them: sampan plan JOB --count {nodes * ranks} --json plan.json; or --set "
                f"stage.{name}.grad_accum_steps={nodes * ranks}"
                + ("" if rows % (nodes * ranks) else f" --set stage.{name}.micro_batch_size={rows // (nodes * ranks)}"),
            )
    said = "Time, money and energy are not known: no plan was given (--from PLAN.json)."
    return LaunchLayout(
        framework=job.place.framework, num_nodes=nodes, ranks_per_node=ranks, settings=tuple(settings), planned=(said,)
    )


def read_row(path: Path, number: int, job: Job) -> Mapping[str, Any]:
    """Return a row of a plan that `sampan plan JOB --json` wrote.

    Raises:
        LaunchError: The file is no plan, is of another job, or has no such row, or training cannot run the row.
    """
    again = "sampan plan JOB --json PLAN.json, with the same --set"
    try:
        plan = documents.parse_json(documents.read_text(path))
    except FileNotFoundError as error:
        raise LaunchError(f"there is no plan `{path}`", (), f"make one: {again}") from error
    except (OSError, BadDocumentError) as error:
        raise LaunchError(f"the plan `{path}` cannot be read", str(error), f"make it again: {again}") from error
    if not isinstance(plan, dict) or plan.get("what") != "sampan plan":
        raise LaunchError(f"`{path}` is not a plan of `sampan plan JOB --json`", (), f"make one: {again}")
    if plan.get("job_hash") != job.training_hash():
        raise LaunchError(
            f"the plan `{path}` was made for another job",
            (
                f"the plan is of `{plan.get('job')}` with settings of hash {str(plan.get('job_hash') or 'none')[:12]}",
                f"the settings of this job, [plan], [actor] and `out` apart, have hash {job.training_hash()[:12]}",
            ),
            f"plan it again: {again}",
        )
    rows = {row["rank"]: row for row in plan["rows"]}
    if number not in rows:
        has = f"it has rows 1 to {len(rows)}" if rows else "it has no rows"
        raise LaunchError(f"the plan `{path}` has no row {number}", has, "choose one by its first column: --row 1")
    row = rows[number]
    if why := row["not_runnable"]:
        can = [rank for rank, other in rows.items() if not other["not_runnable"]]
        hint = f"--row {can[0]} is the first that it can run" if can else f"plan without --all: {again}"
        raise LaunchError(f"row {number} of `{path}` cannot be trained", why, hint)
    return row


def _planned(job: Job, row: Mapping[str, Any], chip: Chip, options: LaunchArguments) -> LaunchLayout:
    count = row["num_chips"]
    nodes, ranks = _machines(count, chip, options)
    settings = [f"place.framework={row['framework']}", f"place.device={chip.device}"]
    layouts: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for stage in row["stages"]:
        layouts[re.sub(r" at \d+ px$", "", stage["name"])].append(stage["layout"])
    zero_stages = set()
    stages = [name for name in job.train.stages if name in layouts]
    if not stages:
        raise LaunchError("the plan trains nothing", "it is of the preparation alone", "plan it without --stages")
    if len(stages) < len(job.train.stages):  # the others have no layout, and may not fit
        settings.append(f"train.stages={json.dumps(stages, separators=(',', ':'))}")
    for name in stages:
        # a stage has one micro-batch for all its sizes: the one that fits the largest of them
        micro = min(layout["micro_batch"] for layout in layouts[name])
        layout = next(layout for layout in layouts[name] if layout["micro_batch"] == micro)
        settings.append(f"stage.{name}.micro_batch_size={micro}")
        settings.append(f"stage.{name}.grad_accum_steps={layout['dp'] * layout['accum']}")
        again = any(layout["recompute"] == "full" for layout in layouts[name])
        if hasattr(getattr(job.stage, name), "recompute"):
            settings.append(f"stage.{name}.recompute={str(again).lower()}")
        zero_stages |= {layout["zero_stage"] for layout in layouts[name]}
    settings += _parallel(row["framework"], count, max(zero_stages, default=0))
    return LaunchLayout(
        framework=row["framework"], num_nodes=nodes, ranks_per_node=ranks, settings=tuple(settings), chip=chip,
        planned=tuple(_cost_lines(row, chip)),
    )  # fmt: skip


def _machines(count: int, chip: Chip, options: LaunchArguments) -> tuple[int, int]:
    """Return how many machines there are, and how many chips of each are taken."""
    per_node = options.chips_per_node or (chip.server.num_chips if chip.server else None) or USUAL_CHIPS_PER_NODE
    if options.to == "local":
        per_node = options.chips_per_node or count
    nodes = options.nodes or -(-count // per_node)
    ranks, left = divmod(count, nodes)
    if left or not ranks or (ranks > per_node):
        why = f"{count} chips are not {nodes} times as many" if left or not ranks else f"a machine has {per_node} chips"
        raise LaunchError(
            f"{count} x {chip.label} cannot lie on {nodes} {'machine' if nodes == 1 else 'machines'}", why,
            f"--nodes {-(-count // per_node)}, or --chips-per-node N",
        )  # fmt: skip
    return nodes, ranks


def _parallel(framework: str, ranks: int, zero_stage: int | None) -> tuple[str, ...]:
    """Return the settings of data parallel ranks: on PyTorch a plan's zero 3 divides weights and zero 0 copies them."""
    if framework != "torch" or ranks == 1 or zero_stage is None:
        return ()
    shard = ranks if zero_stage == 3 else 1
    return f"place.dp_replicate={ranks // shard}", f"place.dp_shard={shard}"


def _cost_lines(row: Mapping[str, Any], chip: Chip) -> list[str]:
    def between(span: Mapping[str, float] | None, said: Any) -> str:
        return "not known" if span is None else f"{said(span['typical'])} ({said(span['low'])} to {said(span['high'])})"

    def amount(value: float) -> str:
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

    money, energy = row["money"], between(row["energy_kwh"], amount)
    lines = [
        f"{row['num_chips']} x {chip.title}, {row['framework']}, at {row['site']}: row {row['rank']} of the plan.",
        f"Time:   {between(row['time_s'], format_seconds)}; 80 % of such predictions lie between.",
        f"Money:  {between(money['usd'], amount)} USD, {money['basis']}: {money['said']}.",
        f"Energy: {energy} kWh" + (f" ({row['energy_reason']})" if row["energy_kwh"] is None else "") + ".",
    ]
    for stage in row["stages"]:
        runs = f"{stage['num_measurements']} measurements" if stage["num_measurements"] else "no measurement"
        lines.append(f"Rests on, {stage['name']}: {runs} ({stage['basis']}); {stage['layout_in_words']}.")
    return [*lines, "Left out: start-up, checkpoints, failures and waiting in the queue."]
