"""Numbers held in 8 bits (sampan.frameworks.quantized), on MindSpore."""

from __future__ import annotations

from functools import cache

import mindspore as ms
import numpy as np
from mindspore import Tensor, mint, ops

from sampan.frameworks import quantized as shared
from sampan.frameworks.quantized import BLOCK

_TINY = float(np.finfo(np.float32).tiny)


def encode(x: Tensor, signed: bool) -> tuple[Tensor, Tensor]:
    """Return uint8 codes (n,) and fp32 scales (n/256,) of finite fp32 numbers (n,), n a multiple of 256."""
    blocks = x.reshape((-1, BLOCK))
    scales = mint.max(mint.abs(blocks), 1)[0]
    unit = (blocks / ops.maximum(scales, _TINY)[:, None]).reshape(-1)
    codes = ops.searchsorted(_on("borders", signed), unit).astype(ms.int32)
    if not signed:
        codes = ops.where(unit > 0, ops.maximum(codes, 1), codes)
    return codes.astype(ms.uint8), scales


def decode(codes: Tensor, scales: Tensor, signed: bool) -> Tensor:
    """Return the fp32 numbers (n,) that codes and scales stand for, n a multiple of 256."""
    numbers = ops.gather(_on("values", signed), codes.astype(ms.int32), 0)
    return (numbers.reshape((-1, BLOCK)) * scales[:, None]).reshape(-1)


@cache
def _on(table: str, signed: bool) -> Tensor:
    return Tensor(getattr(shared, table)(signed))
