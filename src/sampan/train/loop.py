"""A whole training run, in reading order: open the data, count the memory, train stage after stage, write the model.

Everything a step needs is decided by (seed, stage, step, row), so that a run that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from sampan import frameworks
from sampan.checkpoint import export, run
from sampan.checkpoint import lora as lora_files
from sampan.checkpoint.provenance import StageSession, in_words, place_of
from sampan.errors import DataError, JobError
from sampan.frameworks import device as dev
from sampan.frameworks import parallel, train_step
from sampan.frameworks.records import StepReport
from sampan.job import STAGES, Job
from sampan.train import distributed, plot
from sampan.train.estimate import Estimate, estimate_all
from sampan.train.lock_and_signals import lock_run, stop_signals
from sampan.train.progress_display import display_progress
from sampan.train.run_log import NullRunLog, RunLog, check_installed
from sampan.train.run_state import RunState, open_run
from sampan.train.stage_trainer import StageTrainer
from sampan.train.stages import make

MAX_SKIPPED_IN_A_ROW = 5
_NUM_VALIDATION_BATCHES = 8
_NUM_SAMPLES = 8  # pictures in a grid of examples


def train(job: Job, *, resume: bool, console: Any) -> Path:
    """Train a job's stages and return the folder of the finished model, or of the finished LoRA.

    Under a launcher every rank calls this with the same job.

    Args:
        resume: Go on with the run in `job.out`; where there is none, begin it.
        console: A rich console for progress and messages.

    Raises:
        JobError, DataError, CheckpointError, DeviceError: Before anything long begins, where it can be known.
        KeyboardInterrupt: After the state has been saved.
    """
    check_installed(tensorboard=job.train.tensorboard, wandb=job.train.wandb)
    frameworks.use(job.place.framework)
    device = dev.resolve(job.place.device)
    dtype = dev.resolve_dtype(job.place.dtype, device)
    dev.set_threads(job.place.threads)
    train_step.check_supported(weights=job.train.weights)
    parallel.start(device)
    stages = [name for name in STAGES if name in job.train.stages]
    distributed.check_shards(job, stages)
    if not distributed.is_main_process():
        console = Console(quiet=True)
    with lock_run(job.out) if distributed.is_main_process() else nullcontext():
        with distributed.main_process_first():
            work = open_run(job, device, dtype, resume=resume or not distributed.is_main_process(), console=console)
        left = [name for name in stages if not _is_done(work, name, stages)]
        estimates = estimate_all(work, left)
        with _journal(job) as journal:
            for name in stages:
                if name in left:
                    _StageRun(work, name, journal, estimates[name]).train()
                else:
                    console.print(f"{name}: done before")
            if not distributed.is_main_process():
                return _result(work)
            result = _write_result(work)
            if plot.is_installed():
                plot.draw(job.out / "log.jsonl", job.out / "loss.png")
            else:
                console.print(f"no loss.png: matplotlib is not installed ({plot.INSTALL})", highlight=False)
        return result


def _journal(job: Job) -> RunLog | NullRunLog:
    if not distributed.is_main_process():
        return NullRunLog()
    return RunLog(job.out, tensorboard=job.train.tensorboard, wandb=job.train.wandb, facts=job.as_dict())


def _is_done(work: RunState, name: str, stages: Sequence[str]) -> bool:
    """Say whether a stage is at its end; one whose num_steps was raised goes on, unless later stages stand on it."""
    folder = run.final(work.out, name)
    if folder is None:
        return False
    step, wanted = int(run.state_of(folder)["step"]), getattr(work.job.stage, name).num_steps
    if wanted <= step:
        return True
    later = [s for s in stages[stages.index(name) + 1 :] if run.steps(work.out, s)]
    if later:
        raise JobError(
            f"stage {name} was finished at step {step}, and the job now says {wanted}",
            f"stage {later[0]} has been trained on what it was then",
            f"set stage.{name}.num_steps back to {step}, or begin a new run",
        )
    return False


def _result(work: RunState) -> Path:
    """Return the folder that a finished run has."""
    return work.out / ("lora" if work.is_lora else "model")


def _write_result(work: RunState) -> Path:
    target = _result(work)
    if work.is_lora:
        assert work.start is not None, "a job without a start has no LoRA"
        stages = work.job.train.stages
        lora_files.write(
            target,
            {name: export.part_tensors(work.out, name, None) for name in stages},
            alpha=work.job.lora.alpha,
            provenance={
                "base": work.start.hash,
                "seed": work.job.seed,
                "steps": {name: getattr(work.job.stage, name).num_steps for name in stages},
            },
        )
        work.console.print(
            f"use it: sampan generate PROMPT --model {work.job.model.start} --lora {target}", highlight=False
        )
        return target
    if target.exists():
        shutil.rmtree(target)
    return export.export(work.out, target, None)


class _StageRun:
    """One stage, from its newest checkpoint or from the beginning, to its end."""

    def __init__(self, work: RunState, name: str, journal: RunLog | NullRunLog, estimate: Estimate):
        self.work, self.name, self.journal, self.estimate = work, name, journal, estimate
        self.settings = getattr(work.job.stage, name)
        self.steps = StageTrainer(work, name)
        self.stage, self.updater = self.steps.stage, self.steps.updater
        held_out = work.data.validation
        self.validation = make(name, work.stage_inputs(self.settings, held_out)) if held_out else None
        work.free_frozen()
        self.skipped = 0  # in a row
        self.num_skipped = 0

    def train(self) -> None:
        """Take every step that is left, saving on the way."""
        work, settings, name = self.work, self.settings, self.name
        step = first = self._restore()
        num_rows = settings.micro_batch_size * settings.grad_accum_steps
        began, paused_s = time.perf_counter(), 0.0
        peak = dev.matmul_flops_per_s(work.device, work.dtype)
        with stop_signals() as stop, display_progress(work.console, name, first, settings.num_steps) as show:
            while step < settings.num_steps:
                taken = self.steps.step(step)
                report = taken.report
                step += 1
                speed = (step - first) * num_rows / (time.perf_counter() - began - paused_s)
                mfu = speed * self.estimate.useful_flops_per_row / peak if peak else None
                memory = dev.peak_memory_bytes(work.device)
                values = {
                    "loss": report.loss,
                    "lr": taken.lr,
                    "grad_norm": report.grad_norm,
                    "images_per_s": round(speed, 2),
                    **({} if mfu is None else {"mfu": round(mfu, 4)}),
                    **({} if memory is None else {"peak_memory_bytes": memory}),
                    **report.values,
                    **taken.more,
                }
                pause = time.perf_counter()
                asked = distributed.any_rank(bool(stop))
                if self.validation and (step % work.job.train.validate_every == 0 or step == settings.num_steps):
                    values["validation_loss"] = self._validate()
                if work.job.train.sample_every and step % work.job.train.sample_every == 0:
                    self._sample(step)
                self.journal.step(name, step, values, skipped=report.skipped)
                show(step, loss=report.loss, images_per_s=speed, mfu=mfu, memory_bytes=memory, skipped=self.num_skipped)
                self._count_skipped(step, report)
                if step < settings.num_steps and (asked or step % work.job.train.save_every == 0):
                    self._save(step, done=False)
                paused_s += time.perf_counter() - pause
                if asked:
                    work.console.print(f"{name}: stopped at step {step}; go on with --resume")
                    raise KeyboardInterrupt
        self._finish(step)

    def _count_skipped(self, step: int, report: StepReport) -> None:
        """Stop when several steps in a row had no finite loss or gradient; say which samples they saw."""
        self.skipped = self.skipped + 1 if report.skipped else 0
        self.num_skipped += report.skipped
        if report.skipped:
            bad = report.bad_micro or range(self.settings.grad_accum_steps)
            keys = [key for micro in bad for key in self.stage.draw(step - 1, micro).keys]
            self.journal.event("skip", stage=self.name, step=step, loss=str(report.loss), samples=keys)
            if self.skipped == MAX_SKIPPED_IN_A_ROW:
                shown = ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
                raise DataError(
                    f"stage {self.name} stopped at step {step}",
                    [
                        f"loss or gradient was not finite {self.skipped} steps in a row, with loss {report.loss}",
                        f"the last of these steps saw {shown}; all of them are in {self.work.out / 'events.jsonl'}",
                    ],
                    f"lower stage.{self.name}.lr (now {self.settings.lr:g}), and go on with --resume from the last "
                    "checkpoint",
                )

    def _validate(self) -> float:
        """Return the mean loss over the same batches of held-out samples, with the same draws, each time."""
        assert self.validation is not None, "the caller asks"
        if not distributed.is_main_process():
            return 0.0
        losses = []
        for step in range(min(_NUM_VALIDATION_BATCHES, self.settings.num_steps)):
            batch = self.steps.on_device(self.validation.draw(step, 0))
            losses.append(self.updater.evaluate(self.stage.loss, batch))
        return sum(losses) / len(losses)

    def _sample(self, step: int) -> None:
        if self.stage.sample is None:
            return
        chosen = (self.work.data.validation or self.work.data.training)[:_NUM_SAMPLES]
        with self.updater.averaged():
            image = self.stage.sample(self.stage.module, chosen) if distributed.is_main_process() else None
        self.work.free_frozen()
        if image is not None:
            self.journal.image(self.name, step, "samples", image)

    def _finish(self, step: int) -> None:
        """Measure, draw, and record what follows from the finished part; the stage is done when this is saved."""
        work, stage = self.work, self.stage
        if stage.measure:
            with self.updater.averaged():
                found = stage.measure(stage.module) if distributed.is_main_process() else {}
            self.journal.step(self.name, step, found, skipped=False)
            words = ", ".join(f"{key} {value:.4g}" for key, value in found.items())
            work.console.print(f"{self.name}: {words}", highlight=False)
        if stage.finish:
            ema = export.select_part(self.updater.state()["ema"], stage.prefix)
            work.config = stage.finish(work.part(self.name, ema))
            if distributed.is_main_process():
                export.write_config(work.out, work.config)
        self._save(step, done=True)
        self._sample(step)  # after the save: what can go wrong here takes nothing away

    # --- checkpoints -------------------------------------------------------------------------------------------------

    def _restore(self) -> int:
        """Take over the newest whole checkpoint and return its step."""
        work, name = self.work, self.name
        folder, notes = run.newest(work.out, name)
        state = run.read_state(folder) if folder else None
        self.session = StageSession.after(
            state,
            framework=frameworks.chosen(),
            device=work.device,
            dtype=work.dtype,
            threads=dev.set_threads(None),
            num_ranks=parallel.num_ranks(),
        )
        step = int(state["step"]) if state else 0
        if folder:
            notes += self.steps.restore(folder)
            said, facts = self._moved()
            self.journal.event("resume", stage=name, step=step, **facts)
            work.console.print(f"{name}: goes on at step {step}{said}", highlight=False)
        for note in notes:
            work.console.print(note, highlight=False)
        self.journal.truncate(name, step)
        return step

    def _moved(self) -> tuple[str, dict[str, Any]]:
        """Return, in words and for the journal, from what to what the stage has moved; nothing where it has not."""
        if not self.session.before:
            return "", {}
        before, now = place_of(self.session.before[-1]), self.session.place()
        # an old record does not say everything
        if all(before[key] in (None, now[key]) for key in ("framework", "version", "device", "dtype")):
            return "", {}
        return f", from {in_words(before)} to {in_words(now)}", {"from": before, "to": now}

    def _save(self, step: int, done: bool) -> None:
        work, settings = self.work, self.settings
        state = {
            "done": done,
            "prefix": self.stage.prefix,
            "seed": work.job.seed,
            "rows_drawn": step * settings.micro_batch_size * settings.grad_accum_steps,
            "schedule": {name: getattr(settings, name) for name in ("lr", "min_lr_ratio", "warmup_steps", "num_steps")},
            "job": work.job.to_toml(),
        }
        groups = self.steps.groups()  # put together from what every rank holds
        with distributed.main_process_first():
            if distributed.is_main_process():
                run.save(work.out, self.name, step, groups, state, self.session)
                run.keep_last(work.out, self.name, work.job.train.keep_last)
        self.journal.event("done" if done else "save", stage=self.name, step=step)
