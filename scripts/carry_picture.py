"""The picture of scripts/carry.py: losses of a run that changed its framework, over those of runs that did not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STAGES = ("ar", "decoder")
NUM_STEPS, LEG = 300, 100
SMOOTHED = 20  # steps: curves are compared step by step, and averaged over so many
SHARE = 0.1  # of the spread between two seeds, that a carried run may lie off
LOOKS = {
    "seed-1": ("another seed, PyTorch", "0.6", 1.4, "-"),
    "torch": ("PyTorch", "#ee4c2c", 3.4, "-"),
    "mindspore": ("MindSpore", "#1f77b4", 2.0, "-"),
    "carried": ("carried", "black", 1.0, (0, (4, 3))),
}


def draw(losses: Mapping[str, Mapping[str, Floats]], spreads: Mapping[str, float], picture: Path) -> None:
    """Draw the losses of all runs over each other, and below how far they lie apart.

    Args:
        losses: Of each step, by run and stage.
        spreads: By stage, the median difference of a step's loss between two seeds.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.2), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(STAGES), sharex=True, height_ratios=(1.25, 1))
    for column, stage in enumerate(STAGES):
        top, below = panels[0][column], panels[1][column]
        _losses(top, {name: stages[stage] for name, stages in losses.items()})
        _differences(below, {name: stages[stage] for name, stages in losses.items()}, spreads[stage])
        top.set_title("generator" if stage == "ar" else "decoder", fontweight="bold")
        below.set_xlabel("step")
        for panel in (top, below):
            panel.spines[["top", "right"]].set_visible(False)
            for step in (LEG, 2 * LEG):
                panel.axvline(step, color="0.8", linewidth=0.8, zorder=0)
    panels[0][0].set_ylabel(f"training loss, mean of {SMOOTHED} steps")
    panels[1][0].set_ylabel("difference from PyTorch straight,\nstep by step (no mark: none)")
    figure.suptitle(
        "One run carried PyTorch → MindSpore → PyTorch, beside 300 steps straight in each", fontsize="large"
    )
    figure.savefig(picture)


def _losses(panel: Any, losses: Mapping[str, Floats]) -> None:
    ends = {}
    for name, (label, color, width, style) in LOOKS.items():
        if name in losses:
            steps, curve = smoothed(losses[name])
            panel.plot(steps, curve, color=color, linewidth=width, linestyle=style)
            ends[label] = (float(curve[-1]), color)
    _label_ends(panel, ends)
    low, high = panel.get_ylim()
    for middle, framework in zip((LEG / 2, 1.5 * LEG, 2.5 * LEG), ("PyTorch", "MindSpore", "PyTorch"), strict=True):
        panel.text(middle, high - 0.02 * (high - low), f"carried on\n{framework}", ha="center", va="top",
                   fontsize="small", color="0.35")  # fmt: skip


def _differences(panel: Any, losses: Mapping[str, Floats], spread: float) -> None:
    straight = losses["torch"]
    ends, steps = {}, np.arange(1, NUM_STEPS + 1)
    for name, (label, color, width, _) in LOOKS.items():
        if name in losses and name != "torch":
            off = np.abs(losses[name] - straight)
            off = np.where(off > 0, off, np.nan)  # the same bits have no place on this axis
            panel.semilogy(steps, off, ".-", color=color, linewidth=min(width, 1.0), markersize=2.5)
            ends[label] = (float(np.exp(np.nanmean(np.log(off[-30:])))), color)
    bound = SHARE * spread
    panel.axhline(bound, color="tab:green", linewidth=1.2)
    panel.text(
        2, bound / 1.3, "a tenth of what two seeds differ by (median)", color="tab:green", fontsize="small", va="top"
    )
    _label_ends(panel, ends, is_log=True)


def _label_ends(panel: Any, ends: Mapping[str, tuple[float, str]], *, is_log: bool = False) -> None:
    """Write each curve's name behind its end, moved apart where they would lie over each other."""
    low, high = panel.get_ylim()
    if is_log:
        low, high = np.log10(low), np.log10(high)
    places = sorted((np.log10(v) if is_log else v, label, color) for label, (v, color) in ends.items())
    gap, last = 0.06 * (high - low), -np.inf
    for value, label, color in places:
        last = max(value, last + gap)
        panel.annotate(
            label, (NUM_STEPS, 10**last if is_log else last), xytext=(5, 0), textcoords="offset points", va="center",
            color=color, fontsize="small", annotation_clip=False,
        )  # fmt: skip


def smoothed(values: Sequence[float] | Floats, width: int = SMOOTHED) -> tuple[Floats, Floats]:
    """Return steps and the mean of the last `width` values at each."""
    steps = np.arange(width, len(values) + 1, dtype=np.float64)
    return steps, np.convolve(values, np.full(width, 1 / width), mode="valid")
