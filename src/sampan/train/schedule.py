"""The learning rate over a stage."""

from __future__ import annotations

import math


def learning_rate(step: int, num_steps: int, warmup_steps: int, lr: float, min_lr_ratio: float) -> float:
    """Return the rate of step 0, 1, …: a linear rise to `lr`, then half a cosine down to `lr`·`min_lr_ratio`."""
    warmup = min(warmup_steps, num_steps)
    if step < warmup:
        return lr * (step + 1) / warmup
    done = (step - warmup) / max(1, num_steps - warmup)
    return lr * (min_lr_ratio + (1 - min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * done)))
