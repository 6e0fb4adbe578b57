"""A save on many ranks writes each byte once, and a rank copies no more of the model than its slice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sampan.frameworks import ranges
from sampan.frameworks.records import MicroShare
from sampan.frameworks.torch import device as dev
from sampan.frameworks.torch import io, parallel, train_step
from sampan.models.init import initial_weights

WIDTH, ROWS, TRAINED_ROWS = 62, 50, 34
SIZES = {"U8": 1, "I8": 1, "BF16": 2, "F32": 4, "I64": 8}


class Net(torch.nn.Module):
    """A table, of which some rows may be frozen, a matrix large enough for moments in 8 bits, and odd widths."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(ROWS, WIDTH)
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(WIDTH, 97), torch.nn.Linear(97, WIDTH)])

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table(ids)
        for block in self.blocks:
            x = block(torch.tanh(x))
        return x


class Allocated(TorchDispatchMode):
    """Adds up the bytes of all storages that operations make."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.untyped_storage().data_ptr() not in given:
            self.bytes += made.untyped_storage().nbytes()
        return made


@pytest.fixture(autouse=True)
def alone_again() -> Iterator[None]:
    yield
    parallel.stop()


def state_of(layout: tuple[int, int], rank: int, frozen: dict[str, int], settings: dict[str, Any]) -> dict[str, Any]:
    """Return what one rank of a layout saves after a step."""
    ranks = layout[0] * layout[1]
    parallel.pretend(ranks, 1, rank)
    with dev.on_meta():
        module = Net()
    shapes = io.shapes(module)
    shared = train_step.share(
        module, device="cpu", method="full", layout=layout, autocast="fp32", dtype=lambda name: "fp32",
        trainable=lambda name: True, frozen_rows=frozen,
    )  # fmt: skip
    assert shared is not None
    shared.load({}, initial_weights(shapes, 3), name="the net", prefix="")
    step = train_step.TrainStep(
        module, lr=1e-2, beta1=0.9, beta2=0.95, weight_decay=0.1, clip_norm=1.0, ema_decay=0.9, autocast="fp32", seed=5,
        shared=shared, frozen_rows=frozen, **settings,
    )  # fmt: skip

    def loss(module: Net, ids: torch.Tensor) -> torch.Tensor:
        return module(ids).square().mean()

    batch = (torch.arange(8) % TRAINED_ROWS,)
    step.step(loss, [batch], share=MicroShare(0, 1, ranks, lambda micro: batch))
    return step.state()


@pytest.mark.parametrize("layout", [(1, 4), (2, 3), (3, 1)])
@pytest.mark.parametrize("frozen", [{}, {"table.weight": TRAINED_ROWS}])
@pytest.mark.parametrize("moments", ["fp32", "8bit"])
def test_each_byte_is_written_once_and_a_rank_copies_its_slice(
    tmp_path: Path, layout: tuple[int, int], frozen: dict[str, int], moments: str
):
    taken: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    size_of: dict[tuple[str, str], int] = {}
    copied, written, sizes = [], 0, {}
    for rank in range(layout[0] * layout[1]):
        state = state_of(layout, rank, frozen, {"moments": moments})
        with Allocated() as allocated:
            own = {group: io.host_ranges(tensors, copied=True) for group, tensors in state.items()}
        copied.append(allocated.bytes)
        for group, found in own.items():
            path = tmp_path / f"{group}.safetensors"
            if rank == 0:
                ranges.begin_file(path, found, {})
            sizes[group] = path.stat().st_size - len(ranges.plan(found, {})[0])
            written += ranges.write_ranges(path, found, {})
            for one in found:
                start = one.first * SIZES[one.dtype]
                size_of[group, one.name] = prod(one.shape) * SIZES[one.dtype]
                if one.content.nbytes:
                    taken[group, one.name].append((start, start + one.content.nbytes))
        parallel.stop()
    for tensor, size in size_of.items():
        end = 0
        for start, stop in sorted(taken[tensor]):
            assert start == end, tensor  # neither a gap nor a byte that two write
            end = stop
        assert end == size, tensor
    total = sum(sizes.values())
    assert written == total == sum(size_of.values())
    assert sum(copied) == total  # each value is copied once, and nothing is gathered
    assert any(name.endswith(".codes") for _, name in size_of) == (moments == "8bit")
    # of weights, average and moments; rows that are not trained are one rank's to write, beside its slice
    rows = 2 * 4 * (ROWS - TRAINED_ROWS) * WIDTH if frozen else 0
    assert max(copied) <= 1.2 * (total - rows) / layout[1] + rows
