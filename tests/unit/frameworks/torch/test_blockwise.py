"""Numbers in 8 bits: the nearest value of a published code, block by block."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sampan.frameworks.quantized import num_blocks, values
from sampan.frameworks.torch import blockwise


def spread(count: int, signed: bool) -> torch.Tensor:
    """Return numbers over many decades, each block with a number of magnitude 1."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(count, generator=generator) * 10.0 ** torch.randint(-7, 1, (count,), generator=generator)
    numbers = numbers.clamp(-1, 1)
    numbers[:: blockwise.BLOCK] = 1.0
    return numbers if signed else numbers.abs()


@pytest.mark.parametrize("signed", [True, False])
def test_there_are_256_values_denser_towards_the_end(signed: bool):
    table = values(signed)
    assert len(table) == len(np.unique(table)) == 256
    assert table[-1] == 1 and table.min() == pytest.approx(-0.993 if signed else 0, abs=1e-4)
    positive = table[table > 0]
    assert positive[0] < 1e-6
    # twice as many in each decade as in the one below it, and 1 itself
    counts = [int(((positive >= 10.0**-k) & (positive < 10.0 ** (1 - k))).sum()) for k in range(1, 8)]
    assert counts == ([64, 32, 16, 8, 4, 2, 1] if signed else [128, 64, 32, 16, 8, 4, 2])


@pytest.mark.parametrize("signed", [True, False])
def test_a_code_is_that_of_the_nearest_value(signed: bool):
    numbers = spread(2**16, signed)
    codes, scales = blockwise.encode(numbers, signed)
    assert torch.all(scales == 1) and codes.dtype == torch.uint8
    table = values(signed).astype(np.float64)
    borders = ((table[1:] + table[:-1]) / 2).astype(np.float32)
    wanted = np.searchsorted(borders, numbers.numpy())
    if not signed:
        wanted = np.where(numbers.numpy() > 0, np.maximum(wanted, 1), wanted)
    assert np.array_equal(codes.numpy(), wanted)


@pytest.mark.parametrize("count", [1, 255, 256, 257, 5000])
@pytest.mark.parametrize("signed", [True, False])
def test_numbers_come_back_within_a_code_of_their_block(count: int, signed: bool):
    numbers = spread(count, signed) * torch.logspace(-8, 8, count)
    codes, scales = blockwise.encode(numbers, signed)
    back = blockwise.decode(codes, scales, signed)
    assert codes.shape == back.shape == (count,) and len(scales) == num_blocks(count)
    error = (back - numbers).abs() / scales.repeat_interleave(blockwise.BLOCK)[:count]
    assert float(error.max()) < 0.0075  # half the widest distance between two values


def test_what_is_coded_again_is_the_same_code():
    numbers = blockwise.decode(*blockwise.encode(spread(1024, False), False), False)
    codes, scales = blockwise.encode(numbers, False)
    assert torch.equal(blockwise.decode(codes, scales, False), numbers)


def test_zeros_stay_zeros_and_nothing_else_becomes_one():
    codes, scales = blockwise.encode(torch.zeros(300), True)
    assert torch.equal(blockwise.decode(codes, scales, True), torch.zeros(300))
    numbers = torch.tensor([1.0, 1e-30, 0.0])
    assert (blockwise.decode(*blockwise.encode(numbers, False), False) > 0).tolist() == [True, True, False]
