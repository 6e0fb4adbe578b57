"""One training step on PyTorch: loss, gradients, clipping, AdamW, EMA, and the state that a checkpoint keeps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from sampan.frameworks import stored
from sampan.frameworks.quantized import is_coded
from sampan.frameworks.records import StepReport
from sampan.frameworks.torch import device as dev
from sampan.frameworks.torch import io
from sampan.frameworks.torch.adamw import CHUNK, FusedAdamW, TensorwiseAdamW, token_tables

Tensors = dict[str, torch.Tensor]


class TrainStep:
    """AdamW with clipping and an exponential moving average of the weights.

    Args:
        module: Its parameters that require gradients are trained; those in bf16 are rounded stochastically.
        lr, beta1, beta2, weight_decay: AdamW's. Decay acts on matrices only, and not on embedding tables.
        clip_norm: Gradients longer than this are shortened to it.
        ema_decay: s ← d·s + (1-d)·w, with d ramped up as (1 + n)/(10 + n) over the first steps n. With 0 there is no
            average, and the weights stand for it. It is held in fp32.
        autocast: "bf16" runs matrix products of the loss in bf16; "fp32" nothing of the kind. Where trained weights are
            bf16 themselves it is "bf16" whatever is said here.
        moments: "fp32", or "8bit" for those of large tensors that are not embedding tables.
        master: Trained weights are fp32. Without it they are bf16, and there is no other copy of them.
        trained_only: The state's weights are those that are trained, and no other.
        frozen_rows: Parameter name to its first row that is never changed; this row and all after it have neither moments
            nor an average.
        delayed: Parameter name to the number of updates before its training begins. Until then it has no gradient.
        seed: Key of the draws that round bf16 weights.
        compiled: Compile the loss with its gradient (torch.compile), when a step first calls it.

    Raises:
        ValueError: No parameter is trained, or weights are of another dtype than `master` says.
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
        moments: str = "fp32",
        master: bool = True,
        trained_only: bool = False,
        frozen_rows: Mapping[str, int] | None = None,
        delayed: Mapping[str, int] | None = None,
        seed: int = 0,
        compiled: bool = False,
    ):
        self.compiled: dict[Any, Callable[..., Any]] | None = {} if compiled else None  # by the loss as it was given
        self.module, self.lr = module, lr  # of a step that names no other
        self.clip_norm, self.ema_decay, self.trained_only = clip_norm, ema_decay, trained_only
        self.frozen_rows, self.delayed = dict(frozen_rows or {}), dict(delayed or {})
        self.parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        low = [name for name, p in self.parameters.items() if p.dtype != torch.float32]
        strange = [name for name in (*self.frozen_rows, *self.delayed) if name not in self.parameters]
        if not self.parameters or strange:
            raise ValueError(f"`{strange[0]}` is not trained" if strange else "nothing in the module is trained")
        if master and low:
            raise ValueError(f"`{low[0]}` is {self.parameters[low[0]].dtype}, and is to be trained as fp32")
        self.autocast = "bf16" if low else autocast
        self.device = next(iter(self.parameters.values())).device
        # what is trained of each parameter: itself, or its first rows, which share its memory
        self.trained = {
            name: p.detach()[: self.frozen_rows[name]].requires_grad_() if name in self.frozen_rows else p
            for name, p in self.parameters.items()
        }
        tables = token_tables(module)
        decays = {n: weight_decay if t.ndim >= 2 and n not in tables else 0.0 for n, t in self.trained.items()}
        coded = {n for n, t in self.trained.items() if moments == "8bit" and is_coded(t.numel(), n in tables)}
        self.optimizer = (
            TensorwiseAdamW(self.trained, decays, beta1, beta2, coded, seed)
            if coded or low
            else FusedAdamW(self.trained, decays, beta1, beta2)
        )
        self.ema: Tensors = {}
        if ema_decay:
            self.ema = {name: t.detach().to(torch.float32, copy=True) for name, t in self.trained.items()}
        self.num_updates = 0

    def step(self, loss: Callable[..., Any], batches: Sequence[Sequence[Any]], lr: float | None = None) -> StepReport:
        """Take one step over micro-batches.

        Args:
            loss: `loss(module, *batch)` returns a scalar, or a scalar and a dict: scalars in it are averaged over the
                micro-batches, arrays are handed on of the last one.
        """
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
        """Return the loss of a batch under the weights as they are now; inside `averaged`, under the average."""
        with torch.no_grad(), self._casting():
            result = self._called(loss)(self.module, *batch)
        return float(result[0] if isinstance(result, tuple) else result)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the average into the module while the block runs; no step may be taken in it."""
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
        """Overwrite rows of a trained table; moments and average stay."""
        table = self.parameters[name].detach()
        table[torch.from_numpy(rows).to(table.device)] = torch.from_numpy(values).to(table)

    def state(self) -> dict[str, Tensors]:
        """Return what a checkpoint keeps: `weights`, `ema`, and `optimizer`: moments and counts of updates.

        `NAME.step` stands there where a tensor had fewer updates than the whole. Without an average, `ema` is the same
        dict as `weights`. Tensors are those in use, and change with the next step.
        """
        moments, counts = self.optimizer.state()
        optimizer: Tensors = {"num_updates": torch.tensor(self.num_updates), **moments}
        optimizer |= {f"{n}.step": torch.tensor(c) for n, c in counts.items() if c != self.num_updates}
        weights = {
            name: value.detach()
            for name, value in self.module.state_dict().items()
            if name in self.parameters or not self.trained_only
        }
        ema = {**weights, **{name: self._whole(name, kept) for name, kept in self.ema.items()}}
        return {"weights": weights, "ema": ema if self.ema else weights, "optimizer": optimizer}

    def load_state(self, state: Mapping[str, Tensors]) -> tuple[str, ...]:
        """Take over what `state` returned, tensor by tensor; return in words what had to be converted.

        Where there is no `ema`, or an empty one, the weights are its beginning. The tensors may lie on the host.

        Raises:
            CheckpointError: It is the state of other parameters.
        """
        weights, optimizer = state["weights"], state["optimizer"]
        averages = state.get("ema") or weights
        mine = self.module.state_dict() if not self.trained_only else {n: p.data for n, p in self.parameters.items()}
        stored.check_same("weights", {n: t.shape for n, t in mine.items()}, {n: t.shape for n, t in weights.items()})
        self.num_updates = int(optimizer["num_updates"])
        counts = {}
        for name in self.trained:
            if f"{name}.exp_avg" in optimizer or f"{name}.exp_avg.codes" in optimizer:
                counts[name] = int(optimizer.get(f"{name}.step", optimizer["num_updates"]))
        held = {name: _held_shape(optimizer, name) for name in counts}
        stored.check_same("moments", {name: self.trained[name].shape for name in counts}, held)
        with torch.no_grad():
            for name, tensor in mine.items():
                tensor.copy_(weights[name])
            for name, kept in self.ema.items():
                kept.copy_(averages[name][: len(kept)] if kept.ndim else averages[name])
            note = self.optimizer.load(optimizer, counts)
        rounded = [name for name in self.parameters if weights[name].dtype != self.parameters[name].dtype]
        if not rounded:
            return (note,) if note else ()
        before, now = (str(t[rounded[0]].dtype).removeprefix("torch.") for t in (weights, self.parameters))
        said = f"{len(rounded)} weights were saved in {before} and go on in {now}"
        return (said, note) if note else (said,)

    # --- parts of a step -----------------------------------------------------------------------------------------------

    def _casting(self) -> AbstractContextManager[Any]:
        # without the cache no bf16 copies of weights outlive their use in a pass that is computed again
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast == "bf16", cache_enabled=False)

    def _called(self, loss: Callable[..., Any]) -> Callable[..., Any]:
        """Return what is called for a loss: itself, or what was compiled of it."""
        if self.compiled is None:
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
        decay = min(self.ema_decay, (1 + self.num_updates) / (10 + self.num_updates))
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


def check(*, weights: str) -> None:
    """Say now what a training would refuse later: on PyTorch nothing.

    Args:
        weights: "fp32" or "bf16", as the job's train.weights.
    """


def materialize(
    module: torch.nn.Module,
    files: Mapping[str, Path] | None,
    arrays: Mapping[str, Any],
    *,
    device: str,
    dtype: str,
    trainable: Callable[[str], bool],
    trainable_dtype: str,
    prefix: str = "",
    name: str = "the model",
) -> None:
    """Give a module that was built on the meta device its weights, each straight to its device and dtype.

    Args:
        files: Parameter name to the safetensors file that holds it.
        arrays: Parameter name to a host array, for all that no file has. They are asked for one at a time, so that a
            mapping may make them then.
        dtype: "fp32" or "bf16", of parameters that are not trained, and of buffers.
        trainable: Says of a parameter's name whether it is trained.
        trainable_dtype: "fp32" or "bf16", of parameters that are.
        prefix: Beginning of names in `files` that the files themselves do not have.
        name: What errors call the module.

    Raises:
        CheckpointError: A tensor is missing, unexpected, of another shape or quantized, or a file cannot be read.
        DeviceError: The weights do not fit on the device.
    """
    parameters = {parameter for parameter, _ in module.named_parameters()}
    io.load_weights(
        module,
        files or {},
        device=device,
        dtype=lambda n: trainable_dtype if n in parameters and trainable(n) else dtype,
        arrays=arrays,
        prefix=prefix,
        name=name,
    )
    for parameter_name, parameter in module.named_parameters():
        parameter.requires_grad_(trainable(parameter_name))


def freeze(module: torch.nn.Module) -> None:
    """Take a module's parameters out of training."""
    module.requires_grad_(False)
    module.eval()


def load_weights(module: torch.nn.Module, weights: Tensors) -> None:
    """Copy weights into a module; every name must be there and no other."""
    module.load_state_dict(weights)


def _held_shape(optimizer: Mapping[str, torch.Tensor], name: str) -> torch.Size:
    key = f"{name}.exp_avg"
    return optimizer[f"{key}.codes" if f"{key}.codes" in optimizer else key].shape
