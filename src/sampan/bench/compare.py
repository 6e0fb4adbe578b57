"""How far one backend's answer is from another's, and when that is too far to be timed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampan.bench.backends import Backend
from sampan.errors import SampanError

# Of the largest value of a tensor. In fp32 frameworks differ by about 1e-5 through the order of their sums; a wrong formula
# differs by more than 1e-2. bf16 has 8 bits, which a dozen layers deep leave about 2e-2.
TOLERANCE = {"fp32": 2e-4, "fp16": 2e-2, "bf16": 1e-1}
# a gradient that is small beside the largest of all comes of terms that cancel, and has their rounding
FLOOR = 1e-3
_NAMED = 3  # tensors that an error names


@dataclass(frozen=True)
class StepOutput:
    """What a backend made of the first batch: its loss, and a file with every gradient by name."""

    backend: Backend
    loss: float
    gradients: Path


@dataclass(frozen=True)
class OutputDifference:
    """How far an answer is from the reference; errors are of the largest value.

    Args:
        worst: Tensors and their errors, the worst first.
    """

    loss: float
    worst: Sequence[tuple[str, float]]

    def as_dict(self) -> dict[str, Any]:
        """Return it for a record."""
        name, error = self.worst[0]
        return {"loss": self.loss, "gradient": error, "tensor": name}


def relative_error(mine: NDArray[Any], reference: NDArray[Any], floor: float = 0.0) -> float:
    """Return max|mine - reference| over the larger of max|reference| and `floor`; infinite where that cannot be said."""
    if mine.shape != reference.shape or not (np.isfinite(mine).all() and np.isfinite(reference).all()):
        return math.inf
    if not mine.size:
        return 0.0
    # a difference of unsigned or boolean arrays would not be one
    wide = np.float64 if mine.dtype.kind in "biu" else np.result_type(mine.dtype, np.float32)
    error = float(np.abs(mine.astype(wide) - reference.astype(wide)).max())
    scale = max(float(np.abs(reference.astype(wide)).max()), floor)
    return error / scale if scale else (0.0 if error == 0 else math.inf)


def loss_error(mine: float, reference: float) -> float:
    """Return the relative error of a loss; not a number where the loss is none."""
    return abs(mine - reference) / max(abs(reference), 1e-30)


def gradient_floor(gradients: Mapping[str, NDArray[Any]]) -> float:
    """Return the size below which a gradient is compared with the largest of all, and not with itself."""
    return FLOOR * max((float(np.abs(gradient).max(initial=0.0)) for gradient in gradients.values()), default=0.0)


def output_difference(reference: StepOutput, answer: StepOutput) -> OutputDifference:
    """Compare loss and gradients. A tensor that only one backend has is infinitely far."""
    loss = loss_error(answer.loss, reference.loss)
    with np.load(reference.gradients) as theirs, np.load(answer.gradients) as mine:
        floor = gradient_floor(theirs)
        errors = dict.fromkeys({*theirs.files} ^ {*mine.files}, math.inf)
        for name in {*theirs.files} & {*mine.files}:
            errors[name] = relative_error(mine[name], theirs[name], floor)
    worst = sorted(errors.items(), key=lambda one: (-one[1], one[0]))
    return OutputDifference(loss if math.isfinite(loss) else math.inf, worst)


def require_alike(reference: StepOutput, answer: StepOutput, dtype: str) -> OutputDifference:
    """Return the difference of two answers.

    Raises:
        SampanError: It is too large: what would be timed is wrong on one backend. Names it, tensors and errors.
    """
    found, allowed = output_difference(reference, answer), TOLERANCE[dtype]
    wrong = [f"the gradient of `{name}` differs by {error:.1e}" for name, error in found.worst if not error <= allowed]
    facts = [f"the loss differs by {found.loss:.1e}"] if not found.loss <= allowed else []
    facts += wrong[:_NAMED]
    if len(wrong) > _NAMED:
        facts.append(f"{len(wrong) - _NAMED} further gradients differ too")
    if facts:
        raise SampanError(
            f"{answer.backend.label} gives another answer than {reference.backend.label}, and is not timed",
            [*facts, f"in {dtype} a difference of {allowed:.0e} of a tensor's largest value is allowed"],
            "the first operation that differs is named by: sampan bench --diverge "
            f"{reference.backend.framework} {answer.backend.framework}",
        )
    return found
