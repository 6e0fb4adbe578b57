"""Whether a framework that is installed also works: it is imported and takes one step of one layer, in a process of its own.

What it sees of the machine is printed first and that it computes last, so that the caller knows how far a process came that
died. A framework whose libraries do not go together is often imported without a word and fails at its first product.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

import numpy as np

from sampan import frameworks
from sampan.errors import DeviceError
from sampan.frameworks.devices import first_line

_TOLERANCE = 1e-2  # of the loss and the gradient's length, for devices that round their products


def main(name: str, package: str) -> None:
    """Print what a framework sees, and `computes`, each as JSON on a line; or `problem`, why it cannot be used.

    Args:
        package: Where its adapter is.
    """
    sys.excepthook = lambda kind, error, trace: sys.stderr.write(f"{kind.__name__}: {' '.join(str(error).split())}\n")
    try:
        frameworks.use(name, package=package)
    except DeviceError as error:
        _say(problem=f"{'; '.join(error.because)} ({error.hint})")
        return
    facts = importlib.import_module(f"{package}.probe").probe()
    _say(**facts)
    device = frameworks.device.resolve("auto")
    try:
        compute(device)
    except (RuntimeError, DeviceError) as error:
        if device == "cpu":
            raise
        # another process may hold the device; the CPU is then still there
        _say(notes=[*facts["notes"], f"{device}: computing failed: {first_line(error)}"])
    else:
        _say(computes=True)


def compute(device: str) -> None:
    """Take one training step of a layer.

    Raises:
        ArithmeticError: Loss or gradient are not those that NumPy computes.
    """
    from sampan.frameworks import device as dev
    from sampan.frameworks import io, nn, ops, train_step

    weight, bias = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.5]], np.float32), np.array([0.1, -0.2], np.float32)
    inputs = np.arange(12, dtype=np.float32).reshape(4, 3) / 10
    with dev.on_meta():
        layer = nn.Linear(3, 2)
    io.load_weights(layer, {}, device=device, dtype="fp32", arrays={"weight": weight, "bias": bias})
    step = train_step.TrainStep(
        layer, lr=1e-3, beta1=0.9, beta2=0.95, weight_decay=0.0, clip_norm=1.0, ema_decay=0.0, autocast="fp32"
    )

    def loss(module: Any, x: Any) -> Any:
        outputs = module(x)
        return ops.mean(outputs * outputs + 1.0)

    report = step.step(loss, [[dev.array(inputs, device)]])
    outputs = inputs @ weight.T + bias
    slope = 2 * outputs / outputs.size
    norm = float(np.sqrt(np.sum((slope.T @ inputs) ** 2) + np.sum(slope.sum(0) ** 2)))
    for what, measured, right in (
        ("loss", report.loss, float(np.mean(outputs * outputs + 1))),
        ("length of the gradient", report.grad_norm, norm),
    ):
        if not abs(measured - right) <= _TOLERANCE * right:
            raise ArithmeticError(f"the {what} of one layer is {measured:g} on {device}, and should be {right:g}")


def _say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)  # noqa: T201  # to the process that started this one
