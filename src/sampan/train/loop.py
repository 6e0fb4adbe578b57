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
from sampan.checkpoint.provenance import StageSession, in_words, place_of, versions
from sampan.errors import CheckpointError, DataError, JobError
from sampan.frameworks import device as dev
from sampan.frameworks import parallel, train_step
from sampan.frameworks.memory import memory_for
from sampan.frameworks.records import StepReport
from sampan.job import STAGES, Job
from sampan.train import disk, distributed, plot
from sampan.train.estimate import Estimate, estimate_all
from sampan.train.lock_and_signals import lock_run, stop_signals
from sampan.train.progress_display import ProgressDisplay
from sampan.train.run_log import RunLog, check_installed
from sampan.train.run_state import RunState, open_run
from sampan.train.saving import StageSaver
from sampan.train.stage_trainer import StageTrainer, draw_in_step
from sampan.train.stages import make

MAX_SKIPPED_IN_A_ROW = 5
_NUM_VALIDATION_BATCHES = 8
_NUM_SAMPLES = 8  # images in a sample grid


def train(job: Job, *, resume: bool, console: Any) -> Path | None:
    """Train a job's stages and return the folder of the finished model, or of the finished LoRA.

    Under a launcher every rank calls this with the same job; the first one gets the folder.

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
    device = parallel.start(device, job.place.rank_timeout_s)
    with distributed.ending_together():
        return _train(job, device, dtype, resume=resume, console=console)


def _train(job: Job, device: str, dtype: str, *, resume: bool, console: Any) -> Path | None:
    layout = distributed.layout(job)
    is_main = distributed.is_main_process()
    stages = [name for name in STAGES if name in job.train.stages]
    distributed.check_shards(job, stages)
    distributed.check_agreement(job, device, str(versions(frameworks.chosen())[frameworks.chosen()]))
    if not is_main:
        console = Console(quiet=True)
    with lock_run(job.out) if is_main else nullcontext():
        with distributed.main_process_first():
            state = open_run(job, device, dtype, resume=resume or not is_main, console=console)
        state.layout = layout
        distributed.check_data(state.data.digest, job.out)
        left = [name for name in stages if not is_done(state, name, stages)]
        estimates = estimate_all(state, left)
        with distributed.main_process_first():
            if is_main:
                disk.check_room(state, {name: estimates[name].need for name in left})
        with RunLog(
            job.out if is_main else None,
            tensorboard=job.train.tensorboard,
            wandb=job.train.wandb,
            facts=job.as_dict(),
            tell=lambda words: console.print(words, highlight=False, soft_wrap=True, markup=False),
        ) as log:
            name_of_device, ranks = frameworks.device_name(device), parallel.num_ranks()
            log.event("device", device=device, device_name=name_of_device, dtype=dtype, ranks=ranks)
            for name in stages:
                if name in left:
                    _StageRun(state, name, log, estimates[name]).train()
                else:
                    console.print(f"{name}: done before")
            if is_main:
                _write_result(state)
                _draw(job.out, console)
        return _result_folder(state) if is_main else None


def _draw(out: Path, console: Any) -> None:
    """Draw the run's curves; that they cannot be drawn takes nothing from the model."""
    try:
        plot.draw(out / "log.jsonl", out / "loss.png")
    except JobError as error:  # without the package
        _tell_undrawn(console, f"{'; '.join(error.because)} ({error.hint})")
    except DataError as error:
        _tell_undrawn(console, "; ".join([error.what, *error.because]))
    except OSError as error:
        _tell_undrawn(console, str(error))


def _tell_undrawn(console: Any, why: str) -> None:
    console.print(f"no loss.png: {why}", highlight=False, markup=False)


def is_done(state: RunState, name: str, stages: Sequence[str]) -> bool:
    """Say whether a stage is at its end; one whose num_steps was raised goes on, unless later stages stand on it."""
    folder = run.final(state.out, name)
    if folder is None:
        return False
    step, wanted = int(run.state_of(folder)["step"]), getattr(state.job.stage, name).num_steps
    if wanted <= step:
        return True
    later = [s for s in stages[stages.index(name) + 1 :] if run.steps(state.out, s)]
    if later:
        raise JobError(
            f"stage {name} was finished at step {step}, and the job now says {wanted}",
            f"stage {later[0]} has been trained on what it was then",
            f"set stage.{name}.num_steps back to {step}, or begin a new run",
        )
    return False


def _result_folder(state: RunState) -> Path:
    return state.out / ("lora" if state.is_lora else "model")


def _write_result(state: RunState) -> None:
    try:
        _write_model_or_lora(state)
    except (CheckpointError, OSError) as error:
        what, because = f"`{_result_folder(state)}` cannot be written", (str(error),)
        if isinstance(error, CheckpointError):
            what, because = error.what, error.because
        elsewhere = f", or write it to another disk: sampan checkpoint export {state.out} FOLDER"
        raise CheckpointError(
            what,
            (
                *because,
                f"nothing that was trained is lost: every stage is saved at its end in `{state.out / 'stages'}`",
            ),
            f"make room, and call again with --resume{'' if state.is_lora else elsewhere}",
        ) from error


def _write_model_or_lora(state: RunState) -> None:
    target = _result_folder(state)
    if not state.is_lora:
        if target.exists():
            shutil.rmtree(target)
        export.export(state.out, target, None)
        return
    assert state.start is not None, "a job without a start has no LoRA"
    stages = state.job.train.stages
    lora_files.write(
        target,
        {name: export.part_tensors(state.out, name, None) for name in stages},
        alpha=state.job.lora.alpha,
        provenance={
            "base": state.start.hash,
            "seed": state.job.seed,
            "steps": {name: getattr(state.job.stage, name).num_steps for name in stages},
        },
    )
    state.console.print(
        f"use it: sampan generate PROMPT --model {state.job.model.start} --lora {target}", highlight=False
    )


class _StageRun:
    """One stage, from its newest checkpoint or from the beginning, to its end."""

    def __init__(self, state: RunState, name: str, log: RunLog, estimate: Estimate):
        self.state, self.name, self.log, self.estimate = state, name, log, estimate
        self.settings = getattr(state.job.stage, name)
        self.trainer = StageTrainer(state, name)
        self.stage, self.optimizer = self.trainer.stage, self.trainer.optimizer
        held_out = state.data.validation
        self.validation = make(name, state.stage_inputs(self.settings, held_out)) if held_out else None
        state.free_frozen()
        self.skipped_in_a_row = self.num_skipped = 0
        self.is_save_due = False

    def train(self) -> None:
        """Take every step that is left, saving on the way."""
        state, settings, name, train = self.state, self.settings, self.name, self.state.job.train
        step = first = self._restore()
        saver = self.saver
        num_rows = settings.micro_batch_size * settings.grad_accum_steps
        peak_flops_per_s = dev.matmul_flops_per_s(state.device, state.dtype)
        begun_s, paused_s = time.perf_counter(), 0.0
        with saver, stop_signals() as stop, ProgressDisplay(state.console, name, first, settings.num_steps) as show:
            while step < settings.num_steps:
                # draw the batches, compute loss and gradients, clip, update weights and average, let the stage follow up
                with memory_for(f"step {step + 1} of stage {name}", self._with_less()):
                    result = self.trainer.step(step)
                report = result.report
                step += 1

                # what it cost
                images_per_s = (step - first) * num_rows / (time.perf_counter() - begun_s - paused_s)
                flops_per_s = images_per_s * self.estimate.useful_flops_per_row
                mfu = flops_per_s / (peak_flops_per_s * parallel.num_ranks()) if peak_flops_per_s else None
                peak_memory_bytes = dev.peak_memory_bytes(state.device)
                pause_s = time.perf_counter()
                values = {"loss": report.loss, "lr": result.lr, "grad_norm": report.grad_norm}
                values["images_per_s"] = float(f"{images_per_s:.5g}")
                if mfu is not None:
                    values["mfu"] = round(mfu, 4)
                if peak_memory_bytes is not None:
                    values["peak_memory_bytes"] = peak_memory_bytes
                values |= {**report.values, **result.more}

                # what it is worth, now and then
                is_last = step == settings.num_steps
                must_stop = distributed.any_rank(bool(stop))
                if self.validation and (is_last or step % train.validate_every == 0):
                    values["validation_loss"] = self._validate()
                if train.sample_every and step % train.sample_every == 0:
                    self._sample(step)

                # log, show, save
                self.log.step(name, step, values, skipped=report.skipped)
                show(
                    step,
                    loss=report.loss,
                    images_per_s=images_per_s,
                    mfu=mfu,
                    memory_bytes=peak_memory_bytes,
                    skipped=self.num_skipped,
                )
                self._count_skipped(step, report)
                # while steps are skipped nothing is learned, and a save would push out one from before they began
                self.is_save_due |= step % train.save_every == 0
                saver.check()
                if not is_last and (must_stop or (self.is_save_due and not self.skipped_in_a_row)):
                    saver.begin(step, self.trainer.groups(), self._record(step, done=False))
                    self.is_save_due = False
                paused_s += time.perf_counter() - pause_s
                if must_stop:
                    saver.wait()
                    state.console.print(f"{name}: stopped at step {step}; go on with --resume")
                    raise KeyboardInterrupt
        self._finish(step)

    def _with_less(self) -> str:
        """Return what to do where a step has too little memory."""
        lower = f"stage.{self.name}.micro_batch_size (now {self.settings.micro_batch_size})"
        return f"lower {lower} or free memory, and go on with --resume from the last checkpoint"

    def _count_skipped(self, step: int, report: StepReport) -> None:
        """Stop when several steps in a row had no finite loss or gradient; say which samples they saw."""
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if report.skipped else 0
        self.num_skipped += report.skipped
        if not report.skipped:
            return
        bad = report.bad_micro or range(self.settings.grad_accum_steps)
        keys = [key for micro in bad for key in self.stage.draw(step - 1, micro).keys]
        self.log.event("skip", stage=self.name, step=step, loss=str(report.loss), samples=keys)
        if self.skipped_in_a_row == MAX_SKIPPED_IN_A_ROW:
            shown = ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
            raise DataError(
                f"stage {self.name} stopped at step {step}",
                [
                    f"loss or gradient was not finite {MAX_SKIPPED_IN_A_ROW} steps in a row, with loss {report.loss}",
                    f"the last of these steps saw {shown}; all of them are in {self.state.out / 'events.jsonl'}",
                ],
                f"lower stage.{self.name}.lr (now {self.settings.lr:g}), and go on with --resume from the last "
                "checkpoint",
            )

    def _validate(self) -> float:
        """Return the mean loss over the same batches of held-out samples, with the same random numbers, each time."""
        assert self.validation is not None, "the caller asks"
        count = min(_NUM_VALIDATION_BATCHES, self.settings.num_steps)
        own, losses = distributed.shard(count), []
        for together in distributed.rounds(count):
            batch = draw_in_step(self.validation, [(index, 0) for index in together])
            losses.append(self.optimizer.evaluate(self.stage.loss, self.trainer.on_device(batch)))
        losses = [loss for part in parallel.gathered(losses[: len(own)]) for loss in part]
        return sum(losses) / len(losses)

    def _sample(self, step: int) -> None:
        """Write a sample grid under the averaged weights, for a stage that has one."""
        if self.stage.sample is None:
            return
        samples = (self.state.data.validation or self.state.data.training)[:_NUM_SAMPLES]
        with self.optimizer.averaged() as module:
            image = self.stage.sample(module, samples) if distributed.is_main_process() else None
        self.state.free_frozen()
        if image is not None:
            self.log.image(self.name, step, "samples", image)

    def _finish(self, step: int) -> None:
        """Measure, draw, and record what follows from the finished part; the stage is done when this is saved."""
        state, stage = self.state, self.stage
        if stage.measure:
            with self.optimizer.averaged() as module:
                measures = stage.measure(module) if distributed.is_main_process() else {}
            self.log.step(self.name, step, measures)
            words = ", ".join(f"{key} {value:.4g}" for key, value in measures.items())
            state.console.print(f"{self.name}: {words}", highlight=False)
        if stage.finish:
            ema = export.select_part(self.optimizer.averages(), stage.prefix)
            state.config = stage.finish(state.part(self.name, ema))
            if distributed.is_main_process():
                export.write_config(state.out, state.config)
        self.saver.save(step, self.trainer.groups(), self._record(step, done=True))
        self._sample(step)  # after the save: what can go wrong here takes nothing away

    # --- checkpoints -------------------------------------------------------------------------------------------------

    def _restore(self) -> int:
        """Take over the newest whole checkpoint and return its step."""
        state, name = self.state, self.name
        with distributed.main_process_first():  # who comes first reads every file; what was right is remembered
            folder, notes = run.newest(state.out, name)
        saved = run.read_state(folder) if folder else None
        self.session = StageSession.after(
            saved,
            framework=frameworks.chosen(),
            device=state.device,
            dtype=state.dtype,
            threads=dev.set_threads(None),
            num_ranks=parallel.num_ranks(),
        )
        self.saver = StageSaver(state.out, name, self.session, state.job.train.keep_last, self._saved)
        step = int(saved["step"]) if saved else 0
        if folder and saved:
            notes += self.trainer.restore(folder)
            self.skipped_in_a_row = run.skipped_in_a_row(saved)
            words, facts = self._change_of_place()
            self.log.event("resume", stage=name, step=step, **facts)
            state.console.print(f"{name}: goes on at step {step}{words}", highlight=False)
        for note in notes:
            state.console.print(note, highlight=False)
        self.log.truncate(name, step)
        return step

    def _change_of_place(self) -> tuple[str, dict[str, Any]]:
        """Return, in words and for the log, from what to what the stage has moved; nothing where it has not."""
        if not self.session.before:
            return "", {}
        before, now = place_of(self.session.before[-1]), self.session.place()
        # an old record does not say everything
        if all(before[key] in (None, now[key]) for key in ("framework", "version", "device", "dtype")):
            return "", {}
        return f", from {in_words(before)} to {in_words(now)}", {"from": before, "to": now}

    def _record(self, step: int, done: bool) -> dict[str, Any]:
        """Return what a checkpoint says beside its tensors."""
        state, settings = self.state, self.settings
        return {
            "done": done,
            "skipped_in_a_row": self.skipped_in_a_row,
            "prefix": self.stage.prefix,
            "seed": state.job.seed,
            "rows_drawn": step * settings.micro_batch_size * settings.grad_accum_steps,
            "schedule": {name: getattr(settings, name) for name in ("lr", "min_lr_ratio", "warmup_steps", "num_steps")},
            "job": state.job.to_toml(),
        }

    def _saved(self, step: int) -> None:
        self.log.event("done" if step == self.settings.num_steps else "save", stage=self.name, step=step)
