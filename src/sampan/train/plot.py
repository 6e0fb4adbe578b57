"""The curves of a run as one picture, drawn from its log.jsonl: a panel a stage.

Each step is pale with a smooth line on top; validation losses are points; the learning rate lies behind, on an axis of its
own without numbers. Where a process ended and another went on there is a faint line.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampan import extras, files
from sampan.checkpoint.json_files import read_rows
from sampan.errors import DataError, JobError
from sampan.job import STAGES

SMOOTHED_STEPS = 20  # of a run that is long enough; of a shorter stage a tenth of its steps
# shares, from 0 to 1, that say more than the loss does; drawn on an axis of their own where a stage has one
SHARES = ("codes_used",)
_MAX_COLUMNS = 5

Floats = NDArray[np.float64]


def draw(log: Path, picture: Path) -> None:
    """Write the curves of a run.

    Args:
        log: A run's log.jsonl; an events.jsonl beside it says where it was resumed.
        picture: The file to write, a PNG.

    Raises:
        JobError: matplotlib is not installed, or cannot be imported.
        DataError: The log is missing or holds no step.
    """
    extras.require("logs", "matplotlib", failed=f"`{picture}` cannot be drawn", error=JobError)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    stages = read(log)
    resumed = _resumed(log.with_name("events.jsonl"))
    columns = min(len(stages), _MAX_COLUMNS)
    rows = math.ceil(len(stages) / columns)
    figure = Figure(figsize=(3.2 * columns + 0.4, 2.9 * rows), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for number, (name, values) in enumerate(stages.items()):
        panel = figure.add_subplot(rows, columns, number + 1)
        _panel(panel, name, values, resumed.get(name, ()), is_first=number % columns == 0)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    files.write_bytes(picture, buffer.getvalue())


def read(log: Path) -> dict[str, dict[str, Floats]]:
    """Return, by stage in the order of training, each number's steps and values (2, entries); null is NaN.

    Raises:
        DataError: The log is missing or holds no step.
    """
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    try:
        rows = [row for row in read_rows(log) if {"stage", "step"} <= row.keys()]
    except OSError as error:
        raise DataError(f"`{log}` cannot be read", str(error)) from error
    for row in rows:
        columns = found.setdefault(str(row["stage"]), {})
        for key, value in row.items():
            if key not in ("stage", "step", "skipped") and (value is None or isinstance(value, int | float)):
                columns.setdefault(key, []).append((row["step"], math.nan if value is None else value))
    found = {name: columns for name, columns in found.items() if "loss" in columns}
    if not found:
        raise DataError(f"`{log}` holds no step", "nothing has been trained yet")
    order = {name: rank for rank, name in enumerate(STAGES)}
    names = sorted(found, key=lambda name: order.get(name, len(order)))
    return {name: {key: np.array(v, np.float64).T for key, v in found[name].items()} for name in names}


def smooth(values: Floats, width: int) -> Floats:
    """Return the mean of the last `width` finite values at each place; NaN where there is none."""
    is_finite = np.isfinite(values)
    sums = np.cumsum(np.where(is_finite, values, 0.0))
    counts = np.cumsum(is_finite)
    sums[width:], counts[width:] = sums[width:] - sums[:-width], counts[width:] - counts[:-width]
    return np.divide(sums, counts, out=np.full(len(values), np.nan), where=counts > 0)


def _panel(panel: Any, name: str, values: Mapping[str, Floats], resumed: Sequence[int], *, is_first: bool) -> None:
    steps, losses = values["loss"]
    width = max(1, min(SMOOTHED_STEPS, len(losses) // 10))
    soft = smooth(losses, width)
    for step in resumed:
        panel.axvline(step, color="0.6", linewidth=0.8, linestyle=(0, (2, 3)), zorder=0)
    handles = []
    if "lr" in values:
        behind = panel.twinx()
        handles.append(behind.fill_between(*values["lr"], color="tab:orange", alpha=0.12, linewidth=0, label="lr"))
        behind.set_ylim(0, max(values["lr"][1].max() * 1.05, 1e-30))
        behind.set_axis_off()
        panel.set_zorder(behind.get_zorder() + 1)
        panel.patch.set_visible(False)
    panel.plot(steps, losses, color="0.75", linewidth=0.8)
    panel.plot(steps, soft, color="tab:blue", linewidth=1.6)
    if share := next((key for key in SHARES if key in values), None):
        beside = panel.twinx()
        label = share.replace("_", " ")
        handles += beside.plot(*_finite(values[share]), "-", color="tab:green", linewidth=1, label=label)
        beside.set(ylim=(0, 1.03), yticks=(0, 0.5, 1))
        beside.tick_params(axis="y", colors="tab:green", labelsize="small", length=2)
        beside.spines[["top", "left", "right"]].set_visible(False)
    shown = [losses[np.isfinite(losses)]]
    if "validation_loss" in values:
        at, held_out = _finite(values["validation_loss"])
        handles += panel.plot(at, held_out, "o", color="tab:red", markersize=3, label="validation")
        shown.append(held_out)
    every = np.concatenate(shown)
    if len(every):
        low, high = min(0.0, float(every.min())), float(np.percentile(every, 99))
        panel.set_ylim(low, max(high * 1.08, low + 1e-9))
    if handles:
        panel.legend(handles=handles, frameon=False, fontsize="x-small", loc="upper right", handlelength=1.2)
    panel.set(title=name, xlabel="step", ylabel="loss" if is_first else "")
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.spines[["top", "right"]].set_visible(False)


def _finite(pairs: Floats) -> Floats:
    return pairs[:, np.isfinite(pairs[1])]


def _resumed(events: Path) -> dict[str, list[int]]:
    """Return the steps at which each stage was taken up again."""
    steps: dict[str, list[int]] = {}
    for row in read_rows(events) if events.is_file() else ():
        if row.get("event") == "resume" and "stage" in row:
            steps.setdefault(str(row["stage"]), []).append(int(row.get("step", 0)))
    return steps
