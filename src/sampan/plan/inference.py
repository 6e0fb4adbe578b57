"""How long making pictures takes on one chip, and what it needs: in a thousand pictures, with the training's efficiencies.

The AR generator writes tokens one by one, and each reads all weights and the cache, so that memory limits it; the diffusion
decoder's steps multiply large matrices. Both follow from operators and speeds (sampan.plan.time). One number alone is fitted
to times of making pictures: what a launch takes where no gradient is recorded. Of memory, all parts stay on the chip, and
one phase works at a time.
Left out: several chips for one picture, sampling tokens on the host, moving parts that are not on the chip, pixels made in
tiles, and PNG files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from operator import add

from sampan.catalog import frameworks
from sampan.catalog.records import Chip
from sampan.job import Job
from sampan.models import presets
from sampan.plan import efficiency
from sampan.plan.conventions import CONVENTIONS
from sampan.plan.cost import Assumptions
from sampan.plan.device_work import device_work
from sampan.plan.measured import MeasuredSteps
from sampan.plan.memory import ChipMemory
from sampan.plan.planner import Infeasible, usable
from sampan.plan.predict import StepPrediction, predict_time
from sampan.plan.records import Interval, Op, ParallelLayout, Phase, Workload, WorkloadBlock
from sampan.plan.time import ChipSpeeds, step_time
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
_VALUE_BYTES = 2
_LARGEST_INDEXED = 2**31 - 1  # values of one picture's tensor that convolution libraries with 32-bit indices take
# A convolution is given its input, and returns its result, in an order of its own: both are there twice.
_COPIES = 2
# A norm and its activation move four tensors, of which three are there at once: input, norm, result.
_AT_ONCE = 0.75
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
        return self.chip.label

    @property
    def chip_hours(self) -> Interval:
        """Hours of the chip for NUM_PICTURES pictures."""
        return self.time_s.times(1 / 3600)

    @property
    def rests_on(self) -> str:
        """How many published runs it rests on, and which, in words."""
        return f"{self.num_measurements} {self.basis}" if self.num_measurements else self.basis


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


def inference_memory(
    phases: Sequence[Phase], *, params: float, batch: int = 1, weight_bytes: float = 2.0, context_bytes: float = 0.0
) -> ChipMemory:
    """Return the memory that making `batch` pictures together needs, at the phase that needs most.

    Args:
        phases: What a picture goes through.
        params: Values of all weights that are on the chip, used or not.
        context_bytes: The driver's; a framework's own counter leaves it out.
    """
    work = cache = 0.0
    for phase in phases:
        largest = max((_alive(op) for block in phase.blocks for op in block.ops), default=0.0)
        now = _VALUE_BYTES * batch * phase.rows * largest
        held = _VALUE_BYTES * batch * phase.cache_values
        if now + held > work + cache:
            work, cache = now, held
    return ChipMemory(frozen=weight_bytes * params, activations=cache, workspace=work, reserve=context_bytes)


def _alive(op: Op) -> float:
    """Return the values that are there at once while one picture's operator works."""
    if op.kind == "memory":
        return _AT_ONCE * op.values
    if op.kind == "conv":
        result = op.rows * op.cols
        return op.values * (_COPIES if max(result, op.values - result) <= _LARGEST_INDEXED else 1)
    return op.values


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
        self.rates = replace(self.fitted.rates, launch_s=_LAUNCH_S)
        self._needs: dict[tuple[int, bool, str], ChipMemory] = {}

    def estimates(self, chips: Iterable[Chip], names: Sequence[str]) -> list[InferenceEstimate | Infeasible]:
        """Return for every chip and framework how pictures are made, or why not."""
        return [self.estimate(chip, name) for chip in chips for name in names]

    def estimate(self, chip: Chip, framework: str) -> InferenceEstimate | Infeasible:
        """Return how pictures are made on a chip, or why they are not."""
        limits = usable(chip, framework, self.recipe.precision, self.assumptions.memory_share)
        if isinstance(limits, str):
            return Infeasible(chip=chip.label, framework=framework, reason=limits)
        speed, room = limits
        for is_offloaded in (False, True):
            fitting = [batch for batch in BATCHES if self.need(batch, is_offloaded, framework).total <= room]
            if fitting:
                break
        else:
            return self._too_large(chip, framework, room)
        phases_of = {batch: self._phases(chip, speed, framework, batch) for batch in fitting}
        batch = min(fitting, key=lambda batch: sum(phase.step_s for phase in phases_of[batch].values()) / batch)
        share = NUM_PICTURES / batch
        phases = phases_of[batch]
        first = next(iter(phases.values()))
        return InferenceEstimate(
            chip=chip, framework=framework, batch=batch, is_offloaded=is_offloaded,
            time_s=_in_sequence(phases).times(share),
            parts_s={name: phase.step_s * share for name, phase in phases.items()},
            alone_s=_in_sequence(phases_of[1]), memory=self.need(batch, is_offloaded, framework),
            num_measurements=first.num_measurements, basis=first.basis,
        )  # fmt: skip

    def need(self, batch: int, is_offloaded: bool, framework: str) -> ChipMemory:
        """Return the memory of making `batch` pictures at once, with all parts on the chip or with the largest alone."""
        key = batch, is_offloaded, framework
        if key not in self._needs:
            recipe = self.recipe
            parts = recipe.part_params
            self._needs[key] = inference_memory(
                recipe.phases, params=max(parts.values()) if is_offloaded else recipe.params, batch=batch,
                weight_bytes=_WEIGHT_BYTES.get(recipe.precision, 2.0),
                context_bytes=CONVENTIONS[frameworks.family(framework).convention].context_bytes,
            )  # fmt: skip
        return self._needs[key]

    def _phases(self, chip: Chip, speed: ChipSpeeds, framework: str, batch: int) -> dict[str, StepPrediction]:
        """Return what each phase takes for `batch` pictures, all of its repeats."""
        phases: dict[str, StepPrediction] = {}
        for phase, workload in zip(self.recipe.phases, self.recipe.workloads, strict=True):
            prediction = self._phase(phase, workload, chip, speed, framework, batch)
            # each reference is read once; phases of one name are one
            phases[phase.name] = _both(phases[phase.name], prediction) if phase.name in phases else prediction
        return phases

    def _phase(
        self, phase: Phase, workload: Workload, chip: Chip, speed: ChipSpeeds, framework: str, batch: int
    ) -> StepPrediction:
        work = device_work(workload, ParallelLayout(micro_batch=batch * phase.rows))
        time = replace(step_time(work, speed, self.rates), host_s=0.0)  # which is an update's
        levels = efficiency.levels(workload, chip, speed, framework, self.recipe.precision, "full", self.recipe.name)
        prediction = predict_time(time, levels, self.fitted, repeats=phase.repeats)
        return prediction if self.benches is None else self.benches.calibrate(prediction, chip, framework)

    def _too_large(self, chip: Chip, framework: str, room: float) -> Infeasible:
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
        return Infeasible(
            chip=chip.label, framework=framework, smallest_count=smallest,
            reason=f"one picture does not fit: all parts need {format_bytes(whole.total)}, one part at a time "
            f"{format_bytes(least.total)}, and a chip has {format_bytes(room)} for it; {after}",
        )  # fmt: skip


def _in_sequence(phases: Mapping[str, StepPrediction]) -> Interval:
    """Return the phases one after another. They are off in the same direction: ends of intervals are added up."""
    return reduce(add, (phase.span for phase in phases.values()))


def _both(first: StepPrediction, second: StepPrediction) -> StepPrediction:
    return replace(
        first,
        step_s=first.step_s + second.step_s,
        low_s=first.low_s + second.low_s,
        high_s=first.high_s + second.high_s,
        parts={name: seconds + second.parts[name] for name, seconds in first.parts.items()},
    )
