"""The real worker with a fault of the test's choice planted in PyTorch: python faulty_worker.py FAULT FRAMEWORK."""

from __future__ import annotations

import os
import sys
from typing import Any

from sampan import frameworks
from sampan.bench import worker


def operation() -> None:
    """One operation is off by a percent, in one layer, from the second step on."""
    from sampan.frameworks import ops

    right, calls = ops.gelu, [0]

    def gelu(x: Any, tanh: bool) -> Any:
        calls[0] += 1
        return right(x, tanh) * (1.01 if calls[0] == 5 else 1)  # three of them in a step of two blocks and the words

    ops.gelu = gelu


def gradient() -> None:
    """The gradient of one operation is off by a percent; its value is right."""
    import torch

    from sampan.frameworks import ops

    right = ops.attention

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(context: Any, *gradients: torch.Tensor) -> torch.Tensor:
            return gradients[0] * 1.01

    ops.attention = lambda q, k, v, **named: Wrong.apply(right(q, k, v, **named))


def update() -> None:
    """The optimizer forgets that its second moment began at 0: from the second step on, steps are too long."""
    from sampan.frameworks.torch.adamw import FusedAdamW

    right = FusedAdamW.update

    def longer(self: Any, lr: float, scale: Any) -> None:
        right(self, lr, scale)
        for kept in self.optimizer.state.values():
            kept["step"].fill_(0)

    FusedAdamW.update = longer


def extra_call() -> None:
    """A layer calls one operation more."""
    from sampan.frameworks import ops
    from sampan.models.layers import RMSNorm

    right = RMSNorm.forward
    RMSNorm.forward = lambda self, x: ops.cast(right(self, x), x.dtype)


def noise() -> None:
    """The framework writes to stdout, from Python and from below it."""
    right = worker.Worker.describe

    def describe(self: worker.Worker, **arguments: Any) -> dict[str, Any]:
        sys.stdout.write("a banner\n")
        os.write(1, b"[WARNING] from a library\n")
        return {**right(self, **arguments), "stdin": sys.stdin.read()}

    worker.Worker.describe = describe


if __name__ == "__main__":
    frameworks.use(sys.argv[2])
    globals()[sys.argv[1]]()
    sys.exit(worker.main(sys.argv[2]))
