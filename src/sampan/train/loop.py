"""A whole training run, in reading order: set up, learn the words, train stage after stage, write the model.

Everything a step needs is decided by (seed, stage, step), so that a run that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sampan import __version__, files, frameworks
from sampan.checkpoint import export, run
from sampan.checkpoint.folder import TOKENIZER_FILES, open_folder
from sampan.data import readers
from sampan.data.encode import Encoded, Pictures, encode_pictures
from sampan.errors import DataError, JobError
from sampan.frameworks import device as dev
from sampan.frameworks import update
from sampan.job import STAGES, Job
from sampan.models import presets, text
from sampan.models.build import build
from sampan.models.config import ModelConfig
from sampan.models.init import initial_weights
from sampan.progress import bars
from sampan.train.guard import locked, stop_signals
from sampan.train.schedule import learning_rate
from sampan.train.stages import Context, Stage, caption_texts, make, unique_pictures

MAX_SKIPPED_IN_A_ROW = 5


def train(job: Job, *, resume: bool, console: Any) -> Path:
    """Train a job's stages and return the folder of the finished model.

    Args:
        resume: Go on with the run in `job.out`; where there is none, begin it.
        console: A rich console for progress and messages.

    Raises:
        JobError, DataError, CheckpointError, DeviceError: Before anything long begins, where it can be known.
        KeyboardInterrupt: After the state has been saved.
    """
    frameworks.use(job.place.framework)
    device = dev.resolve(job.place.device)
    dtype = dev.resolve_dtype(job.place.dtype, device)
    dev.set_threads(job.place.threads)
    with locked(job.out):
        trainer = _Trainer(job, device, dtype, resume, console)
        for stage in trainer.stages:
            trainer.train_stage(stage)
        return trainer.write_model()


class _Trainer:
    """The state that the stages of one run share."""

    def __init__(self, job: Job, device: str, dtype: str, resume: bool, console: Any):
        self.job, self.device, self.dtype, self.console = job, device, dtype, console
        self.out = job.out
        self.stages = [stage for stage in STAGES if stage in job.train.stages]
        self.start = open_folder(job.model.start) if job.model.start else None
        preset = presets.get(job.model.preset, job.model.override)
        config = self.start.config if self.start else preset
        if not self.start and len(self.stages) < len(STAGES):
            missing = ", ".join(f"`{s}`" for s in STAGES if s not in self.stages)
            raise JobError(
                f"the job trains only {', '.join(f'`{s}`' for s in self.stages)}",
                f"a model also needs {missing}, and there is no `model.start` to take them from",
                "set model.start to a model folder, or train all stages",
            )
        self.samples, report = readers.get(job.data.reader)(
            job.data.path, max_bad_share=job.data.max_bad_share, limit=job.data.limit
        )
        if not self.samples:
            raise DataError(f"there is nothing to train on in `{job.data.path}`", "no row of it can be used")
        if report.bad:
            console.print(f"{len(report.bad)} of {report.num_rows} rows cannot be used and are left out")
        paths, self.image_of, self.references_of = unique_pictures(self.samples)
        side = config.geometry.default_px
        self.pictures = Pictures(paths, side, side)
        self._begin(config, resume)
        self.prompt_tokenizer = text.PromptTokenizer(
            (self.out / "processor" / "tokenizer.json").read_text(encoding="utf-8"),
            json.loads((self.out / "processor" / "tokenizer_config.json").read_text(encoding="utf-8")),
        )
        self._frozen: dict[str, Any] = {}
        self._encoded: Encoded | None = None

    def _begin(self, config: ModelConfig, resume: bool) -> None:
        """Make the run folder, or check that the one that is there belongs to this job; leaves `self.config`."""
        identity = {
            "seed": self.job.seed,
            "model": self.job.as_dict()["model"],
            "data": {"path": str(self.job.data.path), "pictures": len(self.pictures), "samples": len(self.samples)},
        }
        record = self.out / "run.json"
        if record.is_file():
            if not resume:
                raise JobError(
                    f"`{self.out}` already holds a run",
                    (),
                    "pass --resume to go on with it, or set `out` to another folder",
                )
            before = json.loads(record.read_text(encoding="utf-8"))
            for key, value in identity.items():
                if before[key] != value:
                    raise JobError(
                        f"the run in `{self.out}` was begun with another job",
                        f"its {key} is {json.dumps(before[key])}, the job says {json.dumps(value)}",
                        "go on with the job it was begun with, or set `out` to another folder",
                    )
            self.config = export.read_config(self.out)
            return
        occupied = [path for path in self.out.iterdir() if not path.name.startswith(".")] if self.out.exists() else []
        if occupied:
            raise JobError(
                f"`{self.out}` is not empty and holds no run",
                f"it has `{occupied[0].name}`",
                "set `out` to another folder",
            )
        (self.out / "processor").mkdir(parents=True, exist_ok=True)
        if self.start:
            learned = {name: (self.start.path / "processor" / name).read_bytes() for name in TOKENIZER_FILES}
        else:
            learned = text.train_tokenizer(
                caption_texts(self.samples),
                config.ar.text.vision_vocab_size,
                config.ar.vq.num_embeddings,
                config.ar.text.vocab_size - config.ar.text.vision_vocab_size - text.NUM_SPECIALS,
            )
        for name, data in learned.items():
            (self.out / "processor" / name).write_bytes(data)
        if not self.start:
            config = text.with_token_ids(config, learned)
        (self.out / "job.toml").write_text(self.job.to_toml(), encoding="utf-8")
        export.write_config(self.out, config)
        self.config = config
        files.write_text(
            record, json.dumps({**identity, "sampan": __version__, "framework": frameworks.chosen()}, indent=2)
        )

    # --- one stage -----------------------------------------------------------------------------------------------------

    def train_stage(self, name: str) -> None:
        """Train one stage from its newest checkpoint, or from the beginning, to its end."""
        if run.final(self.out, name):
            self.console.print(f"{name}: done before")
            return
        settings = getattr(self.job.stage, name)
        self._free_frozen()
        stage = make(name, self._context(settings))
        updater = self._prepare(name, stage, settings)
        step, skipped = self._restore(name, stage, updater), 0
        began, first = time.perf_counter(), step
        with stop_signals() as stop, self._bar(name, step, settings.num_steps) as show:
            while step < settings.num_steps:
                lr = learning_rate(step, settings.num_steps, settings.warmup_steps, settings.lr, settings.min_lr_ratio)
                batches = [
                    tuple(dev.array(a, self.device) for a in stage.draw(step, micro))
                    for micro in range(settings.grad_accum_steps)
                ]
                report = updater.step(stage.loss, batches, lr)
                more = stage.after(step) if stage.after else {}
                step += 1
                speed = (step - first) * settings.micro_batch_size * settings.grad_accum_steps
                speed /= time.perf_counter() - began
                self._log(name, step, report, lr, speed, more)
                show(step, report.loss, speed)
                skipped = skipped + 1 if report.skipped else 0
                if skipped == MAX_SKIPPED_IN_A_ROW:
                    raise DataError(
                        f"stage {name} stopped at step {step}",
                        f"loss or gradient was not finite {skipped} steps in a row, with loss {report.loss}",
                        f"lower stage.{name}.lr (now {settings.lr:g}), and go on with --resume from the last checkpoint",
                    )
                if step < settings.num_steps and (stop or step % self.job.train.save_every == 0):
                    self._save(name, stage, updater, step, done=False)
                if stop:
                    self.console.print(f"{name}: stopped at step {step}; go on with --resume")
                    raise KeyboardInterrupt
        if stage.finish:
            ema = export.own_tensors(updater.state()["ema"], stage.prefix)
            self.config = stage.finish(self._part(name, ema))
            export.write_config(self.out, self.config)
        self._save(name, stage, updater, step, done=True)

    def _context(self, settings: Any) -> Context:
        return Context(
            settings=settings,
            seed=self.job.seed,
            config=self.config,
            samples=self.samples,
            image_of=self.image_of,
            references_of=self.references_of,
            pictures=self.pictures,
            prompt_tokenizer=self.prompt_tokenizer,
            device=self.device,
            dtype="fp32",  # ids and latents that training stands on are computed in full
            frozen=self.frozen,
            encoded=self.encoded,
        )

    def _prepare(self, name: str, stage: Stage, settings: Any) -> update.Updater:
        """Give the module its first weights, on the device, and an optimizer."""
        shapes = {key: tuple(value.shape) for key, value in stage.module.state_dict().items()}
        weights: dict[str, Any] = {
            key: dev.array(value, "cpu") for key, value in initial_weights(shapes, self.job.seed).items()
        }
        if self.start:
            part = self.start.tensors(name, "cpu")
            weights.update({stage.prefix + key: value for key, value in part.items()})
        update.load_weights(stage.module, weights)
        dev.move(stage.module, self.device)
        return update.Updater(
            stage.module,
            lr=settings.lr,
            beta1=settings.beta1,
            beta2=settings.beta2,
            weight_decay=settings.weight_decay,
            clip_norm=settings.clip_norm,
            ema_decay=settings.ema_decay,
            autocast=self.dtype,
        )

    def _restore(self, name: str, stage: Stage, updater: update.Updater) -> int:
        folders = run.steps(self.out, name)
        kept = int(folders[-1].name.removeprefix("step-")) if folders else 0
        self._forget(name, kept)
        if not folders:
            return 0
        state = run.read_state(folders[-1])
        groups = run.read_groups(folders[-1], self.device)
        updater.load_state(groups)
        for key, value in groups["extra"].items():
            stage.extra[key][...] = dev.to_numpy(value)
        self.console.print(f"{name}: goes on at step {state['step']}")
        return int(state["step"])

    def _save(self, name: str, stage: Stage, updater: update.Updater, step: int, done: bool) -> None:
        groups = {**updater.state(), "extra": {k: dev.array(v, "cpu") for k, v in stage.extra.items()}}
        state = {
            "done": done,
            "prefix": stage.prefix,
            "seed": self.job.seed,
            "framework": frameworks.chosen(),
            "device": self.device,
            "sampan": __version__,
        }
        run.save(self.out, name, step, groups, state)
        run.keep_last(self.out, name, self.job.train.keep_last)

    def _log(
        self, name: str, step: int, report: update.Report, lr: float, speed: float, more: dict[str, float]
    ) -> None:
        line = {
            "stage": name,
            "step": step,
            "loss": report.loss,
            "lr": lr,
            "grad_norm": report.grad_norm,
            "images_per_s": round(speed, 2),
            **report.values,
            **more,
            **({"skipped": True} if report.skipped else {}),
        }
        with open(self.out / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _forget(self, name: str, step: int) -> None:
        """Drop the log's lines of steps that a stage is about to take again."""
        path = self.out / "log.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        kept = []
        for line in lines:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # the end of a run that was killed while it wrote
                continue
            if row["stage"] != name or row["step"] <= step:
                kept.append(line)
        if len(kept) < len(lines):
            files.write_text(path, "".join(line + "\n" for line in kept))

    @contextmanager
    def _bar(self, name: str, step: int, num_steps: int) -> Iterator[Any]:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}"),
            TextColumn("{task.fields[speed]:.1f} pictures/s"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(name, total=num_steps, completed=step, loss=float("nan"), speed=0.0)
            yield lambda done, loss, speed: progress.update(task, completed=done, loss=loss, speed=speed)

    # --- finished parts ------------------------------------------------------------------------------------------------

    def _part(self, name: str, tensors: dict[str, Any]) -> Any:
        """Return a part with the given weights, on the device, out of training."""
        part = build(name, self.config)
        update.load_weights(part, tensors)
        update.freeze(part)
        dev.move(part, self.device)
        return part

    def frozen(self, name: str) -> Any:
        """Return a finished part: this run's averaged weights, or those it started from."""
        if name not in self._frozen:
            self._frozen[name] = self._part(name, export.part_tensors(self.out, name, self.start))
        return self._frozen[name]

    def _free_frozen(self) -> None:
        self._frozen.clear()
        dev.release(self.device)

    def encoded(self) -> Encoded:
        """Return the pictures as the finished tokenizer and autoencoder see them."""
        if self._encoded is None:
            key = " ".join(export.part_hash(self.out, name, self.start) for name in ("tokenizer", "vae"))
            with bars(self.console) as show:
                self._encoded = encode_pictures(
                    self.pictures,
                    lambda: self.frozen("tokenizer"),
                    lambda: self.frozen("vae"),
                    key,
                    self.out / "cache",
                    self.config,
                    self.device,
                    "fp32",
                    show,
                )
        return self._encoded

    def write_model(self) -> Path:
        """Write the finished model in the released layout and return its folder."""
        target = self.out / "model"
        if target.exists():
            shutil.rmtree(target)
        return export.export(self.out, target, None)
