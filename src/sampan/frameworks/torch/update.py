"""One training step on PyTorch: loss, gradients, clipping, AdamW, EMA, and the state that a checkpoint keeps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Report:
    """What one step did.

    Args:
        loss: Mean loss over the step's micro-batches.
        grad_norm: Length of the gradient before clipping.
        values: Further numbers the loss function gave, averaged likewise.
        skipped: The gradient was not finite and nothing was changed.
    """

    loss: float
    grad_norm: float
    values: dict[str, float]
    skipped: bool


class Updater:
    """AdamW with clipping and an exponential moving average of the weights.

    Args:
        module: Its parameters that require gradients are trained.
        lr, beta1, beta2, weight_decay: AdamW's. Decay acts on matrices only, and not on embedding tables.
        clip_norm: Gradients longer than this are shortened to it.
        ema_decay: s ← d·s + (1-d)·w, with d ramped up as (1 + n)/(10 + n) over the first steps n.
        autocast: "bf16" runs matrix products of the loss in bf16 over fp32 weights; "fp32" nothing of the kind.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        *,
        lr: float,
        beta1: float,
        beta2: float,
        weight_decay: float,
        clip_norm: float,
        ema_decay: float,
        autocast: str,
    ):
        self.module = module
        self.clip_norm, self.ema_decay = clip_norm, ema_decay
        self.autocast = autocast
        self.parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        tables = {
            f"{prefix}.weight" if prefix else "weight"
            for prefix, child in module.named_modules()
            if isinstance(child, torch.nn.Embedding)
        }
        decayed = [p for n, p in self.parameters.items() if p.ndim >= 2 and n not in tables]
        others = [p for n, p in self.parameters.items() if p.ndim < 2 or n in tables]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
        fused = next(iter(self.parameters.values())).device.type in ("cpu", "cuda")  # others may lack the kernel
        self.optimizer = torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=lr, betas=(beta1, beta2), eps=1e-8, fused=fused
        )
        self.ema = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.num_updates = 0

    def step(self, loss: Callable[..., Any], batches: Sequence[Sequence[Any]], lr: float) -> Report:
        """Take one step over micro-batches; `loss(module, *batch)` returns a scalar, or a scalar and a dict of numbers."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        total, values = 0.0, {}
        device_type = next(iter(self.parameters.values())).device.type
        for batch in batches:
            with torch.autocast(device_type, torch.bfloat16, enabled=self.autocast == "bf16"):
                result = loss(self.module, *batch)
            value, more = result if isinstance(result, tuple) else (result, {})
            (value / len(batches)).backward()
            total += float(value.detach()) / len(batches)
            for name, number in more.items():
                values[name] = values.get(name, 0.0) + float(number.detach()) / len(batches)
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.clip_norm))
        if not (math.isfinite(norm) and math.isfinite(total)):
            self.optimizer.zero_grad(set_to_none=True)
            return Report(total, norm, values, skipped=True)
        self.optimizer.step()
        decay = min(self.ema_decay, (1 + self.num_updates) / (10 + self.num_updates))
        with torch.no_grad():
            for kept, parameter in zip(self.ema.values(), self.parameters.values(), strict=True):
                kept.lerp_(parameter, 1 - decay)
        self.num_updates += 1
        return Report(total, norm, values, skipped=False)

    def state(self) -> dict[str, Tensors]:
        """Return what a checkpoint keeps: `weights`, `ema`, and `optimizer` (both moments and the step count)."""
        optimizer: Tensors = {"num_updates": torch.tensor(self.num_updates)}
        for name, parameter in self.parameters.items():
            kept = self.optimizer.state.get(parameter)
            if kept:
                optimizer[f"{name}.exp_avg"] = kept["exp_avg"]
                optimizer[f"{name}.exp_avg_sq"] = kept["exp_avg_sq"]
        weights = {name: value.detach() for name, value in self.module.state_dict().items()}
        return {"weights": weights, "ema": {**weights, **self.ema}, "optimizer": optimizer}

    def load_state(self, state: dict[str, Tensors]) -> None:
        """Take over what `state` returned."""
        self.module.load_state_dict(state["weights"])
        self.num_updates = int(state["optimizer"]["num_updates"])
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                self.ema[name].copy_(state["ema"][name])
                if f"{name}.exp_avg" in state["optimizer"]:
                    self.optimizer.state[parameter] = {
                        "step": torch.tensor(float(self.num_updates), dtype=torch.float32, device=parameter.device),
                        "exp_avg": state["optimizer"][f"{name}.exp_avg"].to(parameter.device),
                        "exp_avg_sq": state["optimizer"][f"{name}.exp_avg_sq"].to(parameter.device),
                    }


def freeze(module: torch.nn.Module) -> None:
    """Take a module's parameters out of training."""
    module.requires_grad_(False)
    module.eval()


def load_weights(module: torch.nn.Module, weights: Tensors) -> None:
    """Copy weights into a module; every name must be there and no other."""
    module.load_state_dict(weights)
