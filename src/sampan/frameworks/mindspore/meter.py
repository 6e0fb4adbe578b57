"""What one training pass costs on MindSpore, found before a run: arithmetic, and the memory of what lives during it.

MindSpore has no fake tensors. The real module and the real loss run on outlines (sampan.frameworks.shapes): while they do,
outlines stand in the place of the module's parameters and of the seam's functions. FLOPs are exact. Memory is the sum of
what each operation's gradient keeps, by the rules there; what a kernel takes for itself and how an allocator rounds is not
seen. On Ascend norms and attention are fused kernels; on a CPU they are written out, attention with all pairs.

Beside PyTorch's meter, for a micro-batch of every stage at the released sizes (pictures of 1024 px, fp32), FLOPs of forward,
useful and executed are equal to the last digit. Bytes kept, and the most that lives at a time, as shares of PyTorch's:

    stage               kept   peak      what differs
    vae                 1.00   1.00
    tokenizer           1.06   1.01      heads of attention's result are joined by a copy
    glyph               0.88   1.00      PyTorch's rms_norm also keeps what it makes for the product with its weight
    ar                  0.85   0.85      the same
    ar, again           0.99   1.00
    ar, low rank        1.00   1.00      with layers computed again 1.02
    decoder             1.00   1.00      with low rank and layers computed again 1.03
    ar, bf16 weights    0.74   0.74      as for ar, and PyTorch's keeps it in fp32
    decoder, bf16       1.00   1.00

On a CPU the count is a lower bound. A pass of a generator of four layers over 768 tokens took 581 MB of a process where 247
are counted, and 347 MB where 112 are, with layers computed again: MindSpore's kernels there take memory for themselves (a
softmax twice its result) and its pools give nothing back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np

from sampan.frameworks.mindspore import ops, parallel
from sampan.frameworks.mindspore.flat import MOST_VALUES
from sampan.frameworks.mindspore.nn import Module, token_tables
from sampan.frameworks.quantized import is_quantized
from sampan.frameworks.records import ParameterCount, PassCost
from sampan.frameworks.shapes import array
from sampan.frameworks.shapes import ops as outlined
from sampan.frameworks.shapes.tape import BYTES, CostTape

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
    tables = token_tables(module)
    trained = coded = frozen = in_rows = largest = 0
    for name, parameter in module.parameters_and_names():
        values, rows = prod(parameter.shape), parameter.shape[0] if parameter.shape else 1
        if not trainable(name):
            frozen += values
            continue
        used = values // rows * min((frozen_rows or {}).get(name, rows), rows)
        trained, in_rows = trained + used, in_rows + values - used
        coded += used if is_quantized(used, name in tables) else 0
        largest = max(largest, used)
    ranks, longest = parallel.num_ranks(), min(trained, max(largest, MOST_VALUES))
    copies = _UPDATE_COPIES * longest // ranks + (_WHOLE_COPIES * longest if ranks > 1 else 0)
    return ParameterCount(trained, coded, frozen, in_rows, update_bytes=BYTES["fp32"] * copies, num_ranks=ranks)


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
    """Run a loss forward and backward on outlines and return what it costs.

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
    tape = CostTape(fused=device.startswith("npu"))
    working = trainable_dtype if autocast == "fp32" else autocast

    def weight(name: str, parameter: Any) -> array.ShapeArray:
        is_trained = trainable(name)
        return array.weight(tape, parameter.shape, working if is_trained else dtype, trained=is_trained)

    with _outlines(module, weight):
        batch = [array.given(tape, each) if isinstance(each, np.ndarray) else each for each in arrays]
        batch_bytes = sum(each.nbytes for each in arrays if isinstance(each, np.ndarray))
        found = tape.measure(lambda: loss(module, *batch), batch_bytes=batch_bytes)
    values = sum(prod(parameter.shape) for name, parameter in module.parameters_and_names() if trainable(name))
    working_bytes = BYTES[working] * values if working != trainable_dtype else 0
    return dataclasses.replace(found, activation_bytes=found.peak_bytes, working_bytes=working_bytes)


@contextmanager
def _outlines(module: Any, weight: Callable[[str, Any], array.ShapeArray]) -> Iterator[None]:
    """Put outlines in the place of a module's parameters and of the seam's functions while the block runs."""
    functions = {name: getattr(ops, name) for name in outlined.__all__}
    parameters = [
        (cell._params, leaf, parameter, f"{path}.{leaf}" if path else leaf)
        for path, cell in module.cells_and_names()
        for leaf, parameter in cell._params.items()
    ]

    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        return self.construct(*arguments, **named)

    try:
        Module.__call__ = call  # a Cell's own makes its parameters' memory, and knows arrays only
        for name in functions:
            setattr(ops, name, getattr(outlined, name))
        for holder, leaf, parameter, name in parameters:
            holder[leaf] = weight(name, parameter)
        yield
    finally:
        del Module.__call__
        for name, function in functions.items():
            setattr(ops, name, function)
        for holder, leaf, parameter, _ in parameters:
            holder[leaf] = parameter
