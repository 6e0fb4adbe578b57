"""Numbers held in 8 bits (sampan.frameworks.quantized), on PyTorch."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from sampan.frameworks import quantized as shared
from sampan.frameworks.quantized import BLOCK


def encode(
    x: torch.Tensor, signed: bool, lead: int = 0, scales: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return uint8 codes (n,) and fp32 scales of the blocks that finite fp32 numbers (n,) lie in.

    Args:
        lead: Numbers of the first block that are before these.
        scales: Of the blocks, where others know more of them; None for the largest magnitudes here.
    """
    _, borders, first = _on(x.device, signed)
    blocks = _padded(x, lead)
    if scales is None:
        scales = blocks.abs().amax(1)
    unit = (blocks / scales.clamp_min(torch.finfo(torch.float32).tiny)[:, None]).view(-1)
    # the upper half of a number's bits tells its code but for one: far fewer steps than a search among 255 borders
    codes = first.index_select(0, (unit.view(torch.int32) >> 16) & 0xFFFF)
    codes += unit > borders.index_select(0, codes)
    if not signed:
        codes = torch.where(unit > 0, codes.clamp_min(1), codes)
    return codes.to(torch.uint8)[lead : lead + x.numel()], scales


def decode(codes: torch.Tensor, scales: torch.Tensor, signed: bool, lead: int = 0) -> torch.Tensor:
    """Return the fp32 numbers (n,) that codes and scales stand for; `lead` as of `encode`."""
    table, _, _ = _on(codes.device, signed)
    blocks = _padded(codes, lead)
    numbers = table.index_select(0, blocks.reshape(-1).int()).view(-1, BLOCK) * scales[:, None]
    return numbers.view(-1)[lead : lead + codes.numel()]


def block_maxima(x: torch.Tensor, lead: int = 0) -> torch.Tensor:
    """Return the largest magnitude of each block that numbers (n,) lie in, of those that are here."""
    return _padded(x, lead).abs().amax(1)


def _padded(x: torch.Tensor, lead: int) -> torch.Tensor:
    return torch.nn.functional.pad(x, (lead, -(lead + x.numel()) % BLOCK)).view(-1, BLOCK)


@cache
def _on(device: torch.device, signed: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return on a device: the values of the codes (256,), the borders between neighbours (256,) with an infinite one at
    the end, and for the upper 16 bits of an fp32 number the least code of all numbers that begin with them (65536,)."""
    table, borders = shared.values(signed), np.append(shared.borders(signed), np.float32(np.inf))
    upper = np.arange(2**16, dtype=np.uint32) << 16
    least = (
        np.where(upper >> 31, upper | 0xFFFF, upper).astype(np.uint32).view(np.float32)
    )  # of negative ones the longest
    first = np.searchsorted(borders, least).clip(0, 255).astype(np.int32)
    return tuple(torch.from_numpy(a).to(device) for a in (table, borders, first))  # type: ignore[return-value]
