"""What one training pass costs, found before a run: counted on shapes, by what PyTorch's kernels keep.

What a kernel takes for itself while it runs, and how an allocator rounds, is not seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from sampan.frameworks.records import ParameterCount, PassCost
from sampan.frameworks.shapes import count as shapes
from sampan.frameworks.shapes import nn as layers
from sampan.frameworks.shapes.array import Blank
from sampan.frameworks.shapes.tape import CostTape, Kernels
from sampan.frameworks.torch import nn, ops
from sampan.frameworks.torch.adamw import WORKSPACE_BYTES, token_tables
from sampan.frameworks.torch.traffic import collectives

__all__ = ["collectives", "count", "kernels", "measure", "parameter_slots", "substitutes"]


def kernels(device: str, lower: str | None = None) -> Kernels:
    """Return what PyTorch's kernels keep on a device.

    Args:
        lower: The dtype that autocast brings products to; None without autocast.
    """
    if device.startswith("npu"):
        return Kernels(lower=lower)
    if device.startswith("cuda"):
        norm_dtype = "fp32" if lower else None
        return Kernels(result="tokens", norm_dtype=norm_dtype, lower=lower)
    return Kernels(result="queries", fp32_rms_norm=True, lower=lower)


def count(
    module: torch.nn.Module,
    trainable: Callable[[str], bool] = lambda name: True,
    frozen_rows: Mapping[str, int] | None = None,
) -> ParameterCount:
    """Count the values of a module's parameters. The module may be on the meta device.

    Args:
        trainable: Says of a parameter's name whether it is trained.
        frozen_rows: As the updater takes them.
    """
    counted, _ = shapes.count_parameters(parameter_slots(module), token_tables(module), trainable, frozen_rows)
    return dataclasses.replace(counted, workspace_bytes=WORKSPACE_BYTES)


def measure(
    module: torch.nn.Module,
    loss: Callable[..., Any],
    arrays: Sequence[Any],
    *,
    device: str,
    dtype: str,
    trainable: Callable[[str], bool] = lambda name: True,
    trainable_dtype: str = "fp32",
    autocast: str = "fp32",
) -> PassCost:
    """Run a loss forward and backward on shapes and return what it costs.

    Args:
        module: On the meta device or not; it is as before afterwards.
        loss: As the updater takes it. It may not look at values: there are none.
        arrays: What it takes after the module. Of NumPy arrays only shapes and dtypes matter; the rest stays as it is.
        device: Where the run is to be. The pass is counted for CUDA on a machine that has it, and else as on a CPU.
        dtype, trainable, trainable_dtype: As `io.load_weights` and the train step take them.
        autocast: As the updater takes it.

    Raises:
        TypeError: The loss looks at values.
        ValueError: Nothing that is trained takes part in it.
    """
    low = autocast == "bf16" or trainable_dtype == "bf16"
    tape = CostTape(kernels(device, "bf16" if low else None))

    def weight_dtype(name: str) -> tuple[str, bool]:
        return (trainable_dtype, True) if trainable(name) else (dtype, False)

    batch = [Blank(each.shape, str(each.dtype)) if isinstance(each, np.ndarray) else each for each in arrays]
    return shapes.count_pass(
        tape, parameter_slots(module), substitutes(tape), weight_dtype, lambda *given: loss(module, *given), batch
    )


def substitutes(tape: CostTape) -> dict[tuple[Any, str], Any]:
    """Return what takes the place of PyTorch's layers and functions while a pass is counted."""
    of_layers = {
        nn.Linear: layers.Linear, nn._LowRankLinear: layers.LowRankLinear, nn.Embedding: layers.Embedding,
        nn.Conv2d: layers.Conv2d, nn.GroupNorm: layers.GroupNorm,
    }  # fmt: skip
    return {
        (torch.nn.Module, "__call__"): shapes.calling(tape),
        **{(layer, "forward"): substitute.forward for layer, substitute in of_layers.items()},
        **shapes.functions(ops),
    }


def parameter_slots(module: torch.nn.Module) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield a module and all in it by dotted name, each with the dictionary in which its own parameters are."""
    return ((path, child, child._parameters) for path, child in module.named_modules())
