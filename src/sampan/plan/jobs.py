"""A job as workloads: what each of its stages trains, how often, and what has to be supposed of it.

The job's batch is kept, whatever the chips; how it lies on them, in which passes, and what is computed again is chosen by
the search. Left out: validation, sample pictures, checkpoints, and the work of CPUs that open pictures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from sampan.errors import PlanError
from sampan.job import STAGES, Job
from sampan.models import presets
from sampan.models.config import ModelConfig
from sampan.plan.conventions import CONVENTIONS, MOMENTS, Convention
from sampan.plan.records import Workload
from sampan.plan.workloads.own.stages import stage_workload

_USES_ENCODED = ("ar", "decoder")


@dataclass(frozen=True, kw_only=True)
class StageWork:
    """One stage of a job at one size of pictures.

    Args:
        name: "decoder", or "decoder at 512 px" where there are several sizes.
        num_steps: Updates; a share of the stage's where there are several sizes.
        global_batch: Samples of an update; None takes what suits the chips (nothing is trained, `num_samples` counts).
        num_samples: All samples that pass, over all steps.
        method: "full" or "lora".
    """

    name: str
    workload: Workload
    num_steps: float
    global_batch: int | None
    num_samples: float
    method: str = "full"


@dataclass(frozen=True, kw_only=True)
class JobWork:
    """What a job asks for.

    Args:
        weights, moments: How trained weights and AdamW's moments are held, as in a job's [train].
        assumptions: What was supposed, in sentences.
    """

    name: str
    stages: tuple[StageWork, ...]
    precision: str = "bf16"
    weights: str = "fp32"
    moments: str = "fp32"
    assumptions: tuple[str, ...] = ()

    @cached_property
    def num_params(self) -> float:
        """Values of the largest stage's weights."""
        return max(stage.workload.params for stage in self.stages)

    def convention(self, name: str) -> Convention:
        """Return what is kept in memory under a framework's convention with this job's settings."""
        convention = CONVENTIONS["bf16"] if self.weights == "bf16" else CONVENTIONS[name]
        if self.weights == "bf16" or self.moments != "fp32":
            convention = replace(convention, moments=MOMENTS["adamw" if self.moments == "fp32" else "adamw-8bit"])
        if self.precision == "fp32" and self.weights == "fp32":
            convention = replace(convention, weight=4.0, compute=4.0, frozen=4.0, activation=4.0, master=0.0)
        return convention


def of_job(job: Job, stages: Sequence[str] | None = None, *, name: str = "job") -> JobWork:
    """Return what a job asks for.

    Args:
        stages: Of the job's, those that are planned; None for all, and the preparation of the pictures.

    Raises:
        PlanError: A stage is not one of the job's, or pictures have a size that the model cannot have.
        JobError: The model's preset cannot be built.
    """
    config = presets.get(job.model.preset, job.model.override)
    chosen = _chosen(job, stages)
    found = [stage for one in chosen if one != "preparation" for stage in _stages(job, config, one)]
    if "preparation" in chosen:
        found.insert(0, _preparation(job, config))
    return JobWork(
        name=name,
        stages=tuple(found),
        precision={"auto": "bf16"}.get(job.place.dtype, job.place.dtype),
        weights=job.train.weights,
        moments=job.train.moments,
        assumptions=tuple(_assumed(job, config, found)),
    )


def _chosen(job: Job, stages: Sequence[str] | None) -> list[str]:
    all_of_it = [*job.train.stages]
    if any(stage in all_of_it for stage in _USES_ENCODED):
        all_of_it.append("preparation")
    if stages is None:
        return all_of_it
    for stage in stages:
        if stage not in all_of_it:
            known = ", ".join(all_of_it)
            raise PlanError(f"--stages: `{stage}` is not a stage of this job", (), f"its stages: {known}")
    return [stage for stage in all_of_it if stage in stages]


def _sides(job: Job, config: ModelConfig) -> tuple[int, ...]:
    return job.data.resolutions_px or (config.geometry.default_px,)


def _stages(job: Job, config: ModelConfig, name: str) -> Iterator[StageWork]:
    """Yield a stage once for each size of pictures."""
    settings = getattr(job.stage, name)
    batch = settings.micro_batch_size * settings.grad_accum_steps
    lora = job.train.method == "lora"
    sides = _sides(job, config)
    if name == "vae" and job.stage.vae.crop_px is not None:
        sides = (job.stage.vae.crop_px,)
    elif name == "glyph":
        sides = sides[:1]  # it reads words
    for side in sides:
        count_work = partial(
            stage_workload,
            name,
            config,
            resolution_px=side,
            prompt_tokens=job.plan.prompt_tokens,
            references=[(side, side)] * job.plan.references if name in _USES_ENCODED else (),
            lora_rank=job.lora.rank if lora else None,
            ema=settings.ema_decay > 0,
            batch=settings.micro_batch_size,
            name=job.model.preset,
        )
        workload = count_work(lora_targets=job.lora.targets)
        if lora and workload.trained_params == 0:  # the names are of the other stage's layers
            workload = count_work()
        yield StageWork(
            name=name if len(sides) == 1 else f"{name} at {side} px",
            workload=workload,
            num_steps=settings.num_steps / len(sides),
            global_batch=batch,
            num_samples=settings.num_steps / len(sides) * batch,
            method=job.train.method,
        )


def _preparation(job: Job, config: ModelConfig) -> StageWork:
    largest = max(_sides(job, config))
    number = _pictures(job)
    return StageWork(
        name="preparation",
        workload=stage_workload("preparation", config, resolution_px=largest, name=job.model.preset),
        num_steps=1,
        global_batch=None,
        num_samples=number,
    )


def _pictures(job: Job) -> int:
    """Return how many pictures are prepared at most."""
    settings = [getattr(job.stage, name) for name in STAGES if name in job.train.stages]
    drawn = max(one.num_steps * one.micro_batch_size * one.grad_accum_steps for one in settings)
    return drawn if job.data.limit is None else min(drawn, job.data.limit)


def _assumed(job: Job, config: ModelConfig, stages: Sequence[StageWork]) -> Iterator[str]:
    sides = _sides(job, config)
    said = " and ".join(f"{side}" for side in sides)
    yield f"Model: preset {job.model.preset}" + (", with the job's overrides." if job.model.override else ".")
    if job.model.start is not None:
        yield f"The folder `{job.model.start}` is not read: sizes are the preset's."
    if len(sides) > 1:
        yield f"Pictures are squares of {said} px, and each of these sides gets the same share of a stage's steps."
    else:
        yield f"Pictures are squares of {said} px."
    yield f"A prompt has {job.plan.prompt_tokens} tokens; a sample has {job.plan.references} references."
    if job.place.dtype == "auto":
        yield "Products are in 16 bits (place.dtype is auto)."
    for stage in stages:
        if stage.global_batch is None:
            yield (
                f"At most {math.ceil(stage.num_samples):,} pictures are prepared: as many as a stage draws, each once; "
                "CPUs that open them keep up."
            )
        else:
            yield from (f"{stage.name}: {note}" for note in stage.workload.notes)
