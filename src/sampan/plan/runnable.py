"""Which planned layouts `sampan train` can run itself. A plan ranks what the hardware and the software of the field can do;
this version trains on PyTorch in one process, and on MindSpore by data parallel ranks that share the master weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sampan.plan.planner import Candidate
from sampan.plan.rank import PlanRow


def is_runnable(way: Candidate) -> bool:
    """Say whether `sampan train` can run every layout of a way to do a job."""
    layouts = [stage.layout for stage in way.stages]
    if way.framework == "mindspore":
        return all(layout.num_chips == layout.dp and layout.zero_stage <= 1 for layout in layouts)
    return way.framework == "torch" and all(layout.num_chips == 1 for layout in layouts)


def lines(rows: Iterable[PlanRow]) -> Iterator[str]:
    """Yield what to know where rows have layouts that `sampan train` cannot run; nothing where it runs all of them."""
    ways = {row.key: row.candidate for row in rows}
    beyond = [way for way in ways.values() if not is_runnable(way)]
    if not beyond:
        return
    which = "None of these" if len(beyond) == len(ways) else f"{len(ways) - len(beyond)} of these {len(ways)}"
    yield (
        f"{which} layouts can be run by this version of `sampan train`: on PyTorch it is one process on one chip; on "
        "MindSpore `msrun` starts data parallel ranks, which share the master weights (zero 1). Tensor, pipeline and context "
        "parallel layouts are for other software."
    )
