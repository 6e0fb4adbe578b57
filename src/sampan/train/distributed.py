"""Several processes that train one run: who goes first, who writes, and how a step's micro-batches are shared.

Rank 0 alone speaks and writes into the run folder, but for checkpoints: every rank writes its own part of them. A checkpoint
says nothing about ranks.
"""

from __future__ import annotations

import hashlib
import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sampan import __version__, frameworks
from sampan.errors import JobError, SampanError
from sampan.frameworks import parallel, rank_watch
from sampan.frameworks.records import MicroShare
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


def shard(count: int, rank: int | None = None) -> range:
    """Return which of so many things a rank (this one) takes: one of as many runs as there are ranks.

    The first runs are longer by one where they do not divide.
    """
    rank, ranks = parallel.rank() if rank is None else rank, parallel.num_ranks()
    size, longer = divmod(count, ranks)
    first = rank * size + min(rank, longer)
    return range(first, first + size + (rank < longer))


def rounds(count: int) -> list[list[int]]:
    """Return which of so many things the ranks do at a time: in each round the number of every rank's, in their order.

    Ranks do equally many: one that has none left does the first again, for nothing.
    """
    own = [shard(count, rank) for rank in range(parallel.num_ranks())]
    return [[part[i] if i < len(part) else 0 for part in own] for i in range(len(own[0]))]


def micro_share(grad_accum_steps: int, again: Callable[[int], Sequence[Any]]) -> MicroShare | None:
    """Return which of a step's micro-batches are this rank's; None where it is alone."""
    if parallel.num_ranks() == 1:
        return None
    own = shard(grad_accum_steps)
    return MicroShare(own.start, len(own), grad_accum_steps, again)


def holds_ranges() -> bool:
    """Say whether this rank may hold a part of the weights only, and reads no more of a checkpoint."""
    return parallel.SHARES_UNEVENLY and parallel.num_ranks() > 1


def saves_beside() -> bool:
    """Say whether ranks can speak to each other about a save while they take steps."""
    return parallel.SAVES_BESIDE or parallel.num_ranks() == 1


def layout(job: Job) -> tuple[int, int]:
    """Return the degrees (dp_replicate, dp_shard) of a job on these ranks.

    Raises:
        JobError: Their product is not the number of ranks.
        DeviceError: The framework has no such layout.
    """
    place = job.place
    is_lora = job.train.method == "lora" and place.parallel == "auto"  # its gradients are small, slices would cost more
    return parallel.layout("ddp" if is_lora else place.parallel, place.dp_replicate, place.dp_shard)


def check_shards(job: Job, stages: Sequence[str]) -> None:
    """Check that the micro-batches of every stage's step can be shared.

    Raises:
        JobError: They cannot; says what could.
    """
    count = parallel.num_ranks()
    if parallel.SHARES_UNEVENLY:
        return
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


class SavingRanks:
    """The ranks that write a checkpoint, as `sampan.checkpoint.run.save` wants them; for the thread that saves."""

    def __init__(self) -> None:
        self.rank, self.ranks = parallel.rank(), parallel.num_ranks()

    def gathered(self, value: Any) -> list[Any]:
        """Return every rank's plain value, in order."""
        return parallel.gathered(value, saving=True)


@contextmanager
def ending_together() -> Iterator[None]:
    """Let all ranks end where one does; of an error that all meet only the first tells the user.

    The others end with status 1 within seconds, wherever they wait.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise
    except Exception as error:
        watch = parallel.watch()
        if watch is None:
            raise
        words = error.what if isinstance(error, SampanError) else f"{type(error).__name__}: {error}"
        if not watch.claim_failure(words):
            raise SystemExit(rank_watch.LOST) from error  # another has told it
        if isinstance(error, SampanError):
            where = f"rank {parallel.rank()} of {parallel.num_ranks()} met it, on {socket.gethostname()}"
            raise type(error)(error.what, (*error.because, where), error.hint) from error
        raise
    barrier_and_stop()


def barrier_and_stop() -> None:
    """Leave the ranks when all have done their work."""
    if parallel.num_ranks() > 1:
        parallel.barrier()
        parallel.stop()


def check_agreement(job: Job, device: str, version: str) -> None:
    """Check that all ranks do the same thing with the same versions on the same kind of device.

    Raises:
        JobError: One differs from the first; it is named, and what differs.
    """
    own = {
        "sampan": __version__,
        frameworks.chosen(): version,
        "device": device.split(":", maxsplit=1)[0],
        "job": hashlib.sha256(job.to_toml().encode()).hexdigest()[:12],
        "host": socket.gethostname(),
    }
    _compare(parallel.gathered(own), "ranks do not do the same", "start all ranks with the same job and versions")


def check_data(digest: str, out: Path) -> None:
    """Check that all ranks see the same pictures and captions, and one run folder.

    Raises:
        JobError: One sees others, or a folder of its own.
    """
    if parallel.num_ranks() == 1:
        return
    token = parallel.gathered(uuid.uuid4().hex)[0]
    sign = out / f".shared-{token}"
    with main_process_first():
        if is_main_process():
            sign.touch()
        is_seen = sign.exists()
    host = socket.gethostname()
    seen = parallel.gathered([is_seen, host])
    if is_main_process():
        sign.unlink(missing_ok=True)
    for rank, (sees, where) in enumerate(seen):
        if not sees:
            raise JobError(
                f"the run folder `{out}` is not shared by all ranks",
                f"rank {rank} on {where} does not see what rank 0 on {seen[0][1]} has written there",
                "set `out` to a folder that all nodes have mounted",
            )
    _compare(
        parallel.gathered({"pictures and captions": digest[:12], "host": host}),
        "ranks do not train on the same data",
        "give all nodes the same data.path",
    )


def _compare(from_all: list[dict[str, str]], what: str, hint: str) -> None:
    first = from_all[0]
    for rank, own in enumerate(from_all):
        for key in first.keys() | own.keys():
            if key != "host" and own.get(key) != first.get(key):
                raise JobError(
                    what,
                    f"{key}: rank 0 on {first['host']} has {first.get(key)}, rank {rank} on {own['host']} has "
                    f"{own.get(key)}",
                    hint,
                )
