"""Whether a stage fits on its device, known before anything is loaded, and which settings would make it fit.

Weights, gradients, moments and averages follow from counts of values; what lives during a pass comes from
sampan.frameworks.meter. What a device's kernels take for themselves, and how its allocator rounds, is not in it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from sampan.errors import JobError
from sampan.units import format_bytes

if TYPE_CHECKING:
    from sampan.frameworks.records import ParameterCount, PassCost

_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
_BLOCK = 256  # values that share the scale of a moment in 8 bits
_TIGHT = 0.95  # share of the free memory from which on a warning is due


@dataclass(frozen=True)
class StageMemory:
    """Memory of one stage, in bytes, by what takes it; all of it at the worst moment of a step.

    Args:
        weights: Trained and frozen ones of the part that is trained.
        gradients: Of the trained weights.
        moments: AdamW's.
        average: The weights' moving average.
        activations: What a pass adds to these at its worst moment, with what its operations make in between.
        workspace: What the update adds, where that is more than a pass adds.
        batch: The pictures, ids and noise of a micro-batch.
        parts: Finished parts that stay on the device.
        frozen_rows: Of tables, where weights are in slices: they are whole on every rank. Else they are among the weights.
    """

    weights: int
    gradients: int
    moments: int
    average: int
    activations: int
    workspace: int = 0
    batch: int = 0
    parts: int = 0
    frozen_rows: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return sum(getattr(self, field.name) for field in fields(self))

    def __str__(self) -> str:
        """Return "81.0 GiB: weights 14.0 GiB, gradients 14.0 GiB, …", without what takes nothing."""
        named = ((field.name, getattr(self, field.name)) for field in fields(self))
        return f"{format_bytes(self.total)}: " + ", ".join(f"{name} {format_bytes(n)}" for name, n in named if n)


def needed(
    count: ParameterCount,
    measured: PassCost,
    *,
    trained_dtype: str,
    frozen_dtype: str,
    moments: str,
    averaged: bool,
    grad_accum_steps: int = 1,
    parts_bytes: int = 0,
    num_slices: int = 1,
    whole_bytes: int = 0,
) -> StageMemory:
    """Return the memory that a stage takes.

    Args:
        count: Values of the trained part.
        measured: One micro-batch, with weights of these dtypes.
        trained_dtype, frozen_dtype: "fp32", "bf16" or "fp16", of trained and of other weights.
        moments: "fp32" or "8bit".
        averaged: Whether there is a moving average of the weights; it is fp32.
        grad_accum_steps: With more than one, a pass finds the gradients of the one before in place. With one, they come
            while activations go, and the two are never whole together.
        parts_bytes: Finished parts on the device.
        num_slices: In how many slices ranks hold weights, gradients, moments and average. Rows of a table that are not
            trained are whole on every rank.
        whole_bytes: What a rank has whole of them at a time.
    """
    size = _BYTES[trained_dtype]
    gradients = count.trained * size // count.num_ranks
    coded = count.coded if moments == "8bit" else 0
    tensorwise = coded or trained_dtype == "bf16"
    single = max(0, measured.peak_bytes - gradients)
    # ranks keep a part of the gradients each, and a pass makes them whole beside it
    apart = grad_accum_steps > 1 or count.num_ranks > 1 or measured.working_bytes
    activations = measured.activation_bytes if apart else single
    workspace = max(count.update_bytes, min(count.workspace_bytes, 9 * 4 * count.trained) if tensorwise else 0)
    weights, rows = count.trained * size, count.frozen_rows * size
    if measured.working_bytes:
        weights, rows = measured.working_bytes + count.trained * size // count.num_ranks, 0
    weights += count.frozen * _BYTES[frozen_dtype]
    if num_slices > 1:
        activations = measured.activation_bytes + whole_bytes
    return StageMemory(
        weights=-(-weights // num_slices) if num_slices > 1 else weights + rows,
        gradients=-(-gradients // num_slices),
        moments=2 * (4 * (count.trained - coded) + coded + 4 * (coded // _BLOCK)) // (count.num_ranks * num_slices),
        average=4 * count.trained // (count.num_ranks * num_slices) if averaged else 0,
        activations=activations,
        workspace=max(0, workspace - activations),
        batch=measured.batch_bytes,
        parts=parts_bytes,
        frozen_rows=rows if num_slices > 1 else 0,
    )


@dataclass(frozen=True)
class MemorySetting:
    """A setting that saves memory: its name in the job file, and the values to try, nearest to the present one first."""

    name: str
    values: tuple[Any, ...]


def alternatives(
    dials: Sequence[MemorySetting], need_of: Callable[[Mapping[str, Any]], StageMemory]
) -> Iterator[tuple[str, StageMemory]]:
    """Yield what could be set instead, in words, and what is needed then: one setting at a time, then two, and so on.

    Args:
        dials: The one that costs least first.
        need_of: Returns the need with some settings replaced; it is only asked for what is looked at.
    """
    for how_many in range(1, len(dials) + 1):
        for chosen in itertools.combinations(dials, how_many):
            for values in itertools.product(*(dial.values for dial in chosen)):
                replaced = {dial.name: value for dial, value in zip(chosen, values, strict=True)}
                yield (
                    " and ".join(f"{name} = {json.dumps(value)}" for name, value in replaced.items()),
                    need_of(replaced),
                )


def refuse_or_say(
    stage: str,
    device: str,
    need: StageMemory,
    total_bytes: int | None,
    free_bytes: int | None,
    instead: Iterable[tuple[str, StageMemory]],
) -> list[str]:
    """Return in lines what a stage will take, or refuse it.

    Args:
        total_bytes, free_bytes: Of the device; None is not known, and then nothing is refused.
        instead: As `alternatives` yields it: looked at only where the stage does not fit, up to the first that does.

    Raises:
        JobError: It does not fit. The hint names the first of `instead` that does, or says that none does.
    """
    if free_bytes is None:
        return [f"{stage} needs {need}", f"how much memory `{device}` has free is not known"]
    if need.total <= free_bytes:
        said = [f"{stage} needs {need}; {format_bytes(free_bytes)} are free on `{device}`"]
        if need.total > _TIGHT * free_bytes:
            said.append("that is close: what kernels take for themselves is not counted")
        return said
    least: tuple[str, StageMemory] | None = None
    hint = None
    for words, other in instead:
        if other.total <= free_bytes:
            hint = f"{words} needs {format_bytes(other.total)} and fits"
            break
        if least is None or other.total < least[1].total:
            least = words, other
    if hint is None:
        hint = "use a device with more memory, or smaller pictures: no setting makes it fit"
        if least is not None:
            hint += f"; the least, {format_bytes(least[1].total)}, is needed with {least[0]}"
    of_all = f" of {format_bytes(total_bytes)}" if total_bytes is not None else ""
    raise JobError(
        f"stage {stage} does not fit on `{device}`",
        [f"{format_bytes(free_bytes)}{of_all} are free there", f"it would need {need}"],
        hint,
    )
