"""What one training pass costs on MindSpore, found before a run: arithmetic, and the memory of what lives during it.

The real module and the real loss run on shapes (sampan.frameworks.shapes). FLOPs are exact. Memory is the sum of what each
operation's gradient keeps; what a kernel takes for itself and how an allocator rounds is not seen. On Ascend norms and
attention are fused kernels; on a CPU they are written out, attention with all pairs.

Beside PyTorch's meter, for a micro-batch of every stage at the released sizes (pictures of 1024 px, fp32), FLOPs of forward,
useful and executed are equal to the last digit. Bytes kept, and the most that lives at a time, as shares of PyTorch's:

    stage               kept   peak      what differs
    vae                 1.00   1.00
    tokenizer           1.06   1.01      heads of attention's result are joined by a copy
    glyph               1.00   1.00
    ar                  1.00   1.00      with low rank and layers computed again 1.02
    decoder             1.00   1.00      with low rank and layers computed again 1.03
    ar, bf16 weights    0.87   0.87      PyTorch's RMS norm on a CPU keeps what it reads in fp32
    decoder, bf16       1.00   1.00

On a CPU the count is a lower bound. A pass of a generator of four layers over 768 tokens took 581 MB of a process where 247
are counted, and 347 MB where 112 are, with layers computed again: MindSpore's kernels there take memory for themselves (a
softmax twice its result) and its pools give nothing back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from sampan.frameworks.mindspore import ops, parallel
from sampan.frameworks.mindspore.flat import MOST_VALUES
from sampan.frameworks.mindspore.nn import Module, token_tables
from sampan.frameworks.records import ParameterCount, PassCost
from sampan.frameworks.shapes import count as shapes
from sampan.frameworks.shapes.array import Blank
from sampan.frameworks.shapes.tape import BYTES, CostTape, Kernels

# fp32 copies of a rank's part of a vector that an update makes beside the gradient: clipped, the new first moment, and
# what their arithmetic has in between; and copies of a whole vector, while it is put together from tensors
_UPDATE_COPIES, _WHOLE_COPIES = 6, 2


def count(
    module: Any,
    trainable: Callable[[str], bool] = lambda name: True,
    frozen_rows: Mapping[str, int] | None = None,
) -> ParameterCount:
    """Count the values of a module's parameters. The module may have been built without memory.

    Args:
        trainable: Says of a parameter's name whether it is trained.
        frozen_rows: As the updater takes them.
    """
    counted, largest = shapes.count_parameters(parameter_slots(module), token_tables(module), trainable, frozen_rows)
    ranks, longest = parallel.num_ranks(), min(counted.trained, max(largest, MOST_VALUES))
    copies = _UPDATE_COPIES * longest // ranks + (_WHOLE_COPIES * longest if ranks > 1 else 0)
    return dataclasses.replace(counted, update_bytes=BYTES["fp32"] * copies, num_ranks=ranks)


def measure(
    module: Any,
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

    The gradients of a pass are new arrays, which are added to those of the pass before when it is over: they are part of
    what a pass takes above gradients.

    Args:
        module: With memory or without; it is as before afterwards.
        loss: As the updater takes it. It may not look at values: there are none.
        arrays: What it takes after the module. Of NumPy arrays only shapes and dtypes matter; the rest stays as it is.
        device: Where the run is to be.
        dtype, trainable, trainable_dtype: As `io.load_weights` and the train step take them.
        autocast: As the updater takes it.

    Raises:
        TypeError: The loss looks at values.
        ValueError: Nothing that is trained takes part in it.
    """
    tape = CostTape(kernels(device))
    working = trainable_dtype if autocast == "fp32" else autocast

    def weight_dtype(name: str) -> tuple[str, bool]:
        return (working, True) if trainable(name) else (dtype, False)

    batch = [Blank(each.shape, str(each.dtype)) if isinstance(each, np.ndarray) else each for each in arrays]
    cost = shapes.count_pass(
        tape, parameter_slots(module), substitutes(tape), weight_dtype, lambda *given: loss(module, *given), batch
    )
    values = sum(prod(parameter.shape) for name, parameter in module.parameters_and_names() if trainable(name))
    working_bytes = BYTES[working] * values if working != trainable_dtype else 0
    return dataclasses.replace(cost, activation_bytes=cost.peak_bytes, working_bytes=working_bytes)


def kernels(device: str) -> Kernels:
    """Return what MindSpore's kernels keep."""
    fused = device.startswith("npu")
    return Kernels(attention=fused, norms=fused, wide_group_norm=True, frozen_input=True)


def substitutes(tape: CostTape) -> dict[tuple[Any, str], Any]:
    """Return what takes the place of MindSpore's functions while a pass is counted; its layers call these."""
    # a Cell's own __call__ makes its parameters' memory, and knows arrays only
    return {(Module, "__call__"): shapes.calling(tape), **shapes.functions(ops)}


def parameter_slots(module: Any) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield a module and all in it by dotted name, each with the dictionary in which its own parameters are."""
    return ((path, cell, cell._params) for path, cell in module.cells_and_names())
