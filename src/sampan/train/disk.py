"""Whether a run's folder has room for what its job is going to write, known before the first step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from sampan import files
from sampan.checkpoint import run
from sampan.errors import CheckpointError
from sampan.frameworks import parallel
from sampan.train.memory import StageMemory
from sampan.train.run_state import RunState
from sampan.units import format_bytes


def checkpoint_bytes(state: RunState, needs: Mapping[str, StageMemory]) -> int:
    """Return what the checkpoints take that the stages that are left are still going to keep; `needs` as of `check_room`."""
    train = state.job.train
    total = 0
    for name, need in needs.items():
        # of a LoRA the frozen weights are not saved; its gradients are as large as what is
        slices = state.layout[1] if parallel.SHARES_UNEVENLY else parallel.num_ranks()
        held = need.weights * state.layout[1] + need.frozen_rows
        weights = need.gradients * slices if state.is_lora else held
        size = weights + (need.moments + need.average) * slices
        num_saves = math.ceil(getattr(state.job.stage, name).num_steps / train.save_every)
        there = len(run.steps(state.out, name))
        total += max(0, min(train.keep_last, num_saves) - there) * size
    return total


def check_room(state: RunState, needs: Mapping[str, StageMemory], place: Path | None = None) -> None:
    """Hold what the checkpoints of the stages that are left take against what is free.

    Args:
        needs: The memory of each of them. A checkpoint holds what is trained, its moments and its average; the finished
            model is not counted, so that what is refused does not fit for certain.
        place: A folder on the same disk, where the run folder is not made yet.

    Raises:
        CheckpointError: There is not enough room, or the folder cannot be written.
    """
    train, total = state.job.train, checkpoint_bytes(state, needs)
    try:
        free = files.try_place(place or state.out)
    except OSError as error:
        raise CheckpointError(
            f"the run folder `{state.out}` cannot be written", str(error), "set `out` to another folder, or make room"
        ) from error
    if free < total:
        raise CheckpointError(
            f"the checkpoints of this run do not fit into `{state.out}`",
            f"they take {format_bytes(total)} with train.keep_last = {train.keep_last}, and {format_bytes(free)} are free",
            "make room, set `out` to another disk, or lower train.keep_last",
        )
