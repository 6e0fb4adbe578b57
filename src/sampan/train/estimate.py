"""What each stage will take, counted before any of it begins: memory on the device, and arithmetic per picture.

The real stage is made with blank pictures, one of its batches is drawn, and the meter runs its loss on arrays that have
shapes and no values (sampan.frameworks.shapes).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sampan.frameworks import device as dev
from sampan.frameworks import meter, train_step
from sampan.job import Job
from sampan.models import lora
from sampan.train import memory
from sampan.train.dummy_batch import DummyInputs
from sampan.train.memory import MemorySetting, StageMemory
from sampan.train.run_state import RunState
from sampan.train.stages import HostBatch, TrainableStage, make
from sampan.units import format_bytes

if TYPE_CHECKING:
    from sampan.frameworks.records import ParameterCount, PassCost

_LOOKED_FOR_S = 5.0
_LOOKED_AT = 24  # micro-batches among which the largest is counted


@dataclass(frozen=True)
class Estimate:
    """What a stage costs.

    Args:
        need: Of the largest micro-batch.
        useful_flops_per_row: Forward and backward of one picture, nothing computed twice, averaged over micro-batches
            by their size.
        gathered_bytes: Of the activations, what is whole at a time of weights in slices and of their gradients.
    """

    need: StageMemory
    useful_flops_per_row: float
    gathered_bytes: int = 0


def estimate_all(
    work: RunState, stages: Sequence[str], memory_bytes: tuple[int | None, int | None] | None = None
) -> dict[str, Estimate]:
    """Return what each stage will take, after saying it in a table.

    Args:
        memory_bytes: Of the device, and of it what is free, where that is another machine's; None asks the device.

    Raises:
        JobError: One does not fit on the device; names the setting that would make it fit.
    """
    total, free = memory_bytes or dev.memory_bytes(work.device)
    found, notes = {}, []
    for name in stages:
        look = _Look(work, name)
        found[name] = estimate = look.at(work.job)
        _, *more = memory.refuse_or_say(
            name, work.device, estimate.need, total, free, memory.alternatives(look.dials(), look.changed)
        )
        notes += [f"{name}: {note}" for note in more]
    if found:
        of_device = f"`{work.device}`" if free is None else f"`{work.device}`, {format_bytes(free)} free"
        notes = [f"memory on {of_device}", *_table({name: e.need for name, e in found.items()}), *notes]
    for note in notes:
        work.console.print(note, highlight=False, soft_wrap=True)
    return found


def _table(needs: Mapping[str, StageMemory]) -> list[str]:
    """Return what stages need in lines, with a column for what is at least a hundredth of one of them."""

    def counts(name: str) -> bool:
        return any(getattr(need, name) >= need.total / 100 for need in needs.values())

    names = [f.name for f in dataclasses.fields(StageMemory) if counts(f.name)]
    rows = [["stage", "in all", *names]]
    for stage, need in needs.items():
        sizes = [need.total, *(getattr(need, name) for name in names)]
        rows.append([stage, *(format_bytes(size) if size else "" for size in sizes)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]


@dataclass(frozen=True)
class _Seen:
    """What a stage's largest micro-batch costs, its module's values, how much less a mean one is, and what of sliced weights
    is whole at a time."""

    measured: PassCost
    count: ParameterCount
    share: float
    whole_bytes: int


class _Look:
    """What one stage would take under this or that job; what has been measured once is not measured again."""

    def __init__(self, work: RunState, name: str):
        self.work, self.name = work, name
        self._seen: dict[tuple[Any, ...], _Seen] = {}

    def dials(self) -> list[MemorySetting]:
        """Return the settings that save memory, the one that costs least first."""
        work, name = self.work, self.name
        train, settings = work.job.train, getattr(work.job.stage, name)
        dials = []
        if not getattr(settings, "recompute", True):
            dials.append(MemorySetting(f"stage.{name}.recompute", (True,)))
        if train.moments == "fp32":
            dials.append(MemorySetting("train.moments", ("8bit",)))
        if settings.micro_batch_size > 1:
            size, sizes = settings.micro_batch_size // 2, []
            while size:
                sizes.append(size)
                size //= 2
            dials.append(MemorySetting(f"stage.{name}.micro_batch_size", tuple(sizes)))
        if settings.ema_decay:
            dials.append(MemorySetting(f"stage.{name}.ema_decay", (0,)))
        if train.weights == "fp32" and not work.is_lora:
            dials.append(MemorySetting("train.weights", ("bf16",)))
        if work.start is not None and not work.is_lora and name in lora.PARTS:
            dials.append(MemorySetting("train.method", ("lora",)))
        return dials

    def changed(self, changed: Mapping[str, Any]) -> StageMemory:
        """Return the need with settings replaced."""
        job = self.work.job
        for key, value in changed.items():
            *path, field = key.split(".")
            if path == ["train"]:
                job = dataclasses.replace(job, train=dataclasses.replace(job.train, **{field: value}))
            else:
                stage = dataclasses.replace(getattr(job.stage, self.name), **{field: value})
                job = dataclasses.replace(job, stage=dataclasses.replace(job.stage, **{self.name: stage}))
        return self.at(job).need

    def at(self, job: Job) -> Estimate:
        """Return what the stage takes under a job."""
        settings, train = getattr(job.stage, self.name), job.train
        is_lora = train.method == "lora"
        trained_dtype = "fp32" if is_lora else train.weights
        frozen_dtype = self.work.dtype if is_lora else train.weights
        key = (settings.micro_batch_size, getattr(settings, "recompute", None), is_lora, trained_dtype)
        if key not in self._seen:
            self._seen[key] = self._measured(job, trained_dtype, frozen_dtype)
        seen = self._seen[key]
        need = memory.needed(
            seen.count,
            seen.measured,
            trained_dtype=trained_dtype,
            frozen_dtype=frozen_dtype,
            moments=train.moments,
            averaged=settings.ema_decay > 0,
            grad_accum_steps=settings.grad_accum_steps,
            num_slices=self.work.layout[1],
            whole_bytes=seen.whole_bytes,
        )
        flops_per_row = seen.measured.useful_flops * seen.share / settings.micro_batch_size
        return Estimate(need, flops_per_row, seen.whole_bytes if self.work.layout[1] > 1 else 0)

    def _measured(self, job: Job, trained_dtype: str, frozen_dtype: str) -> _Seen:
        work = dataclasses.replace(self.work, job=job)
        settings = getattr(job.stage, self.name)
        stage = blank_stage(work, self.name)
        trainable: Callable[[str], bool] = lora.trainable if work.is_lora else lambda name: True
        largest, mean_size = _largest(stage, settings)
        measured = meter.measure(
            stage.module, stage.loss, largest.arrays, device=work.device, dtype=frozen_dtype, trainable=trainable,
            trainable_dtype=trained_dtype, autocast=work.dtype,
        )  # fmt: skip
        frozen_rows = {} if work.is_lora else stage.frozen_rows
        count = meter.count(stage.module, trainable, frozen_rows)
        whole = train_step.whole_bytes(stage.module, weights=frozen_dtype, autocast=work.dtype, frozen_rows=frozen_rows)
        return _Seen(measured, count, mean_size / _size(largest), whole)


def blank_stage(work: RunState, name: str) -> TrainableStage:
    """Return a stage that draws blank pictures, its module on the meta device, with the adapter where one is trained."""
    job = work.job
    blank = DummyInputs(work.data.pictures, work.config)
    stage = make(name, work.stage_inputs(getattr(job.stage, name), work.data.training, blank))
    if work.is_lora:
        lora.attach(stage.module, name, work.config, job.lora.rank, job.lora.alpha, job.lora.targets)
    return stage


def _largest(stage: TrainableStage, settings: Any) -> tuple[HostBatch, float]:
    """Return the largest of a stage's first micro-batches, and their mean size; as many as are drawn in some seconds."""
    places = [(step, micro) for step in range(settings.num_steps) for micro in range(settings.grad_accum_steps)]
    largest, sizes, began = None, [], time.monotonic()
    for place in places[:_LOOKED_AT]:
        batch = stage.draw(*place)
        sizes.append(_size(batch))
        if largest is None or sizes[-1] > _size(largest):
            largest = batch
        if time.monotonic() - began > _LOOKED_FOR_S:
            break
    assert largest is not None, "a stage has at least one step"
    return largest, float(np.mean(sizes))


def _size(batch: HostBatch) -> int:
    return sum(array.size for array in batch.arrays if isinstance(array, np.ndarray))
