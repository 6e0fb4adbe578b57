"""One stage, ready to take any of its steps: the module with its weights, an optimizer, and what each step draws.

Training and replay both go through here, so that what is checked is what was done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampan.checkpoint import run
from sampan.frameworks import device as dev
from sampan.frameworks import io, parallel, train_step
from sampan.frameworks.records import StepReport
from sampan.models import lora
from sampan.models.init import initial_weights
from sampan.train import distributed
from sampan.train.run_state import RunState
from sampan.train.schedule import learning_rate
from sampan.train.stages import HostBatch, TrainableStage, make


@dataclass(frozen=True)
class StepResult:
    """What one step did.

    Args:
        lr: Its learning rate.
        batches: What this rank saw of it.
        more: Numbers that the stage adds to the log.
    """

    report: StepReport
    lr: float
    batches: Sequence[HostBatch]
    more: Mapping[str, float]


def draw_in_step(stage: TrainableStage, places: Sequence[tuple[int, int]]) -> HostBatch:
    """Draw this rank's batch of those that the ranks compute at a time, and make it go through the blocks as often as theirs.

    Args:
        places: Step and micro-batch of every rank's.
    """
    own = places[parallel.rank()]
    batch = stage.draw(*own)
    if stage.num_extra is None or stage.idle is None or len(places) == 1:
        return batch
    more = max(stage.num_extra(*place) for place in places) - stage.num_extra(*own)
    return stage.idle(batch, more) if more else batch


class StageTrainer:
    """A stage with its first weights; `restore` takes over those of a checkpoint.

    Args:
        state: The run. Finished parts that drawing needs are on the device only while this is made.
        name: Of the stage.
    """

    def __init__(self, state: RunState, name: str):
        self.state, self.name = state, name
        self.settings = getattr(state.job.stage, name)
        self.stage = make(name, state.stage_inputs(self.settings, state.data.training))
        state.free_frozen()
        self.optimizer = self._prepare()

    def restore(self, folder: Path) -> list[str]:
        """Take over a checkpoint; return in words what had to be converted. The caller has checked its hashes."""
        groups = run.read_groups(folder, "cpu", lazily=distributed.holds_ranges())
        notes = self.optimizer.load_state(groups)
        for key, value in groups["extra"].items():
            self.stage.extra[key][...] = dev.to_numpy(value)
        return list(notes)

    def step(self, step: int) -> StepResult:
        """Take the step after `step` steps were taken: the same batches and the same learning rate each time."""
        settings, stage = self.settings, self.stage
        lr = learning_rate(step, settings.num_steps, settings.warmup_steps, settings.lr, settings.min_lr_ratio)
        places = [[(step, micro) for micro in together] for together in distributed.rounds(settings.grad_accum_steps)]
        batches = [draw_in_step(stage, together) for together in places]
        share = distributed.micro_share(
            settings.grad_accum_steps, lambda micro: self.on_device(stage.draw(step, micro))
        )
        report = self.optimizer.step(stage.loss, [self.on_device(batch) for batch in batches], lr, share)
        more, new_rows = stage.after(step, report.arrays) if stage.after else ({}, {})
        for name, (rows, values) in new_rows.items():
            self.optimizer.assign_rows(name, rows, values)
        return StepResult(report, lr, batches, more)

    def groups(self) -> dict[str, dict[str, Any]]:
        """Return what a checkpoint keeps, by group. Tensors are those in use, and change with the next step."""
        return {**self.optimizer.state(), "extra": {k: dev.array(v, "cpu") for k, v in self.stage.extra.items()}}

    def on_device(self, batch: HostBatch) -> tuple[Any, ...]:
        """Return a batch's arrays on the device."""
        return tuple(a if a is None or isinstance(a, tuple) else dev.array(a, self.state.device) for a in batch.arrays)

    def _prepare(self) -> train_step.TrainStep:
        """Give the module its first weights, on the device, and an optimizer."""
        state, stage, train = self.state, self.stage, self.state.job.train
        files: dict[str, Path] = {}
        if state.start:
            files = {stage.prefix + name: path for name, path in state.start.files(self.name).items()}
        if state.is_lora:
            settings = state.job.lora
            lora.attach(stage.module, self.name, state.config, settings.rank, settings.alpha, settings.targets)
        new = {name: shape for name, shape in io.shapes(stage.module).items() if name not in files}
        is_trained: Callable[[str], bool] = lora.trainable if state.is_lora else lambda name: True
        trained_dtype, frozen_dtype = ("fp32", state.dtype) if state.is_lora else (train.weights, train.weights)
        settings = self.settings

        def dtype_of(name: str) -> str:
            return trained_dtype if is_trained(name) else frozen_dtype

        frozen_rows = {} if state.is_lora else stage.frozen_rows
        arrays, words = initial_weights(new, state.job.seed), f"the {self.name}"
        shared = train_step.share(
            stage.module, device=state.device, method=train.method, layout=state.layout, autocast=state.dtype,
            dtype=dtype_of, trainable=is_trained, frozen_rows=frozen_rows,
        )  # fmt: skip
        if shared is None:
            io.load_weights(
                stage.module, files, device=state.device, dtype=dtype_of, arrays=arrays, trainable=is_trained,
                prefix=stage.prefix, name=words,
            )  # fmt: skip
        else:
            shared.load(files, arrays, name=words, prefix=stage.prefix)
        return train_step.TrainStep(
            stage.module,
            lr=settings.lr,
            beta1=settings.beta1,
            beta2=settings.beta2,
            weight_decay=settings.weight_decay,
            clip_norm=settings.clip_norm,
            ema_decay=settings.ema_decay,
            autocast=state.dtype,
            moments=train.moments,
            master=train.weights == "fp32",
            trained_only=state.is_lora,
            frozen_rows=frozen_rows,
            delayed={} if state.is_lora else stage.delayed,
            seed=state.job.seed,
            compiled=state.job.place.compile,
            shared=shared,
        )
