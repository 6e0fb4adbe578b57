"""What ranks are said to send is what FSDP2 asks of their process group, caught on the way; and it is arithmetic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from PIL import Image
from rich.console import Console
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from sampan.errors import JobError
from sampan.frameworks.records import MicroShare
from sampan.frameworks.torch import device as dev
from sampan.frameworks.torch import io, parallel, train_step
from sampan.frameworks.torch.traffic import collectives
from sampan.job import parse
from sampan.models.init import initial_weights
from sampan.train.estimate import blank_stage
from sampan.train.run_state import open_run

WIDTH, ROWS, TRAINED_ROWS = 15, 11, 7
SETTINGS: dict[str, Any] = {
    "lr": 1e-2, "beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1, "clip_norm": 1.0, "ema_decay": 0.9
}  # fmt: skip


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.wide, self.narrow = torch.nn.Linear(WIDTH, 33), torch.nn.Linear(33, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.narrow(torch.tanh(self.wide(x)))


class Net(torch.nn.Module):
    """Two blocks, computed again in the backward pass, between a table and a head."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(ROWS, WIDTH)
        self.blocks = torch.nn.ModuleList([Block() for _ in range(2)])
        self.head = torch.nn.Linear(WIDTH, 3)

    def forward(self, ids: torch.Tensor, times: int) -> torch.Tensor:
        x = self.table(ids)
        for _ in range(times):
            for block in self.blocks:
                x = checkpoint(block, x, use_reentrant=False)
        return self.head(x)


class Caught(TorchDispatchMode):
    """Adds up what each rank sends by the collectives of tensors: calls and bytes by kind and number of ranks."""

    def __init__(self):
        super().__init__()
        self.calls: Counter[tuple[str, int]] = Counter()
        self.bytes: Counter[tuple[str, int]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if name.startswith("c10d::"):
            self._count(name.removeprefix("c10d::"), args)
        return func(*args, **(kwargs or {}))

    def _count(self, name: str, args: Any) -> None:
        tensors = [a for a in args[:2] if isinstance(a, torch.Tensor)]
        group = next(a for a in args if isinstance(a, torch.ScriptObject) and "ProcessGroup" in str(a._type()))
        ranks = dist.ProcessGroup.unbox(group).size()
        if name == "_allgather_base_":
            kind, sent = "all-gather", (ranks - 1) * tensors[1].nbytes
        elif name == "_reduce_scatter_base_":
            kind, sent = "reduce-scatter", (ranks - 1) * tensors[0].nbytes
        elif name == "allreduce_":
            kind, sent = "all-reduce", sum(2 * (ranks - 1) * t.nbytes // ranks for t in args[0] if t.numel() > 1)
        else:
            raise AssertionError(f"{name} is not counted")
        if sent:  # a norm is one number, and moves nothing to speak of
            self.calls[kind, ranks] += 1
            self.bytes[kind, ranks] += sent


@pytest.fixture
def ranks() -> Iterator[Any]:
    yield parallel.pretend
    parallel.stop()


def step_of(layout: tuple[int, int], *, bf16: bool, frozen: dict[str, int], method: str) -> train_step.TrainStep:
    with dev.on_meta():
        module = Net()
    shapes = io.shapes(module)

    def trained(name: str) -> bool:
        return method == "full" or "narrow" in name

    autocast = "bf16" if bf16 else "fp32"
    shared = train_step.share(
        module, device="cpu", method=method, layout=layout, autocast=autocast, dtype=lambda name: "fp32",
        trainable=trained, frozen_rows=frozen,
    )  # fmt: skip
    assert shared is not None
    shared.load({}, initial_weights(shapes, 3), name="the net", prefix="")
    return train_step.TrainStep(
        module, **SETTINGS, autocast=autocast, seed=5, shared=shared, frozen_rows=frozen, trained_only=method == "lora"
    )


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(
    ("layout", "more"),
    [
        ((1, 4), {}),
        ((1, 4), {"bf16": True}),
        ((2, 4), {"bf16": True}),
        ((3, 1), {}),
        ((2, 3), {"frozen": {"table.weight": TRAINED_ROWS}}),
        ((1, 4), {"method": "lora"}),
    ],
)
def test_what_is_counted_is_what_is_asked_of_the_process_group(ranks: Any, layout: Any, more: Any, times: int):
    ranks(layout[0] * layout[1], 1)
    step = step_of(layout, **{"bf16": False, "frozen": {}, "method": "full", **more})
    batches = [(torch.randint(0, ROWS, (2, 4)), torch.randn(2, 4, 3)) for _ in range(2)]

    def loss(module: Net, ids: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return (module(ids, times).float() - wanted).square().mean()

    share = MicroShare(0, 2, 2 * layout[0] * layout[1], lambda micro: batches[0])
    step.step(loss, batches, share=share)  # the first one makes what later ones have
    with Caught() as caught:
        step.step(loss, batches, share=share)
    said = collectives(step.module, step.shared, passes=2, throughs=2 * times)
    assert {(one.kind, one.ranks): one.sent_bytes for one in said} == dict(caught.bytes)
    assert {(one.kind, one.ranks): one.calls for one in said} == dict(caught.calls)


def test_a_step_of_the_released_arithmetic(ranks: Any):
    ranks(8, 2)
    shared = step_of((2, 4), bf16=True, frozen={}, method="full").shared
    # rows of a weight over 4 ranks, filled up: (33 -> 36) x 15, 33 -> 36, (15 -> 16) x 33, 15 -> 16
    block = 36 * WIDTH + 36 + 16 * 33 + 16
    rest = 12 * WIDTH + 4 * WIDTH + 4  # 11 rows and 3 filled up to 12 and 4
    gather, scatter, total = collectives(shared.module, shared, passes=3, throughs=5)
    # blocks in bf16, forward and backward each time; the rest in fp32, once a micro-batch
    assert gather.sent_bytes == (4 - 1) * (5 * 2 * 2 * block * 2 + 3 * rest * 4) // 4
    assert scatter.sent_bytes == 3 * (4 - 1) * (2 * block + rest) * 4 // 4
    assert total.sent_bytes == 3 * 2 * (2 - 1) * (2 * block + rest) * 4 // 4 // 2
    assert [one.crosses_nodes for one in (gather, scatter, total)] == [False, False, True]


def test_whole_weights_have_one_sum_a_step(ranks: Any):
    ranks(4, 1)
    net = Net()
    net.table.weight.requires_grad_(False)
    values = sum(p.numel() for p in net.parameters()) - ROWS * WIDTH
    (only,) = collectives(net, None, passes=3, throughs=3)
    assert (only.kind, only.ranks, only.calls, only.sent_bytes) == ("all-reduce", 4, 1, 2 * 3 * values * 4 // 4)


def test_one_rank_sends_nothing_and_ranks_lie_evenly_on_nodes(ranks: Any):
    assert collectives(Net(), None, passes=1, throughs=1) == []
    with pytest.raises(JobError, match="10 ranks do not lie evenly on 4 nodes"):
        ranks(10, 4)


@pytest.mark.parametrize("name", ["glyph", "ar", "decoder"])
@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module:UserWarning")
def test_a_real_stage_asks_for_what_is_counted(ranks: Any, tmp_path: Path, name: str):
    (tmp_path / "set").mkdir()
    for number in range(4):
        Image.new("RGB", (128, 128), (40 * number, 80, 120)).save(tmp_path / "set" / f"{number}.png")
        (tmp_path / "set" / f"{number}.txt").write_text(f"picture {number}", encoding="utf-8")
    job = parse(
        f'out = "{tmp_path.as_posix()}/run"\n[data]\npath = "{tmp_path.as_posix()}/set"\nworkers = 0\n'
        "[model.override.text]\nnum_hidden_layers = 2\n[model.override.dit]\nnum_layers = 2\n"
        "[stage.ar]\nmicro_batch_size = 1\n[stage.decoder]\nmicro_batch_size = 1\n[stage.glyph]\nmicro_batch_size = 1\n"
    )
    state = open_run(job, "cpu", "bf16", resume=False, console=Console(quiet=True))
    ranks(4, 1)
    stage = blank_stage(state, name)
    shapes = io.shapes(stage.module)
    shared = train_step.share(
        stage.module, device="cpu", method="full", layout=(1, 4), autocast="bf16", dtype=lambda name: "fp32",
        trainable=lambda name: True, frozen_rows=stage.frozen_rows,
    )  # fmt: skip
    assert shared is not None
    shared.load({}, initial_weights(shapes, 0), name=name, prefix="")
    step = train_step.TrainStep(
        stage.module, **SETTINGS, autocast="bf16", seed=1, shared=shared, frozen_rows=stage.frozen_rows,
        delayed=stage.delayed,
    )  # fmt: skip
    batch = tuple(dev.array(a, "cpu") if hasattr(a, "shape") else a for a in stage.draw(0, 0).arrays)
    with Caught() as caught:
        step.step(stage.loss, [batch], share=MicroShare(0, 1, 4, lambda micro: batch))
    said = collectives(stage.module, shared, passes=1, throughs=1)
    assert {(one.kind, one.ranks): one.sent_bytes for one in said} == dict(caught.bytes)
    assert {(one.kind, one.ranks): one.calls for one in said} == dict(caught.calls)
