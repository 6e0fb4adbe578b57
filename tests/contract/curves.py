"""One framework's loss curves of the stages that it offers, in a process of its own.

    python tests/contract/curves.py FRAMEWORK FOLDER [LR_RATIO]

reads FOLDER/pictures and writes FOLDER/FRAMEWORK-curves.json: the loss of every step by stage, and the CPU seconds.
LR_RATIO other than 1 makes the run wrong on purpose.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from contract import curve_job, subset, worker

COMPARED_ONLY = ("ar", "decoder")  # what a framework that is there for the comparison trains


def losses(work: Any, name: str, lr_ratio: float) -> list[float]:
    """Return the losses of a stage, by the steps that training takes."""
    from sampan.train.stage_trainer import StageTrainer

    steps = StageTrainer(work, name)
    take = steps.updater.step
    if lr_ratio != 1:
        steps.updater.step = lambda loss, batches, lr: take(loss, batches, lr * lr_ratio)
    return [steps.take(step).report.loss for step in range(curve_job.NUM_STEPS)]


def compared_losses(job: Any, name: str) -> list[float]:
    """Return the losses of a stage on a framework that has a training step and nothing around it."""
    from sampan.frameworks import device as dev
    from sampan.frameworks import io, train_step
    from sampan.models.init import initial_weights
    from sampan.train.schedule import learning_rate

    settings, stage = getattr(job.stage, name), curve_job.open_stage(job, name)
    arrays = initial_weights(io.shapes(stage.module), job.seed)
    io.load_weights(stage.module, {}, device="cpu", arrays=arrays)
    names = ("lr", "beta1", "beta2", "weight_decay", "clip_norm", "ema_decay")
    updater = train_step.TrainStep(stage.module, **{key: getattr(settings, key) for key in names})

    def batch(step: int, micro: int) -> tuple[Any, ...]:
        given = stage.draw(step, micro).arrays
        return tuple(a if a is None or isinstance(a, tuple) else dev.array(a, "cpu") for a in given)

    found = []
    for step in range(curve_job.NUM_STEPS):
        lr = learning_rate(step, settings.num_steps, settings.warmup_steps, settings.lr, settings.min_lr_ratio)
        batches = [batch(step, micro) for micro in range(settings.grad_accum_steps)]
        found.append(updater.step(stage.loss, batches, lr).loss)
    return found


def main() -> None:
    """Train, and write the curves down."""
    framework, folder = sys.argv[1], Path(sys.argv[2])
    lr_ratio = float(sys.argv[3]) if len(sys.argv) > 3 else 1.0
    worker.choose(framework)
    job = curve_job.read(folder, framework if lr_ratio == 1 else f"{framework}-wrong")
    begin = time.process_time()
    if subset.left_out(framework):
        curves = {name: compared_losses(job, name) for name in COMPARED_ONLY}
    else:
        work = curve_job.open_run(job)
        stages = curve_job.STAGES if lr_ratio == 1 else COMPARED_ONLY
        curves = {name: losses(work, name, lr_ratio) for name in stages}
    record = {"curves": curves, "seconds": time.process_time() - begin}
    (folder / f"{job.out.name.removeprefix('run-')}-curves.json").write_text(json.dumps(record), encoding="utf-8")


if __name__ == "__main__":
    main()
