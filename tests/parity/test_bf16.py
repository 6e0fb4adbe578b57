"""bf16: as near to fp32 as the library's own bf16 is, and rounded at the same places.

bf16 keeps 8 bits, so one rounding moves a number by up to 4e-3 of itself, and after the few dozen roundings of two
layers an answer is one or two per cent off, whoever computes it. A fixed tolerance would therefore pass wrong code.
What is asked is that our answer is no farther from the oracle's fp32 than BF16_RATIO times the library's own bf16 is,
and no farther from that bf16 answer either: two roundings of one number lie apart by the sum of both errors at most.
Where a rounding has to happen at one place (the norm's weight, the rotation) the first layer's queries are compared bit
by bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from parity.compare import BF16_RATIO, CASES, FP32_TOLERANCE, Case, decoder_inputs, half_precision
from parity.ours import Ours
from parity.theirs import Theirs
from sampan.frameworks import ops
from sampan.models import dit
from sampan.models.layers import rotate_half_split

ALIKE = 1e-3  # share of elements that a sum in another order may round the other way
CLEARLY_NOT = 1e-2


@pytest.mark.parametrize("case", [case for case in CASES if case.part != "Scheduler"], ids=lambda case: case.label)
def test_bf16_is_as_near_as_the_library_s(case: Case, ours_bf16: Ours, theirs_bf16: Theirs, theirs: Theirs):
    found = half_precision(case, ours_bf16, theirs_bf16, theirs)
    assert FP32_TOLERANCE < found.theirs < 0.05, "this is not bf16, or the oracle has changed"
    assert found.ours <= BF16_RATIO * found.theirs
    assert found.between <= BF16_RATIO * found.theirs


def first_queries(side: Any, answer: Callable[[Any], Any]) -> Tensor:
    """Return what the first attention is given as queries, normalised and rotated: (heads, tokens, channels)."""
    attend = torch.nn.functional.scaled_dot_product_attention
    seen: list[Tensor] = []

    def recorder(query: Tensor, *arguments: Any, **named: Any) -> Tensor:
        seen.append(query)
        return attend(query, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", recorder)
        answer(side)
    return seen[0][0]


def share_that_differs(ours: Ours, theirs: Theirs, answer: Callable[[Any], Any]) -> float:
    got, wanted = first_queries(ours, answer), first_queries(theirs, answer)
    assert got.dtype == wanted.dtype == torch.bfloat16
    assert got.shape == wanted.shape
    return (got != wanted).double().mean().item()


def forced(side: Any) -> Tensor:
    rng = np.random.default_rng(0)
    return side.logits(rng.integers(0, 60, (1, 300)), rng.integers(0, 900, (3, 1, 300)))


def painted(side: Any) -> Tensor:
    return side.velocity(**decoder_inputs(side, (16, 16)))


def test_trap_04_the_generator_rotates_in_bf16_and_the_decoder_in_fp32(ours_bf16: Ours, theirs_bf16: Theirs):
    cast = ops.cast

    def tables_stay_fp32(x: Tensor, dtype: torch.dtype) -> Tensor:
        return x if x.ndim == 4 and x.shape[1] == 1 and x.dtype == torch.float32 else cast(x, dtype)

    def tables_in_bf16(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return rotate_half_split(x, cos.to(x.dtype), sin.to(x.dtype))

    assert share_that_differs(ours_bf16, theirs_bf16, forced) <= ALIKE
    assert share_that_differs(ours_bf16, theirs_bf16, painted) <= ALIKE
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ops, "cast", tables_stay_fp32)
        assert share_that_differs(ours_bf16, theirs_bf16, forced) > CLEARLY_NOT
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dit, "rotate_half_split", tables_in_bf16)
        assert share_that_differs(ours_bf16, theirs_bf16, painted) > CLEARLY_NOT


def test_trap_05_the_weight_of_a_norm_is_multiplied_after_rounding(ours_bf16: Ours, theirs_bf16: Theirs):
    def before_rounding(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return torch.nn.functional.rms_norm(x.float(), (x.shape[-1],), weight.float(), eps).to(x.dtype)

    assert share_that_differs(ours_bf16, theirs_bf16, forced) <= ALIKE
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ops, "rms_norm", before_rounding)
        assert share_that_differs(ours_bf16, theirs_bf16, forced) > CLEARLY_NOT
