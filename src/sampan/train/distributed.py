"""Several processes that train one run: who goes first, who writes, and how a step's micro-batches are shared.

Rank 0 alone writes into the run folder and speaks; the others take part in every step. A job says nothing about ranks, and
neither does a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sampan.errors import JobError
from sampan.frameworks import parallel
from sampan.job import Job


def is_main_process() -> bool:
    """Say whether this process is the one that writes and speaks."""
    return parallel.rank() == 0


@contextmanager
def main_process_first() -> Iterator[None]:
    """Let rank 0 run the block, and then the others, who find what it has written."""
    if not is_main_process():
        parallel.barrier()
    yield
    if is_main_process():
        parallel.barrier()


def any_rank(flag: bool) -> bool:
    """Say whether any rank's flag is set; every rank asks at the same place."""
    return any(parallel.gathered(flag))


def shard(grad_accum_steps: int) -> range:
    """Return the micro-batches of a step that this rank takes: one of as many equal runs as there are ranks."""
    size = grad_accum_steps // parallel.num_ranks()
    return range(parallel.rank() * size, (parallel.rank() + 1) * size)


def check_shards(job: Job, stages: Sequence[str]) -> None:
    """Check that the micro-batches of every stage's step can be shared.

    Raises:
        JobError: They cannot; says what could.
    """
    count = parallel.num_ranks()
    for name in stages:
        settings = getattr(job.stage, name)
        micro, steps = settings.micro_batch_size, settings.grad_accum_steps
        if steps % count:
            rows = micro * steps
            raise JobError(
                f"a step of stage {name} cannot be shared by {count} ranks",
                f"stage.{name}.grad_accum_steps is {steps}, and each rank takes the same number of micro-batches",
                f"set stage.{name}.grad_accum_steps = {count} and micro_batch_size = {rows // count}: the same batch"
                if rows % count == 0
                else f"set stage.{name}.grad_accum_steps to a multiple of {count}",
            )
