"""Which planned layouts `sampan train` can run itself: what a plan offers unless it is asked for all of them.

Training divides a batch over data parallel ranks. On PyTorch every rank holds all weights (DDP, zero 0) or a share of them
(FSDP2, zero 3); on MindSpore ranks share the master weights (zero 1). Layouts with further axes are for other software.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sampan.catalog.records import Chip
from sampan.plan.records import ParallelLayout

if TYPE_CHECKING:  # the planner asks here
    from sampan.plan.planner import Candidate
    from sampan.plan.rank import PlanRow
    from sampan.plan.search import LayoutLimits

_ZERO_STAGES: Mapping[str, tuple[int, ...]] = {"torch": (0, 3), "mindspore": (1,)}
"""How data parallel ranks may share what training holds; with one rank there is nothing to share."""
_AXES = {"tp": "tensor", "pp": "pipeline", "cp": "context", "ep": "expert"}


@dataclass(frozen=True, kw_only=True)
class TrainableLayouts:
    """What training can do with a framework.

    Args:
        zero_stages: How ranks may share.
        recompute: What layers may compute again; a job says so with `recompute`.
    """

    zero_stages: tuple[int, ...]
    recompute: tuple[str, ...] = ("none", "full")

    def narrow(self, limits: LayoutLimits) -> LayoutLimits:
        """Return limits of a search without what training cannot run."""
        allowed = tuple(kind for kind in limits.recompute if kind in self.recompute)
        ones = dict.fromkeys(("max_tp", "max_pp", "max_cp", "max_ep", "max_virtual"), 1)
        return replace(limits, zero_stages=self.zero_stages, recompute=allowed, **ones)

    def why_not(self, layout: ParallelLayout) -> str | None:
        """Return why a layout cannot be run, in words; None where it can."""
        axes = [f"{_AXES[axis]} parallel ({axis} {n})" for axis in _AXES if (n := getattr(layout, axis)) > 1]
        if axes:
            return " and ".join(axes)
        if layout.recompute not in self.recompute:
            return f"recompute {layout.recompute}"
        if layout.dp > 1 and layout.zero_stage not in (0, *self.zero_stages):  # where nothing is trained, 0 stands
            return f"zero {layout.zero_stage}"
        return None


def trainable(chip: Chip, framework: str) -> TrainableLayouts | str:
    """Return what `sampan train` can run on a chip with a framework, or why it can run nothing."""
    if framework not in _ZERO_STAGES:
        return f"not runnable by sampan train: `{framework}` is other software"
    if chip.device is None:
        return f"not runnable by sampan train: it has no device for chips of {chip.vendor}"
    return TrainableLayouts(zero_stages=_ZERO_STAGES[framework])


def why_not(candidate: Candidate) -> str | None:
    """Return why `sampan train` cannot run a candidate, in words; None where it can."""
    can = trainable(candidate.chip, candidate.framework)
    if isinstance(can, str):
        return can
    for stage in candidate.stages:
        if problem := can.why_not(stage.layout):
            return f"not runnable by sampan train: {stage.name} is {problem}"
    return None


def lines(rows: Iterable[PlanRow]) -> Iterator[str]:
    """Yield what to know where rows have layouts that `sampan train` cannot run; nothing where it runs all of them."""
    candidates = {row.key: row.candidate for row in rows}
    beyond = [candidate for candidate in candidates.values() if why_not(candidate)]
    if not beyond:
        return
    which = "None" if len(beyond) == len(candidates) else f"{len(candidates) - len(beyond)} of {len(candidates)}"
    yield (
        f"{which} of these can be run by `sampan train` (column `train`): it divides batches over data parallel ranks, on "
        "PyTorch with all weights on each (zero 0) or divided (zero 3), on MindSpore with divided master weights (zero 1). "
        "Others are for other software; without --all a plan leaves them out."
    )
