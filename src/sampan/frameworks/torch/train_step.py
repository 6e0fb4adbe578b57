"""One training step on PyTorch: loss, gradients, clipping, AdamW, EMA, and the state that a checkpoint keeps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from numpy.typing import NDArray

from sampan.frameworks import weight_files
from sampan.frameworks.optimizer import BaseTrainStep, Shape
from sampan.frameworks.records import StepReport
from sampan.frameworks.torch import device as dev
from sampan.frameworks.torch.adamw import CHUNK, FusedAdamW, TensorwiseAdamW, token_tables

Tensors = dict[str, torch.Tensor]


class TrainStep(BaseTrainStep):
    """The step on PyTorch.

    Trained weights in bf16 are rounded stochastically, and with them matrix products are in bf16 whatever `autocast` says;
    there is no fp16. Compiling is done by torch.compile, when a step first calls a loss.
    """

    def _prepare(self, autocast: str) -> None:
        self.compiled: dict[Any, Callable[..., Any]] = {}  # by the loss as it was given
        self.parameters = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        self._check_trained({name: str(p.dtype) for name, p in self.parameters.items()})
        has_bf16 = any(p.dtype != torch.float32 for p in self.parameters.values())
        self.autocast = "bf16" if has_bf16 else autocast
        self.device = next(iter(self.parameters.values())).device
        # what is trained of each parameter: itself, or its first rows, which share its memory
        self.trained = {
            name: p.detach()[: self.frozen_rows[name]].requires_grad_() if name in self.frozen_rows else p
            for name, p in self.parameters.items()
        }
        tables = token_tables(self.module)
        decays, quantized = self._decays(tables), self._quantized(tables)
        self.optimizer = (
            TensorwiseAdamW(self.trained, decays, *self.betas, quantized, self.seed)
            if quantized or has_bf16
            else FusedAdamW(self.trained, decays, *self.betas)
        )
        self.ema: Tensors = {}
        if self.ema_decay:
            self.ema = {name: t.detach().to(torch.float32, copy=True) for name, t in self.trained.items()}

    def step(self, loss: Callable[..., Any], batches: Sequence[Sequence[Any]], lr: float | None = None) -> StepReport:
        self._release_delayed()
        self._clear_gradients()
        losses: list[float] = []
        values: dict[str, float] = {}
        arrays: Tensors = {}
        for batch in batches:
            value, more = self._backward(loss, batch, len(batches))
            losses.append(value)
            arrays = {name: given.detach() for name, given in more.items() if given.ndim}
            for name in more.keys() - arrays.keys():
                values[name] = values.get(name, 0.0) + float(more[name].detach()) / len(batches)
        total = sum(value / len(batches) for value in losses)
        norm = self._grad_norm()
        length = float(norm)
        if not (math.isfinite(length) and math.isfinite(total)):
            bad = tuple(i for i, value in enumerate(losses) if not math.isfinite(value))
            bad = bad or self._bad_gradients(loss, batches)
            self._clear_gradients()
            return StepReport(total, length, values, True, bad, {n: dev.to_numpy(a) for n, a in arrays.items()})
        self.optimizer.update(self.lr if lr is None else lr, torch.clamp(self.clip_norm / (norm + 1e-6), max=1.0))
        self._average()
        self.num_updates += 1
        return StepReport(total, length, values, skipped=False, arrays={n: dev.to_numpy(a) for n, a in arrays.items()})

    def evaluate(self, loss: Callable[..., Any], batch: Sequence[Any]) -> float:
        with torch.no_grad(), self._casting():
            result = self._called(loss)(self.module, *batch)
        return float(result[0] if isinstance(result, tuple) else result)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        self._clear_gradients()  # what the block does needs their memory more
        kept: Tensors = {}
        try:
            for name, average in self.ema.items():
                tensor = self.trained[name]
                if tensor is self.parameters[name]:  # nothing is copied where the dtype is the same
                    kept[name], tensor.data = tensor.data, average.to(tensor.dtype)
                else:
                    kept[name] = tensor.detach().clone()
                    tensor.data.copy_(average)
            yield
        finally:
            for name, before in kept.items():
                tensor = self.trained[name]
                if tensor is self.parameters[name]:
                    tensor.data = before
                else:
                    tensor.data.copy_(before)

    def assign_rows(self, name: str, rows: NDArray[Any], values: NDArray[Any]) -> None:
        table = self.parameters[name].detach()
        table[torch.from_numpy(rows).to(table.device)] = torch.from_numpy(values).to(table)

    def state(self) -> dict[str, Tensors]:
        moments, counts = self.optimizer.state()
        optimizer: Tensors = {"num_updates": torch.tensor(self.num_updates), **moments}
        optimizer |= {f"{n}.step": torch.tensor(c) for n, c in counts.items() if c != self.num_updates}
        weights = self._state_tensors()
        ema = {**weights, **{name: self._whole(name, kept) for name, kept in self.ema.items()}}
        return {"weights": weights, "ema": ema if self.ema else weights, "optimizer": optimizer}

    def _state_shapes(self) -> dict[str, Shape]:
        return {name: tuple(t.shape) for name, t in self._state_tensors().items()}

    def _trained_shapes(self) -> dict[str, Shape]:
        return {name: tuple(t.shape) for name, t in self.trained.items()}

    def _trained_dtype(self, name: str) -> str:
        return weight_files.dtype_name(self.parameters[name])

    @torch.no_grad()
    def _load(
        self,
        weights: Mapping[str, torch.Tensor],
        averages: Mapping[str, torch.Tensor],
        optimizer: Mapping[str, torch.Tensor],
        counts: Mapping[str, int],
    ) -> str | None:
        for name, tensor in self._state_tensors().items():
            tensor.copy_(weights[name])
        for name, kept in self.ema.items():
            kept.copy_(averages[name][: len(kept)] if kept.ndim else averages[name])
        return self.optimizer.load(optimizer, counts)

    def _state_tensors(self) -> Tensors:
        """Return the state's weights: all of the module's, or those that are trained."""
        tensors = self.module.state_dict().items()
        return {name: t.detach() for name, t in tensors if name in self.parameters or not self.trained_only}

    # --- parts of a step -----------------------------------------------------------------------------------------------

    def _casting(self) -> AbstractContextManager[Any]:
        # without the cache no bf16 copies of weights outlive their use in a pass that is computed again
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast == "bf16", cache_enabled=False)

    def _called(self, loss: Callable[..., Any]) -> Callable[..., Any]:
        """Return what is called for a loss: itself, or what was compiled of it."""
        if not self.is_compiled:
            return loss
        if loss not in self.compiled:
            self.compiled[loss] = torch.compile(loss)
        return self.compiled[loss]

    def _backward(self, loss: Callable[..., Any], batch: Sequence[Any], parts: int) -> tuple[float, dict[str, Any]]:
        with self._casting():
            result = self._called(loss)(self.module, *batch)
        value, more = result if isinstance(result, tuple) else (result, {})
        (value / parts).backward()
        for name in self.frozen_rows:  # of a table's gradient only the trained rows are kept
            whole, rows = self.parameters[name], self.trained[name]
            if whole.grad is not None:
                new = whole.grad[: len(rows)]
                rows.grad = new.clone() if rows.grad is None else rows.grad.add_(new)
                whole.grad = None
        return float(value.detach()), more

    def _release_delayed(self) -> None:
        for name, first in self.delayed.items():
            self.parameters[name].requires_grad_(self.num_updates >= first)

    def _clear_gradients(self) -> None:
        for name, tensor in self.trained.items():
            tensor.grad = self.parameters[name].grad = None

    def _grad_norm(self) -> torch.Tensor:
        gradients = [t.grad for t in self.trained.values() if t.grad is not None]
        norms = torch._foreach_norm(gradients, 2, dtype=torch.float32)  # pyright: ignore[reportPrivateImportUsage]
        return torch.linalg.vector_norm(torch.stack(norms))

    def _bad_gradients(self, loss: Callable[..., Any], batches: Sequence[Sequence[Any]]) -> tuple[int, ...]:
        """Compute the micro-batches again, one at a time, and return those whose own gradient is not finite."""
        bad = []
        for index, batch in enumerate(batches):
            self._clear_gradients()
            self._backward(loss, batch, len(batches))
            if not math.isfinite(float(self._grad_norm())):
                bad.append(index)
        return tuple(bad)

    @torch.no_grad()
    def _average(self) -> None:
        decay = self._average_decay()
        for name, kept in self.ema.items():
            tensor = self.trained[name].detach()
            if tensor.dtype == kept.dtype:
                kept.lerp_(tensor, 1 - decay)
            else:
                flat, weights = kept.view(-1), tensor.view(-1)
                for start in range(0, len(flat), CHUNK):
                    flat[start : start + CHUNK].lerp_(weights[start : start + CHUNK].float(), 1 - decay)

    def _whole(self, name: str, rows: torch.Tensor) -> torch.Tensor:
        """Return trained rows with the frozen ones after them, on the host: a table can be too large to have twice."""
        if name not in self.frozen_rows:
            return rows
        frozen = self.parameters[name].detach()[len(rows) :]
        return torch.cat([rows.cpu(), frozen.to("cpu", rows.dtype)])


def check_supported(*, weights: str) -> None:
    """Say now what a training would refuse later: on PyTorch nothing.

    Args:
        weights: "fp32" or "bf16", as the job's train.weights.
    """


def freeze(module: torch.nn.Module) -> None:
    """Take a module's parameters out of training."""
    module.requires_grad_(False)
    module.eval()
