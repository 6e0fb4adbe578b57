"""Memory of one chip that makes pictures: all parts stay on it, and one phase works at a time.

Left out: parts that are moved off the chip between phases, and pixels made in tiles.
"""

from __future__ import annotations

from collections.abc import Sequence

from sampan.plan.memory import ChipMemory
from sampan.plan.records import Op, Phase

_VALUE_BYTES = 2
_LARGEST_INDEXED = 2**31 - 1  # values of one picture's tensor that convolution libraries with 32-bit indices take
# A convolution is given its input, and returns its result, in an order of its own: both are there twice.
_COPIES = 2
# A norm and its activation move four tensors, of which three are there at once: input, norm, result.
_AT_ONCE = 0.75


def generation_needed(
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
