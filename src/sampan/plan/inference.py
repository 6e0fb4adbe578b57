"""How long making pictures takes on one chip, and what it needs: in a thousand pictures, with the training's efficiencies.

The generator writes tokens one by one, and each reads all weights and the cache, so that memory limits it; the decoder's
steps multiply large matrices. Both follow from operators and speeds (sampan.plan.time). One number alone is fitted to times
of making pictures: what a launch takes where no gradient is recorded.
Left out: several chips for one picture, drawing tokens on the host, moving parts that are not on the chip, and PNG files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from sampan.catalog import frameworks
from sampan.catalog.records import Chip
from sampan.job import Job
from sampan.models import presets
from sampan.plan import efficiency
from sampan.plan.assumptions import Assumptions, Interval
from sampan.plan.conventions import CONVENTIONS
from sampan.plan.device_work import quantities
from sampan.plan.generation_memory import generation_needed
from sampan.plan.measured import MeasuredSteps
from sampan.plan.memory import ChipMemory
from sampan.plan.predict import StepPrediction
from sampan.plan.records import ParallelLayout, Phase, Workload, WorkloadBlock
from sampan.plan.time import PART_NAMES, ChipSpeeds, replaced, speeds, step_time
from sampan.plan.workloads.own.parts import tokenizer_blocks, vae_blocks
from sampan.plan.workloads.own.pictures import picture_phases
from sampan.units import format_bytes

NUM_PICTURES = 1000
BATCHES = (1, 2, 4, 8, 16, 32, 64)
_MAX_SPREAD = 1024  # chips over which one copy of the weights is thought to be spread
# Host seconds of a launch where nothing is recorded for a backward pass; a training's launches take longer. Fitted to the
# release's five text-to-picture times on an H100 (github.com/zai-org/GLM-Image, README.md, "Inference Cost", commit 12a4eef).
_LAUNCH_S = 25e-6
BASIS = (
    "Making pictures is predicted with the efficiencies of training; what a launch takes is fitted to 5 published times on "
    "an H100. Moving parts that do not all fit on the chip is left out."
)
_WEIGHT_BYTES = {"fp32": 4.0}
_KINDS = {"read the prompt": "ar", "write a token": "ar", "pixels": "vae"}


@dataclass(frozen=True, kw_only=True)
class InferenceRecipe:
    """What making a picture is.

    Args:
        phases: What a picture goes through.
        part_params: Values of the weights of each part of the model.
        has_guidance: Whether a step is computed with the prompt and without it.
    """

    name: str
    phases: tuple[Phase, ...]
    part_params: Mapping[str, float]
    side_px: int
    num_inference_steps: int
    num_references: int = 0
    precision: str = "bf16"

    @cached_property
    def params(self) -> float:
        """Values of all weights."""
        return sum(self.part_params.values())

    @cached_property
    def workloads(self) -> tuple[Workload, ...]:
        """The phases, each as work without a backward pass."""
        return tuple(
            Workload(
                name=f"{phase.name}, {self.name}",
                family=_KINDS.get(phase.name, "dit" if phase.name.startswith("a step") else "other"),
                sample="picture",
                blocks=phase.blocks,
            )
            for phase in self.phases
        )

    def said(self) -> str:
        """Return what is made, in words."""
        beside = f" from {self.num_references} references" if self.num_references else ""
        return f"{self.side_px} x {self.side_px} px in {self.num_inference_steps} steps{beside}, with guidance"


@dataclass(frozen=True, kw_only=True)
class InferenceEstimate:
    """Making pictures on one chip, as many at once as are quickest.

    Args:
        batch: Pictures at once.
        is_offloaded: Whether one part of the model is on the chip at a time, since all do not fit.
        time_s: Of NUM_PICTURES pictures.
        parts_s: By phase; they add up to its middle.
        alone_s: Of one picture by itself, from prompt to pixels.
    """

    chip: Chip
    framework: str
    batch: int
    is_offloaded: bool
    time_s: Interval
    parts_s: Mapping[str, float]
    alone_s: Interval
    memory: ChipMemory
    num_measurements: int
    basis: str

    @property
    def label(self) -> str:
        """The chip as it was asked for."""
        return self.chip.variant or self.chip.name

    @property
    def chip_hours(self) -> Interval:
        """Hours of the chip for NUM_PICTURES pictures."""
        return self.time_s.times(1 / 3600)


@dataclass(frozen=True, kw_only=True)
class NoInferenceEstimate:
    """A chip on which pictures cannot be made, or nobody can say how fast.

    Args:
        smallest_count: Least power of two of chips over which the weights could be spread; None where there is none, or
            where memory is not what fails.
    """

    chip: str
    framework: str
    reason: str
    smallest_count: int | None = None


def of_job(job: Job) -> InferenceRecipe:
    """Return how a job's model makes a picture: of its default size, or as [plan] says.

    Raises:
        PlanError: A size that the model cannot have.
    """
    config = presets.get(job.model.preset, job.model.override)
    side = job.plan.picture_px or config.geometry.default_px
    size = side, side
    phases = picture_phases(
        config, size, num_inference_steps=job.plan.num_inference_steps, prompt_tokens=job.plan.prompt_tokens,
        references=[size] * job.plan.references,
    )  # fmt: skip
    rows, columns = config.geometry.prior_grid(*size)
    blocks = {phase.name: phase.blocks for phase in phases}
    seen = tokenizer_blocks(config, rows * columns)
    return InferenceRecipe(
        name=job.model.preset,
        phases=tuple(phases),
        part_params={
            "generator": _params(blocks["read the prompt"]) + _params(seen),
            "glyph encoder": _params(blocks["spell the words"]),
            "decoder": _params(blocks["a step with the prompt"]),
            "autoencoder": _params(blocks["pixels"]) + _params(vae_blocks("encoder", config, size)),
        },
        side_px=side,
        num_inference_steps=job.plan.num_inference_steps,
        num_references=job.plan.references,
        precision={"auto": "bf16"}.get(job.place.dtype, job.place.dtype),
    )


def _params(blocks: Sequence[WorkloadBlock]) -> float:
    return sum(block.repeat * block.params for block in blocks)


class InferenceEstimator:
    """Predicts making one recipe's pictures on chips.

    Args:
        fitted: Efficiencies; None for those of the package.
        benches: The user's own measurements.
    """

    def __init__(
        self,
        recipe: InferenceRecipe,
        assumptions: Assumptions,
        fitted: efficiency.Efficiency | None = None,
        benches: MeasuredSteps | None = None,
    ):
        self.recipe = recipe
        self.assumptions = assumptions
        self.fitted = fitted or efficiency.load()
        self.benches = benches
        self.rates = replaced(self.fitted.rates, {"launch_s": _LAUNCH_S})
        self._needs: dict[tuple[int, bool, str], ChipMemory] = {}

    def on(self, chips: Iterable[Chip], names: Sequence[str]) -> list[InferenceEstimate | NoInferenceEstimate]:
        """Return for every chip and framework how pictures are made, or why not."""
        return [self.making(chip, name) for chip in chips for name in names]

    def making(self, chip: Chip, framework: str) -> InferenceEstimate | NoInferenceEstimate:
        """Return how pictures are made on a chip, or why they are not."""
        label = chip.variant or chip.name
        family = frameworks.family(framework)
        if not family.runs_on(chip.vendor):
            reason = f"it is written for chips of {' and '.join(family.makers)}"
            return NoInferenceEstimate(chip=label, framework=framework, reason=reason)
        speed = speeds(chip, self.recipe.precision)
        if isinstance(speed, str):
            reason = f"its time cannot be computed: nobody has published {speed}"
            return NoInferenceEstimate(chip=label, framework=framework, reason=reason)
        if chip.memory.bytes is None:
            reason = "whether it fits cannot be computed: nobody has published its memory"
            return NoInferenceEstimate(chip=label, framework=framework, reason=reason)
        room = chip.memory.bytes * self.assumptions.memory_share
        for is_offloaded in (False, True):
            fitting = [batch for batch in BATCHES if self.need(batch, is_offloaded, framework).total <= room]
            if fitting:
                break
        else:
            return self._too_large(label, framework, room)
        found = {batch: self._phases(chip, speed, framework, batch) for batch in fitting}
        batch = min(fitting, key=lambda one: sum(phase.step_s for phase in found[one].values()) / one)
        share = NUM_PICTURES / batch
        phases = found[batch]
        last = next(iter(phases.values()))
        return InferenceEstimate(
            chip=chip, framework=framework, batch=batch, is_offloaded=is_offloaded,
            time_s=_added(phases.values()).times(share),
            parts_s={name: phase.step_s * share for name, phase in phases.items()},
            alone_s=_added(found[1].values()), memory=self.need(batch, is_offloaded, framework),
            num_measurements=last.num_measurements, basis=last.basis,
        )  # fmt: skip

    def need(self, batch: int, is_offloaded: bool, framework: str) -> ChipMemory:
        """Return the memory of making `batch` pictures at once, with all parts on the chip or with the largest alone."""
        key = batch, is_offloaded, framework
        if key not in self._needs:
            recipe = self.recipe
            parts = recipe.part_params
            self._needs[key] = generation_needed(
                recipe.phases, params=max(parts.values()) if is_offloaded else recipe.params, batch=batch,
                weight_bytes=_WEIGHT_BYTES.get(recipe.precision, 2.0),
                context_bytes=CONVENTIONS[frameworks.family(framework).convention].context_bytes,
            )  # fmt: skip
        return self._needs[key]

    def _phases(self, chip: Chip, speed: ChipSpeeds, framework: str, batch: int) -> dict[str, StepPrediction]:
        """Return what each phase takes for `batch` pictures, all of its repeats."""
        found: dict[str, StepPrediction] = {}
        for phase, workload in zip(self.recipe.phases, self.recipe.workloads, strict=True):
            one = self._phase(phase, workload, chip, speed, framework, batch)
            # each reference is read once; phases of one name are one
            found[phase.name] = _both(found[phase.name], one) if phase.name in found else one
        return found

    def _phase(
        self, phase: Phase, workload: Workload, chip: Chip, speed: ChipSpeeds, framework: str, batch: int
    ) -> StepPrediction:
        q = quantities(workload, ParallelLayout(micro_batch=batch * phase.rows))
        time = replace(step_time(q, speed, self.rates), host_s=0.0)  # which is an update's
        levels = efficiency.levels(workload, chip, speed, framework, self.recipe.precision, "full", self.recipe.name)
        factor = phase.repeats * math.exp(self.fitted.offset(levels, efficiency.shares(time)))
        seconds = time.total_s * factor
        low, high = efficiency.interval(seconds, self.fitted.half_width(levels))
        number, basis = self.fitted.count(levels)
        found = StepPrediction(
            step_s=seconds, low_s=low, high_s=high, parts={name: getattr(time, name) * factor for name in PART_NAMES},
            num_measurements=number, basis=basis,
        )  # fmt: skip
        return found if self.benches is None else self.benches.tightened(found, chip, framework)

    def _too_large(self, label: str, framework: str, room: float) -> NoInferenceEstimate:
        whole, least = self.need(1, False, framework), self.need(1, True, framework)
        count = 2
        while count <= _MAX_SPREAD:
            if (whole.frozen + whole.activations) / count + whole.workspace + whole.reserve <= room:
                break
            count *= 2
        smallest = count if count <= _MAX_SPREAD else None
        after = (
            f"spread over {smallest:,} chips they would fit"
            if smallest
            else f"they fit on no number of chips up to {_MAX_SPREAD:,}"
        )
        return NoInferenceEstimate(
            chip=label, framework=framework, smallest_count=smallest,
            reason=f"one picture does not fit: all parts need {format_bytes(whole.total)}, one part at a time "
            f"{format_bytes(least.total)}, and a chip has {format_bytes(room)} for it; {after}",
        )  # fmt: skip


def _added(found: Iterable[StepPrediction]) -> Interval:
    """Return the phases one after another. They are off in the same direction: ends of intervals are added up."""
    phases = list(found)
    return Interval(
        low=sum(one.low_s for one in phases),
        typical=sum(one.step_s for one in phases),
        high=sum(one.high_s for one in phases),
    )


def _both(first: StepPrediction, second: StepPrediction) -> StepPrediction:
    return replace(
        first,
        step_s=first.step_s + second.step_s,
        low_s=first.low_s + second.low_s,
        high_s=first.high_s + second.high_s,
        parts={name: seconds + second.parts[name] for name, seconds in first.parts.items()},
    )
