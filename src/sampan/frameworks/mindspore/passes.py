"""Loss and gradients of one micro-batch on MindSpore, compiled or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor

from sampan.frameworks.mindspore import device as dev


@dataclass(frozen=True)
class MicroBatchResult:
    """What one micro-batch gave."""

    loss: Tensor
    more: dict[str, Tensor]
    gradients: dict[str, Tensor]


class GradientPass:
    """Loss and gradients of one set of parameters; what is no tensor in a batch is a constant of it.

    Args:
        parameters: Whose gradients are asked for, by name.
        batch: One of the batches that it is for: as many arrays, and the same constants, as all of them.
        compiled: Compile it, once for each set of shapes.
    """

    def __init__(
        self,
        module: Any,
        parameters: Mapping[str, Parameter],
        loss: Callable[..., Any],
        batch: Sequence[Any],
        *,
        compiled: bool,
    ):
        self.names, self.more_names = list(parameters), list[str]()
        weights = tuple(parameters.values())
        fixed = [None if isinstance(array, Tensor) else array for array in batch]
        is_tensor = [isinstance(array, Tensor) for array in batch]
        places = [sum(is_tensor[:index]) for index in range(len(batch))]

        # a compiled function is read as text: it may neither keep anything nor look at types, and gives one flat tuple
        def value(scale: Tensor, *tensors: Tensor) -> Any:
            result = loss(module, *[tensors[places[i]] if is_tensor[i] else fixed[i] for i in range(len(fixed))])
            if not compiled:
                self._keep_names(result)
            number, more = _split(result)
            return number * scale, (number, *more)

        differentiate: Any = ms.value_and_grad
        run = differentiate(value, None, weights, has_aux=True)
        if not compiled:
            self.run = run
            return
        with dev.no_grad():
            self._keep_names(loss(module, *batch))

        def call(*tensors: Tensor) -> Any:
            return run(*tensors)

        self.run = ms.jit(call)

    def _keep_names(self, result: Any) -> None:
        self.more_names = list(result[1]) if isinstance(result, tuple) else []

    def __call__(self, batch: Sequence[Any], loss_scale: float) -> MicroBatchResult:
        """Run a batch; gradients carry the scale, the loss does not."""
        tensors = [given for given in batch if isinstance(given, Tensor)]
        run: Any = self.run
        (_, (loss, *more)), gradients = run(Tensor(np.float32(loss_scale)), *tensors)
        return MicroBatchResult(
            loss, dict(zip(self.more_names, more, strict=True)), dict(zip(self.names, gradients, strict=True))
        )


def _split(result: Any) -> Any:
    """Return a loss and what it gave beside, in order."""
    if isinstance(result, tuple):
        return result[0], list(result[1].values())
    return result, []
