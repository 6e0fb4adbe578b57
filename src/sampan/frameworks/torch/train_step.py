"""One training step on PyTorch: loss, gradients, clipping, AdamW, EMA, and the state that a checkpoint keeps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from math import prod
from typing import Any

import torch
from numpy.typing import NDArray
from torch.distributed.tensor import DTensor

from sampan.frameworks import weight_files
from sampan.frameworks.optimizer import BaseTrainStep, Shape
from sampan.frameworks.quantized import BLOCK, num_blocks
from sampan.frameworks.records import MicroShare, StepReport
from sampan.frameworks.torch import device as dev
from sampan.frameworks.torch import parallel
from sampan.frameworks.torch.adamw import CHUNK, FusedAdamW, Stretch, TensorwiseAdamW, token_tables
from sampan.frameworks.torch.io import rows_of, whole_of
from sampan.frameworks.torch.sharding import (
    FROZEN,
    HeldRows,
    ShardedModule,
    ShardPlan,
    WholeModule,
    blocks_of,
    gathered_bytes,
    shard,
)

Tensors = dict[str, torch.Tensor]


class TrainStep(BaseTrainStep):
    """The step on PyTorch.

    Ranks share it: all methods are called by every rank, or by none. Where they hold slices of the weights, each holds the
    same slices of moments and average, and updates them.

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
        self.whole = None if isinstance(self.shared, ShardedModule) else WholeModule(self.module)
        self.ranks: WholeModule | ShardedModule = self.whole or self.shared
        if self.is_compiled and not self.whole:
            for block in blocks_of(self.module):
                block.compile(dynamic=False)
        self.rows = {name: self.ranks.rows(name, p) for name, p in self.parameters.items()}
        # what is trained of each parameter: itself, its first rows, or this rank's, which share its memory
        self.trained = {name: self._leaf(name, p) for name, p in self.parameters.items()}
        tables = token_tables(self.module)
        decays, quantized = self._decays(tables), self._quantized(tables)
        stretches = {} if self.whole else {name: self._stretch(name) for name in self.trained}
        self.optimizer = (
            TensorwiseAdamW(self.trained, decays, *self.betas, quantized, self.seed, stretches, self.ranks.largest)
            if quantized or has_bf16
            else FusedAdamW(self.trained, decays, *self.betas, stretches)
        )
        self.ema: Tensors = {}
        if self.ema_decay:
            self.ema = {name: t.detach().to(torch.float32, copy=True) for name, t in self.trained.items()}

    def step(
        self,
        loss: Callable[..., Any],
        batches: Sequence[Sequence[Any]],
        lr: float | None = None,
        share: MicroShare | None = None,
    ) -> StepReport:
        self._release_delayed()
        self._clear_gradients()
        count, total = (len(batches), len(batches)) if share is None else (share.count, share.total)
        losses: list[float] = []
        values: list[dict[str, float]] = []
        arrays: Tensors = {}
        for index, batch in enumerate(batches):
            weight = 1.0 if share is None else float(parallel.num_ranks() * (index < count))  # ranks average
            with self.ranks.adding(index == len(batches) - 1):
                value, more = self._backward(loss, batch, total, weight)
            if index >= count:
                continue
            losses.append(value)
            arrays = {name: given.detach() for name, given in more.items() if given.ndim}
            values.append({name: float(given.detach()) for name, given in more.items() if name not in arrays})
        self._collect()
        host = {name: dev.to_numpy(given) for name, given in arrays.items()}
        if share is not None:
            from_all = parallel.gathered([losses, values])
            losses, values = ([one for own in from_all for one in own[part]] for part in (0, 1))
            last = max(rank for rank, own in enumerate(from_all) if own[0])
            host = parallel.from_rank(last, host)
        mean = {name: sum(one[name] / total for one in values) for name in (values[0] if values else {})}
        loss_value = sum(value / total for value in losses)
        norm = self._grad_norm()
        length = float(norm)
        if not (math.isfinite(length) and math.isfinite(loss_value)):
            bad = tuple(i for i, value in enumerate(losses) if not math.isfinite(value))
            bad = bad or self._bad_gradients(loss, batches, share)
            self._clear_gradients()
            return StepReport(loss_value, length, mean, True, bad, host)
        self.optimizer.update(self.lr if lr is None else lr, torch.clamp(self.clip_norm / (norm + 1e-6), max=1.0))
        self._average()
        self.num_updates += 1
        return StepReport(loss_value, length, mean, skipped=False, arrays=host)

    def evaluate(self, loss: Callable[..., Any], batch: Sequence[Any]) -> float:
        with torch.no_grad(), self._casting():
            result = self.ranks.evaluate(self._called(loss), batch)
        return float(result[0] if isinstance(result, tuple) else result)

    @contextmanager
    def averaged(self) -> Iterator[torch.nn.Module]:
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
            yield self.module if self.whole else self.shared.gather()
        finally:
            if not self.whole:
                self.shared.release()
            for name, before in kept.items():
                tensor = self.trained[name]
                if tensor is self.parameters[name]:
                    tensor.data = before
                else:
                    tensor.data.copy_(before)

    def averages(self) -> dict[str, Any]:
        if self.whole:
            return self.state()["ema"]
        with self.averaged() as module:
            return {name: p.detach().clone() for name, p in module.named_parameters()}

    def assign_rows(self, name: str, rows: NDArray[Any], values: NDArray[Any]) -> None:
        held = self.rows[name]
        table, here = held.tensor.detach(), (rows >= held.first) & (rows < held.first + len(held.tensor))
        table[torch.from_numpy(rows[here] - held.first).to(table.device)] = torch.from_numpy(values[here]).to(table)

    # --- the state of a checkpoint -------------------------------------------------------------------------------------

    def state(self) -> dict[str, dict[str, Any]]:
        moments, counts = self.optimizer.state()
        steps: Tensors = {"num_updates": torch.tensor(self.num_updates)}
        steps |= {f"{n}.step": torch.tensor(c) for n, c in counts.items() if c != self.num_updates}
        if parallel.num_ranks() == 1:
            weights = self._state_tensors()
            ema = {**weights, **{name: self._whole(name, kept) for name, kept in self.ema.items()}}
            return {"weights": weights, "ema": ema if self.ema else weights, "optimizer": {**steps, **moments}}
        weights = self._state_rows(None)
        optimizer = {name: (HeldRows(value, (), 0, parallel.rank() == 0),) for name, value in steps.items()}
        optimizer |= {key: (self._moment_rows(key, value),) for key, value in moments.items()}
        return {"weights": weights, "ema": self._state_rows(self.ema) if self.ema else weights, "optimizer": optimizer}

    def _state_rows(self, averages: Mapping[str, torch.Tensor] | None) -> dict[str, tuple[HeldRows, ...]]:
        """Return what this rank has of each of the state's weights, or of their averages."""
        found: dict[str, tuple[HeldRows, ...]] = {}
        for name, parameter in self.module.named_parameters():
            if self.trained_only and name not in self.parameters:
                continue
            held = self.rows.get(name) or self.ranks.rows(name, parameter)
            if averages is not None and name in averages:
                held = replace(held, tensor=averages[name])
            table = name.removesuffix(FROZEN) + "weight" if name.endswith(f".{FROZEN}") else name
            if table != name and averages is not None:
                held = replace(held, tensor=held.tensor.float())
            found[table] = (*found.get(table, ()), held)
        return found

    def _moment_rows(self, key: str, value: torch.Tensor) -> HeldRows:
        """Return a moment, or the codes or scales of one, as rows of the whole."""
        name = key.rpartition(".exp_avg")[0]
        held, shape = self.rows[name], self._trained_shapes()[name]
        if not key.endswith(".scales"):
            return replace(held, tensor=value, shape=shape)
        stretch = self._stretch(name)
        cut = 1 if stretch.lead and len(value) else 0  # a block belongs to the rank that has its first value
        return HeldRows(value[cut:], (num_blocks(stretch.whole),), stretch.first // BLOCK + cut, held.is_writer)

    def _state_shapes(self) -> dict[str, Shape]:
        if self.whole:
            return {name: tuple(t.shape) for name, t in self._state_tensors().items()}
        return {name: rows[0].shape for name, rows in self._state_rows(None).items()}

    def _trained_shapes(self) -> dict[str, Shape]:
        return {
            name: (self.frozen_rows.get(name, held.shape[0]), *held.shape[1:]) if held.shape else ()
            for name, held in self.rows.items()
        }

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
        for name, every in self._state_rows(None).items():
            for held in every:
                held.tensor.copy_(rows_of(weights[name], held.first, held.tensor))
        for name, kept in self.ema.items():
            kept.copy_(rows_of(averages[name], self.rows[name].first, kept))
        if self.whole:
            return self.optimizer.load({key: whole_of(value) for key, value in optimizer.items()}, counts)
        own = {}
        for key in optimizer:
            name = key.rpartition(".exp_avg")[0]
            if name in counts:
                own[key] = self._own_moment(key, name, optimizer[key])
        return self.optimizer.load(own, counts)

    def _own_moment(self, key: str, name: str, value: Any) -> torch.Tensor:
        tensor, stretch = self.trained[name], self._stretch(name)
        if not key.endswith(".scales"):
            return rows_of(value, self.rows[name].first, tensor)
        blocks = torch.empty(num_blocks(stretch.lead + tensor.numel()))
        return rows_of(value, stretch.first // BLOCK, blocks)

    def _state_tensors(self) -> Tensors:
        """Return the state's weights: all of the module's, or those that are trained."""
        tensors = self.module.state_dict().items()
        return {name: t.detach() for name, t in tensors if name in self.parameters or not self.trained_only}

    def _leaf(self, name: str, parameter: torch.Tensor) -> torch.Tensor:
        """Return what the optimizer holds of a parameter."""
        if not self.whole:
            return self.rows[name].tensor.requires_grad_()
        count = self.frozen_rows.get(name)
        return parameter if count is None else parameter.detach()[:count].requires_grad_()

    def _stretch(self, name: str) -> Stretch:
        held = self.rows[name]
        whole, width = prod(self._trained_shapes()[name]), prod(held.shape[1:])
        rows_each = -(-self._trained_shapes()[name][0] // self.shared.plan.shard) if not self.whole else 0
        return Stretch(held.first * width, whole, cuts=rows_each * width % BLOCK != 0 and rows_each * width < whole)

    # --- parts of a step -----------------------------------------------------------------------------------------------

    def _casting(self) -> AbstractContextManager[Any]:
        # without the cache no bf16 copies of weights outlive their use in a pass that is computed again
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast == "bf16", cache_enabled=False)

    def _called(self, loss: Callable[..., Any]) -> Callable[..., Any]:
        """Return what is called for a loss: itself, or what was compiled of it."""
        if not self.is_compiled or not self.whole:  # of slices each block is compiled, between its gatherings
            return loss
        if loss not in self.compiled:
            self.compiled[loss] = torch.compile(loss)
        return self.compiled[loss]

    def _backward(
        self, loss: Callable[..., Any], batch: Sequence[Any], parts: int, weight: float = 1.0
    ) -> tuple[float, dict[str, Any]]:
        with self._casting():
            result = self.ranks.call(self._called(loss), batch)
        value, more = result if isinstance(result, tuple) else (result, {})
        (value / parts * weight).backward()
        if self.whole:
            for name in self.frozen_rows:  # of a table's gradient only the trained rows are kept
                whole, rows = self.parameters[name], self.trained[name]
                if whole.grad is not None:
                    new = whole.grad[: len(rows)]
                    rows.grad = new.clone() if rows.grad is None else rows.grad.add_(new)
                    whole.grad = None
        return float(value.detach()), more

    def _collect(self) -> None:
        """Bring the gradients of slices to where the optimizer takes them."""
        if self.whole:
            return
        for name, tensor in self.trained.items():
            gradient = self.parameters[name].grad
            is_due = self.num_updates >= self.delayed.get(name, 0)
            tensor.grad = gradient.to_local() if is_due and isinstance(gradient, DTensor) else None

    def _release_delayed(self) -> None:
        if self.whole:  # slices keep gradients until they are collected: what is gathered must not change
            for name, first in self.delayed.items():
                self.parameters[name].requires_grad_(self.num_updates >= first)

    def _clear_gradients(self) -> None:
        for name, tensor in self.trained.items():
            tensor.grad = self.parameters[name].grad = None

    def _grad_norm(self) -> torch.Tensor:
        gradients = [t.grad for t in self.trained.values() if t.grad is not None]
        norms = torch._foreach_norm(gradients, 2, dtype=torch.float32)  # pyright: ignore[reportPrivateImportUsage]
        if self.whole:
            return torch.linalg.vector_norm(torch.stack(norms))
        return self.ranks.sum_shards(torch.stack(norms).square().sum()).sqrt()

    def _bad_gradients(
        self, loss: Callable[..., Any], batches: Sequence[Sequence[Any]], share: MicroShare | None
    ) -> tuple[int, ...]:
        """Compute the micro-batches again, one at a time, and return those whose own gradient is not finite.

        Ranks that share a step all compute the same one: gradients come together in every pass.
        """
        bad = []
        for index in range(len(batches) if share is None else share.total):
            self._clear_gradients()
            self._backward(loss, batches[index] if share is None else share.again(index), 1 if share else len(batches))
            self._collect()
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


def share(
    module: torch.nn.Module,
    *,
    device: str,
    method: str,
    layout: tuple[int, int],
    autocast: str,
    dtype: Callable[[str], str],
    trainable: Callable[[str], bool],
    frozen_rows: Mapping[str, int],
) -> ShardedModule | None:
    """Share a module that is on the meta device by slices of its weights; None where every rank is to have it whole.

    Args:
        method: "full" or "lora". A LoRA's gradients are small: its ranks hold whole weights, unless they are to hold slices.
        layout: Degrees (dp_replicate, dp_shard).
        autocast: Dtype of matrix products; blocks are gathered in it.
        dtype: Returns "fp32" or "bf16" for a parameter's name.
        trainable: Says of a parameter's name whether it is trained.
        frozen_rows: Parameter name of a table to its first row that is not trained.
    """
    replicate, shards = layout
    if parallel.num_ranks() == 1 or (method == "lora" and shards == 1):
        return None
    gathered = torch.bfloat16 if autocast == "bf16" else None
    plan = ShardPlan(replicate, shards, device, gathered)
    return shard(module, plan, dtype=dtype, trainable=trainable, frozen_rows=frozen_rows)


def whole_bytes(module: torch.nn.Module, *, weights: str, autocast: str, frozen_rows: Mapping[str, int]) -> int:
    """Return what a rank has whole at a time of a module whose weights are in slices, beside its own.

    Args:
        weights, autocast: "fp32" or "bf16": of what is held, and of matrix products.
        frozen_rows: As of `share`.
    """
    held = 2 if weights == "bf16" else 4
    return gathered_bytes(module, 2 if autocast == "bf16" else held, held, frozen_rows)


def check_supported(*, weights: str) -> None:
    """Say now what a training would refuse later: on PyTorch nothing.

    Args:
        weights: "fp32" or "bf16", as the job's train.weights.
    """


def freeze(module: torch.nn.Module) -> None:
    """Take a module's parameters out of training."""
    module.requires_grad_(False)
    module.eval()
