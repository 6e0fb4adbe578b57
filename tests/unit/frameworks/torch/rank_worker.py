"""One rank of a small training: `python rank_worker.py OUT MODES`, with RANK and WORLD_SIZE set; without, it is alone.

Widths are odd, rows fewer than ranks in places, a table has rows that are not trained, and micro-batches do not divide.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sampan import frameworks

frameworks.use("torch")

from sampan.checkpoint import run  # noqa: E402
from sampan.frameworks.torch import device as dev  # noqa: E402
from sampan.frameworks.torch import io, parallel, sharding, train_step  # noqa: E402
from sampan.models.init import initial_weights  # noqa: E402
from sampan.train import distributed  # noqa: E402

TABLE, ROWS = "table.weight", 7
NUM_MICRO, STEPS = 5, 4
MODES: dict[str, dict[str, Any]] = {
    "fp32": {},
    "8bit": {"moments": "8bit"},
    "bf16": {"master": False},
    "8bit-bf16": {"master": False, "moments": "8bit", "ema_decay": 0.0},
    "rows": {"frozen_rows": {TABLE: ROWS}},
    "rows-bf16": {"frozen_rows": {TABLE: ROWS}, "master": False},
    "delayed": {"delayed": {"head.weight": 2}},
    "lora": {"trained_only": True},
}


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.wide = torch.nn.Linear(15, 331)
        self.narrow = torch.nn.Linear(331, 15)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.narrow(torch.tanh(self.wide(x)))


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(11, 15)
        self.blocks = torch.nn.ModuleList([Block() for _ in range(2)])
        self.head = torch.nn.Linear(15, 1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table(ids)
        for block in self.blocks:
            x = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)
        return self.head(x)[..., 0]


def loss(module: Net, ids: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    error = module(ids).float() - wanted
    return error.square().mean(), {"worst": error.abs().max(), "ids": ids.float()}


def batch(step: int, micro: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng([step, micro])
    ids, wanted = random.integers(0, 11, (3, 4)), random.standard_normal((3, 4)).astype(np.float32)
    if step == 2 and micro == 3:
        wanted[0] = 3e38  # the error is finite, its square is not: the step is skipped
    return torch.from_numpy(ids), torch.from_numpy(wanted)


def make(mode: str, layout: tuple[int, int]) -> train_step.TrainStep:
    settings = MODES[mode]
    trained = {"lora": lambda name: name.startswith("blocks")}.get(mode, lambda name: True)
    with dev.on_meta():
        module = Net()
    shapes = io.shapes(module)

    def dtype(name: str) -> str:
        return "fp32" if settings.get("master", True) else "bf16"

    shared = train_step.share(
        module, device="cpu", method="lora" if mode == "lora" else "full", layout=layout, autocast="fp32", dtype=dtype,
        trainable=trained, frozen_rows=settings.get("frozen_rows", {}),
    )  # fmt: skip
    arrays = initial_weights(shapes, 3)
    if shared is None:
        io.load_weights(module, {}, device="cpu", dtype=dtype, arrays=arrays, trainable=trained)
    else:
        shared.load({}, arrays, name="the net", prefix="")
    return train_step.TrainStep(
        module, **{"lr": 1e-2, "beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1, "clip_norm": 1.0, "ema_decay": 0.9,
                   "autocast": "fp32", "seed": 5, "shared": shared, **settings},
    )  # fmt: skip


def main(out: Path, modes: list[str], layout: tuple[int, int], resume: Path | None) -> None:
    for mode in modes:
        step, reports = make(mode, layout), []
        first = 0
        if resume is not None:
            folder = resume / mode / "stages" / "net" / f"step-{STEPS:08d}"
            step.load_state(run.read_groups(folder, "cpu", lazily=parallel.num_ranks() > 1))
            first = STEPS
        for number in range(first, first + STEPS):
            batches = [batch(number, together[parallel.rank()]) for together in distributed.rounds(NUM_MICRO)]
            share = distributed.micro_share(NUM_MICRO, lambda micro, number=number: batch(number, micro))
            report = step.step(loss, batches, share=share)
            reports.append(
                [report.loss, report.grad_norm, report.skipped, list(report.bad_micro), report.values["worst"]]
            )
            reports[-1].append(report.arrays["ids"].tolist())
            if number == 1 and mode in ("fp32", "rows"):
                step.assign_rows(TABLE, np.array([0, 6]), np.ones((2, 15), np.float32))
        with step.averaged() as module:
            reports.append({n: float(p.detach().float().sum()) for n, p in module.named_parameters()})
            if isinstance(step.shared, sharding.ShardedModule):
                assert all(p.device.type == "cpu" for p in module.parameters())
        run.save(out / mode, "net", first + STEPS, step.state(), {}, together=distributed.SavingRanks())
        if parallel.rank() == 0:
            (out / f"{mode}.json").write_text(json.dumps(reports))


if __name__ == "__main__":
    torch.set_num_threads(1)
    parallel.start("cpu", 30)
    degrees = tuple(map(int, os.environ.get("LAYOUT", "1,1").split(",")))
    main(Path(sys.argv[1]), sys.argv[2].split(","), degrees, Path(sys.argv[3]) if len(sys.argv) > 3 else None)  # type: ignore[arg-type]
    distributed.barrier_and_stop()
