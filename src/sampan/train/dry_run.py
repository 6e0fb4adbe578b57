"""What a run on many ranks would hold and send, said on one machine that need not have their devices.

The job is opened as training opens it, and refused where training would refuse it. Of the ranks this process is the first;
its weights are shared for real, on the meta device, so that no weight takes memory. Into the run folder nothing is written
but, in its cache, what was found out about the pictures, which the run will find there.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from sampan import frameworks
from sampan.catalog.load import chip as chip_of
from sampan.errors import JobError, UsageError
from sampan.frameworks import device as dev
from sampan.frameworks import meter, parallel, train_step
from sampan.job import STAGES, Job
from sampan.models import lora
from sampan.train import disk, distributed
from sampan.train.estimate import Estimate, blank_stage, estimate_all
from sampan.train.loop import is_done
from sampan.train.run_log import check_installed
from sampan.train.run_state import RunState, open_run
from sampan.units import format_bytes

_REMOTE = ("cuda", "npu")  # may be named where they are not
Show = Callable[[dict[str, Any], Any], None]


def dry_run(
    job: Job,
    *,
    ranks: int,
    nodes: int,
    chip: str | None,
    resume: bool,
    console: Any,
    put: Callable[[dict[str, Any], Show], None],
) -> None:
    """Say what each rank of a run would hold and send, and refuse what training would refuse, in the same words.

    Args:
        ranks, nodes: How many there would be.
        chip: What a rank would run on, by a name of the catalogue; None: this machine's device, or the one that the job
            names, about whose memory nothing is known where it is not here.
        resume: Go on with the run in `job.out`, as of `train`.
        console: For messages.
        put: Takes the report and what shows it. It has it before room on the disk is looked at.

    Raises:
        UsageError: Called under a launcher.
        JobError, DataError, CheckpointError, DeviceError, CatalogError: As training, before its first step.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("--dry-run is for one process", "a launcher has started several", "call it without torchrun")
    check_installed(tensorboard=job.train.tensorboard, wandb=job.train.wandb)
    frameworks.use(job.place.framework)
    device, memory_bytes = _device(job.place.device, chip)
    is_remote = memory_bytes is not None and job.place.dtype == "auto"
    dtype = "bf16" if is_remote else dev.resolve_dtype(job.place.dtype, device)
    dev.set_threads(job.place.threads)
    train_step.check_supported(weights=job.train.weights)
    if ranks > 1:
        if frameworks.chosen() != "torch":
            raise JobError(
                f"there is no dry run of ranks on {frameworks.chosen()}",
                "what its ranks send is not counted",
                "take --framework torch, or look at one rank",
            )
        parallel.check_unnumbered(device)
    parallel.pretend(ranks, nodes)
    try:
        with tempfile.TemporaryDirectory(prefix="sampan-") as aside:
            state, left = _open(job, device, dtype, resume=resume, console=console, aside=Path(aside))
            estimates = estimate_all(state, left, memory_bytes)
            put(_report(state, nodes, memory_bytes, estimates), show)
            place = next(folder for folder in (job.out, *job.out.absolute().parents) if folder.is_dir())
            needs = {name: estimate.need for name, estimate in estimates.items()}
            disk.check_room(dataclasses.replace(state, job=job), needs, place)
    finally:
        parallel.stop()


def _device(name: str, chip: str | None) -> tuple[str, tuple[int | None, int | None] | None]:
    """Return a rank's device, and its memory in all and what is free of it; None where it is this machine's."""
    if chip is not None:
        found = chip_of(chip)
        kind = name if name.startswith(_REMOTE) else found.device
        if kind is None:
            raise JobError(
                f"what PyTorch calls the chip {found.label} is not known",
                f"it is made by {found.vendor}",
                "name the device: --set place.device=cuda",
            )
        size = None if found.memory.bytes is None else int(found.memory.bytes)
        return kind, (size, size)
    kind = name.partition(":")[0]
    if kind in _REMOTE and kind not in dev.available():
        return name, (None, None)
    return dev.resolve(name), None


def _open(
    job: Job, device: str, dtype: str, *, resume: bool, console: Any, aside: Path
) -> tuple[RunState, Sequence[str]]:
    """Return the run as training opens it, and the stages that are left."""
    layout = distributed.layout(job)
    stages = [name for name in STAGES if name in job.train.stages]
    distributed.check_shards(job, stages)
    state = open_run(job, device, dtype, resume=resume, console=console, aside=aside)
    state.layout, state.console = layout, Console(quiet=True)  # the table of memory is in the report
    return state, [name for name in stages if not is_done(state, name, stages)]


def _report(
    state: RunState, nodes: int, memory_bytes: tuple[int | None, int | None] | None, estimates: dict[str, Estimate]
) -> dict[str, Any]:
    replicate, shards = state.layout
    needs = {name: estimate.need for name, estimate in estimates.items()}
    return {
        "ranks": parallel.num_ranks(),
        "nodes": nodes,
        "layout": {"dp_replicate": replicate, "dp_shard": shards},
        "framework": frameworks.chosen(),
        "device": state.device,
        "dtype": state.dtype,
        "free_bytes": (memory_bytes or dev.memory_bytes(state.device))[1],
        "checkpoints_bytes": disk.checkpoint_bytes(state, needs),
        "stages": {name: _stage(state, name, estimate) for name, estimate in estimates.items()},
    }


def _stage(state: RunState, name: str, estimate: Estimate) -> dict[str, Any]:
    settings, need = getattr(state.job.stage, name), dataclasses.asdict(estimate.need)
    rounds = distributed.rounds(settings.grad_accum_steps)
    need["activations"] -= estimate.gathered_bytes
    return {
        "micro_batch_size": settings.micro_batch_size,
        "micro_batches": len(rounds),
        "idle_micro_batches": len(rounds) * parallel.num_ranks() - settings.grad_accum_steps,
        "bytes": {"total": estimate.need.total, **need, "gathered": estimate.gathered_bytes},
        "collectives": [] if parallel.num_ranks() == 1 else _collectives(state, name, rounds),
    }


def _collectives(state: RunState, name: str, rounds: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """Return what a rank exchanges in the stage's first step."""
    stage, train = blank_stage(state, name), state.job.train
    trained_dtype, frozen_dtype = ("fp32", state.dtype) if state.is_lora else (train.weights, train.weights)

    def is_trained(parameter: str) -> bool:
        return lora.trainable(parameter) if state.is_lora else True

    def dtype(parameter: str) -> str:
        return trained_dtype if is_trained(parameter) else frozen_dtype

    shared = train_step.share(
        stage.module, device="meta", method=train.method, layout=state.layout, autocast=state.dtype, dtype=dtype,
        trainable=is_trained, frozen_rows={} if state.is_lora else stage.frozen_rows,
    )  # fmt: skip
    if shared is None:
        for parameter, values in stage.module.named_parameters():
            values.requires_grad_(is_trained(parameter))
            values.data = values.data.to(dev.dtype(dtype(parameter)))
    extra = stage.num_extra or (lambda step, micro: 0)
    throughs = sum(1 + max(extra(0, micro) for micro in together) for together in rounds)
    found = meter.collectives(stage.module, shared, passes=len(rounds), throughs=throughs)
    return [dataclasses.asdict(one) for one in found]


def show(report: dict[str, Any], console: Any) -> None:
    """Print a report for people."""
    from rich.table import Table

    layout, free = report["layout"], report["free_bytes"]
    of_device = "how much memory it has free is not known" if free is None else f"{format_bytes(free)} free"
    place = f"{_counted(report['ranks'], 'rank')} on {_counted(report['nodes'], 'node')}"
    mesh = f"dp_replicate {layout['dp_replicate']} x dp_shard {layout['dp_shard']}"
    computes = f"{report['framework']} on `{report['device']}` in {report['dtype']}"
    console.print(f"{place}: {mesh}, {computes}, {of_device}", highlight=False, markup=False, soft_wrap=True)
    kept = format_bytes(report["checkpoints_bytes"])
    console.print(f"checkpoints that are kept take {kept}", highlight=False)
    table = Table("stage", "", "bytes", "", title="a rank's memory, and what it sends in a step", title_justify="left")
    table.columns[2].justify = "right"
    for name, stage in report["stages"].items():
        for what, size in stage["bytes"].items():
            if size:
                table.add_row(name if what == "total" else "", what.replace("_", " "), format_bytes(size), "")
        for one in stage["collectives"]:
            way = "between nodes" if one["crosses_nodes"] else "inside a node"
            told = f"{one['calls']} over {one['ranks']} ranks, {way}"
            table.add_row("", one["kind"], format_bytes(one["sent_bytes"]), told)
        count, idle = stage["micro_batches"], stage["idle_micro_batches"]
        for_nothing = f", {idle} in all for nothing" if idle else ""
        table.add_row("", "micro-batches", str(count), f"of {stage['micro_batch_size']} a rank{for_nothing}")
        table.add_section()
    console.print(table)


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'s' if number != 1 else ''}"
