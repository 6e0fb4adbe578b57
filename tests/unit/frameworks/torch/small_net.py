"""A network that is small and learns in a moment, with a matrix large enough for moments in 8 bits."""

from __future__ import annotations

from typing import Any

import torch

from sampan.frameworks.torch.train_step import TrainStep

SETTINGS = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.5, "clip_norm": 1e9, "autocast": "fp32"}


def wide(*, bf16: bool = False, **settings: Any) -> tuple[Any, TrainStep]:
    """Return a network with a matrix large enough for codes, and its updater."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(64, 96), torch.nn.GELU(), torch.nn.Linear(96, 8))
    module.to(torch.bfloat16 if bf16 else torch.float32)
    plain = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.01, "clip_norm": 1.0, "autocast": "fp32"}
    return module, TrainStep(module, **{**plain, "ema_decay": 0.9, **settings})


def examples(count: int, seed: int = 1) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return batches of a fixed nonlinear function."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)) / 8
    return [(x, torch.sin(2 * x @ mix)) for x in torch.randn(count, 32, 64, generator=generator)]


def error(module: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (module(x).float() - y).square().mean()


def trained(num_steps: int, lr: float, **settings: Any) -> float:
    """Return the mean loss of the last quarter of a short training."""
    _, updater = wide(**settings)
    losses = [
        updater.step(error, [batch], lr * (1 - step / num_steps)).loss for step, batch in enumerate(examples(num_steps))
    ]
    return sum(losses[-num_steps // 4 :]) / (num_steps // 4)


def copied(state: dict[str, Any]) -> dict[str, Any]:
    return {group: {name: tensor.clone() for name, tensor in tensors.items()} for group, tensors in state.items()}
