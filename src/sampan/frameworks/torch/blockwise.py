"""Numbers held in 8 bits: a code for each, and one fp32 scale for each block of 256, in the order of the flat tensor.

A code stands for a value between -1 and 1 (or 0 and 1), and the scale is the largest magnitude of its block. The values lie
close together near 1 and reach down to about 1e-6 in seven decades, each with twice as many as the one below it, because
moments of gradients span that much within a block.

Source: Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization" (dynamic tree quantization). Rounding is to the
nearest value, so that the bytes of a state depend on nothing but the numbers. One difference: what cannot be negative never
becomes 0 where it was not, because the square root of a second moment divides.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

BLOCK = 256
_DECADES = 7


@cache
def values(signed: bool) -> np.ndarray:
    """Return what the 256 codes stand for, rising, fp32: in [-1, 1] with one 0, or in [0, 1]."""
    magnitudes = []
    for decade in range(_DECADES):
        edges = np.linspace(0.1, 1, 2 ** (decade + (not signed)) + 1)
        magnitudes.append((edges[:-1] + edges[1:]) / 2 * 10.0 ** (decade - _DECADES + 1))
    positive = np.concatenate(magnitudes)
    negative = -positive if signed else positive[:0]
    return np.sort(np.concatenate([negative, [0.0], positive, [1.0]])).astype(np.float32)


def num_blocks(num_values: int) -> int:
    """Return how many scales a tensor of so many values has."""
    return -(-num_values // BLOCK)


def encode(x: torch.Tensor, signed: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return uint8 codes (n,) and fp32 scales (n/256, rounded up) of finite fp32 numbers (n,)."""
    _, borders, first = _on(x.device, signed)
    blocks = torch.nn.functional.pad(x, (0, -x.numel() % BLOCK)).view(-1, BLOCK)
    scales = blocks.abs().amax(1)
    unit = (blocks / scales.clamp_min(torch.finfo(torch.float32).tiny)[:, None]).view(-1)
    # the upper half of a number's bits tells its code but for one: far fewer steps than a search among 255 borders
    codes = first.index_select(0, (unit.view(torch.int32) >> 16) & 0xFFFF)
    codes += unit > borders.index_select(0, codes)
    if not signed:
        codes = torch.where(unit > 0, codes.clamp_min(1), codes)
    return codes.to(torch.uint8)[: x.numel()], scales


def decode(codes: torch.Tensor, scales: torch.Tensor, signed: bool) -> torch.Tensor:
    """Return the fp32 numbers (n,) that codes and scales stand for."""
    table, _, _ = _on(codes.device, signed)
    blocks = torch.nn.functional.pad(codes, (0, -codes.numel() % BLOCK)).view(-1, BLOCK)
    numbers = table.index_select(0, blocks.reshape(-1).int()).view(-1, BLOCK) * scales[:, None]
    return numbers.view(-1)[: codes.numel()]


@cache
def _on(device: torch.device, signed: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return on a device: the values of the codes (256,), the borders between neighbours (256,) with an infinite one at
    the end, and for the upper 16 bits of an fp32 number the least code of all numbers that begin with them (65536,)."""
    table = values(signed).astype(np.float64)
    borders = np.append((table[:-1] + table[1:]) / 2, np.inf).astype(np.float32)
    upper = np.arange(2**16, dtype=np.uint32) << 16
    least = (
        np.where(upper >> 31, upper | 0xFFFF, upper).astype(np.uint32).view(np.float32)
    )  # of negative ones the longest
    first = np.searchsorted(borders, least).clip(0, 255).astype(np.int32)
    return tuple(torch.from_numpy(a).to(device) for a in (table.astype(np.float32), borders, first))  # type: ignore[return-value]
