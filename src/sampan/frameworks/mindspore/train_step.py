"""One training step on MindSpore: loss, gradients, clipping, AdamW, EMA, shared by ranks; and the state of a checkpoint.

The arithmetic of AdamW is PyTorch's, bias correction included (Loshchilov and Hutter 2019). MindSpore's own optimizers are
not used: see decision record 0003.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, mint, ops

from sampan.errors import DeviceError
from sampan.frameworks.mindspore import device as dev
from sampan.frameworks.mindspore import parallel
from sampan.frameworks.mindspore.flat import FlatVector, VectorKind, vectors
from sampan.frameworks.mindspore.nn import find_cell, put_parameter, token_tables
from sampan.frameworks.mindspore.passes import GradientPass, MicroBatchResult
from sampan.frameworks.optimizer import EPS, BaseTrainStep, Shape, conversion_note
from sampan.frameworks.records import MicroShare, StepReport

_FIRST_SCALE, _GROWS_EVERY, _MOST_HALVINGS = 2.0**12, 1000, 24  # of the loss in fp16
Arrays = dict[str, Any]


class TrainStep(BaseTrainStep):
    """The step on MindSpore. Ranks share it: each holds its slice of master weights, moments and average.

    All methods but `evaluate` are called by every rank, or by none. Trained weights are fp32, and become `autocast` here;
    below fp32 there are master weights beside them, and `master` has to be True. In fp16 the loss is scaled, by a power of
    two that is halved when a gradient overflows (the step is then taken again) and doubled after a thousand steps without.
    Nothing is drawn from `seed`. Compiling is done by ms.jit.
    """

    def _prepare(self, autocast: str) -> None:
        check_supported(weights="fp32" if self.master else "bf16")
        self.dtype = dev.dtype(autocast)
        trained = {name: p for name, p in self.module.parameters_and_names() if p.requires_grad}
        self._check_trained({name: str(p.dtype) for name, p in trained.items()})
        self.loss_scale, self.steps_at_scale = _FIRST_SCALE if autocast == "fp16" else 1.0, 0
        self.shapes = {name: self._trained_shape(name, p) for name, p in trained.items()}
        self.tables = token_tables(self.module)
        self._graphs: dict[Any, GradientPass] = {}
        self.vectors = self._make_vectors({})
        values = {name: self._rows(name, p) for name, p in trained.items()}
        for vector in self.vectors:
            own = vector.own(vector.joined(values))
            if self.dtype != ms.float32:
                vector.kept["master"] = own
            if self.ema_decay:
                vector.kept["average"] = own.copy()
        if self.dtype != ms.float32:
            for name, parameter in trained.items():
                put_parameter(self.module, name, parameter.value().astype(self.dtype), self.dtype)
        self.parameters: dict[str, Parameter] = {n: p for n, p in self.module.parameters_and_names() if n in trained}

    def step(
        self,
        loss: Callable[..., Any],
        batches: Sequence[Sequence[Any]],
        lr: float | None = None,
        share: MicroShare | None = None,
    ) -> StepReport:
        for _ in range(_MOST_HALVINGS):
            seen = self._passes(loss, batches)
            if self.loss_scale == 1 or not math.isfinite(seen.loss) or math.isfinite(seen.norm):
                break
            self.loss_scale, self.steps_at_scale = self.loss_scale / 2, 0
        if not (math.isfinite(seen.norm) and math.isfinite(seen.loss)):
            bad = seen.bad or self._bad_gradients(loss, batches)
            return StepReport(seen.loss, seen.norm, seen.values, True, bad, seen.arrays)
        self._update(self.lr if lr is None else lr, seen.gradients, min(1.0, self.clip_norm / (seen.norm + 1e-6)))
        self.num_updates += 1
        self._grow_scale()
        return StepReport(seen.loss, seen.norm, seen.values, skipped=False, arrays=seen.arrays)

    def evaluate(self, loss: Callable[..., Any], batch: Sequence[Any]) -> float:
        with dev.no_grad():
            result = loss(self.module, *batch)
        return float((result[0] if isinstance(result, tuple) else result).asnumpy())

    @contextmanager
    def averaged(self) -> Iterator[Any]:
        before = dict(self.parameters) if self.ema_decay else {}
        try:
            for vector in self.vectors if before else ():
                for name, average in vector.parted(parallel.whole(vector.kept["average"])).items():
                    value = self._whole(name, average, before[name].value())
                    put_parameter(self.module, name, value.astype(self.dtype), self.dtype)
            yield self.module
        finally:
            for name, parameter in before.items():
                find_cell(self.module, name)._params[name.rpartition(".")[2]] = parameter

    def averages(self) -> dict[str, Any]:
        return self.state()["ema"]

    def assign_rows(self, name: str, rows: np.ndarray[Any, Any], values: np.ndarray[Any, Any]) -> None:
        # in the master weights too
        for vector in self.vectors:
            if name in vector.shapes and "master" in vector.kept:
                parts = vector.parted(parallel.whole(vector.kept["master"]))
                table = parts[name].asnumpy().copy()
                table[rows] = values
                vector.kept["master"] = vector.own(vector.joined({**parts, name: Tensor(table)}))
        parameter = self.parameters[name]
        table = parameter.value().astype(ms.float32).asnumpy().copy()
        table[rows] = values
        ops.assign(parameter, Tensor(table).astype(parameter.dtype))

    # --- the state of a checkpoint -------------------------------------------------------------------------------------

    def state(self) -> dict[str, Arrays]:
        weights: Arrays = {name: parameter.value() for name, parameter in self._state_parameters().items()}
        ema: Arrays = {}
        optimizer: Arrays = {"num_updates": np.array(self.num_updates)}
        if self.loss_scale != 1:
            optimizer |= {
                "loss_scale": np.array(self.loss_scale),
                "steps_at_loss_scale": np.array(self.steps_at_scale),
            }
        for vector in self.vectors:
            for key, group in (("master", weights), ("average", ema)):
                if key in vector.kept:
                    parts = vector.parted(parallel.whole(vector.kept[key]))
                    group |= {n: self._whole(n, part, self.parameters[n].value()) for n, part in parts.items()}
            if vector.count:
                optimizer |= vector.moments_by_name()
                if vector.count != self.num_updates:
                    optimizer |= {f"{name}.step": np.array(vector.count) for name in vector.shapes}
        return {"weights": weights, "ema": {**weights, **ema} if ema else weights, "optimizer": optimizer}

    def _state_shapes(self) -> dict[str, Shape]:
        return {name: tuple(parameter.shape) for name, parameter in self._state_parameters().items()}

    def _trained_shapes(self) -> dict[str, Shape]:
        return self.shapes

    def _trained_dtype(self, name: str) -> str:
        return "float32"

    def _load(
        self,
        weights: Mapping[str, Any],
        averages: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        counts: Mapping[str, int],
    ) -> str | None:
        if self.loss_scale != 1 and "loss_scale" in optimizer:
            self.loss_scale = float(dev.to_numpy(optimizer["loss_scale"]))
            self.steps_at_scale = int(dev.to_numpy(optimizer["steps_at_loss_scale"]))
        for name, parameter in self._state_parameters().items():
            ops.assign(parameter, Tensor(dev.to_numpy(weights[name])).astype(parameter.dtype))
        self.vectors = self._make_vectors(counts)
        converted = {"8 bits": 0, "fp32": 0}
        for vector in self.vectors:
            names = list(vector.shapes)
            if self.dtype != ms.float32:
                vector.kept["master"] = vector.own(vector.joined(self._first_rows(weights, names)))
            if self.ema_decay:
                vector.kept["average"] = vector.own(vector.joined(self._first_rows(averages, names)))
            if vector.count:
                moments = {k: dev.to_numpy(v) for k, v in optimizer.items() if k.rpartition(".exp_avg")[0] in names}
                for kind, number in vector.load_moments(moments).items():
                    converted[kind] += number
        return conversion_note(converted)

    def _state_parameters(self) -> dict[str, Parameter]:
        """Return the parameters of the state's weights: all of the module's, or those that are trained."""
        named = self.module.parameters_and_names()
        return {name: p for name, p in named if name in self.parameters or not self.trained_only}

    # --- parts of a step -----------------------------------------------------------------------------------------------

    def _passes(self, loss: Callable[..., Any], batches: Sequence[Sequence[Any]]) -> _Seen:
        """Run every micro-batch forward and backward, and bring the ranks' results together."""
        active = [v for v in self.vectors if v.kind.starts <= self.num_updates]
        names = [name for vector in active for name in vector.shapes]
        parts = len(batches) * parallel.num_ranks()
        slices: list[Tensor | None] = [None] * len(active)
        losses, values, arrays = [], {}, {}
        for batch in batches:
            one = self._backward(loss, batch, names)
            losses.append(float(one.loss.asnumpy()))
            arrays = {name: given for name, given in one.more.items() if given.ndim}
            for name in one.more.keys() - arrays.keys():
                values[name] = values.get(name, 0.0) + float(one.more[name].asnumpy()) / parts
            for index, vector in enumerate(active):
                # each rank keeps its slice of the sum only, and a gradient goes as soon as it is in it
                own = parallel.scattered(vector.joined({n: self._rows(n, one.gradients.pop(n)) for n in vector.shapes}))
                before = slices[index]
                slices[index] = own if before is None else before + own
        found = [each / (parts * self.loss_scale) for each in slices if each is not None]
        square = sum(float(mint.sum(each * each).asnumpy()) for each in found)
        bad = [parallel.rank() * len(batches) + i for i, value in enumerate(losses) if not math.isfinite(value)]
        from_all = parallel.gathered([sum(losses), values, bad, square])
        return _Seen(
            loss=sum(own[0] for own in from_all) / parts,
            norm=math.sqrt(sum(own[3] for own in from_all)),
            values={name: sum(own[1][name] for own in from_all) for name in sorted(values)},
            bad=tuple(index for own in from_all for index in own[2]),
            arrays=parallel.from_last({name: dev.to_numpy(a) for name, a in arrays.items()}),
            gradients=dict(zip(map(id, active), found, strict=True)),
        )

    def _backward(self, loss: Callable[..., Any], batch: Sequence[Any], names: Sequence[str]) -> MicroBatchResult:
        """Return loss and gradients of one micro-batch; gradients carry the loss scale."""
        constants = tuple((i, given) for i, given in enumerate(batch) if not isinstance(given, Tensor))
        key = (loss, len(batch), constants, tuple(names))
        if key not in self._graphs:
            if not self.is_compiled:  # nothing is gained by keeping one
                self._graphs.clear()
            parameters = {name: self.parameters[name] for name in names}
            self._graphs[key] = GradientPass(self.module, parameters, loss, batch, compiled=self.is_compiled)
        return self._graphs[key](batch, self.loss_scale)

    def _update(self, lr: float, gradients: Mapping[int, Tensor], clip: float) -> None:
        beta1, beta2 = self.betas
        decay = self._average_decay()
        for vector in self.vectors:
            if id(vector) in gradients:
                vector.count += 1
                g = gradients[id(vector)] * clip
                first, second = vector.moment("exp_avg"), vector.moment("exp_avg_sq")
                first = first + (g - first) * (1 - beta1)
                second = second * beta2 + g * g * (1 - beta2)
                vector.keep_moment("exp_avg", first)
                vector.keep_moment("exp_avg_sq", second)
                root = mint.sqrt(second) / math.sqrt(1 - beta2**vector.count) + EPS
                weights = self._own_weights(vector) * (1 - lr * vector.kind.decay)
                weights = weights - (first / root) * (lr / (1 - beta1**vector.count))
                if "master" in vector.kept:
                    vector.kept["master"] = weights
                for name, part in vector.parted(parallel.whole(weights.astype(self.dtype))).items():
                    parameter = self.parameters[name]
                    ops.assign(parameter, self._whole(name, part, parameter.value()))
            else:
                weights = self._own_weights(vector)
            if self.ema_decay:
                average = vector.kept["average"]
                vector.kept["average"] = average + (weights - average) * (1 - decay)

    def _own_weights(self, vector: FlatVector) -> Tensor:
        """Return this rank's slice of fp32 weights. Working weights in fp32 are their own master."""
        if "master" in vector.kept:
            return vector.kept["master"]
        return vector.own(vector.joined({n: self._rows(n, self.parameters[n]) for n in vector.shapes}))

    def _bad_gradients(self, loss: Callable[..., Any], batches: Sequence[Sequence[Any]]) -> tuple[int, ...]:
        """Compute the micro-batches again, one at a time, and return those whose own gradient is not finite."""
        names = [n for vector in self.vectors if vector.kind.starts <= self.num_updates for n in vector.shapes]
        bad = []
        for index, batch in enumerate(batches):
            gradients = self._backward(loss, batch, names).gradients.values()
            if not all(np.isfinite(dev.to_numpy(gradient)).all() for gradient in gradients):
                bad.append(parallel.rank() * len(batches) + index)
        return tuple(index for own in parallel.gathered(bad) for index in own)

    def _grow_scale(self) -> None:
        if self.loss_scale != 1:
            self.steps_at_scale += 1
            if self.steps_at_scale == _GROWS_EVERY:
                self.loss_scale, self.steps_at_scale = self.loss_scale * 2, 0

    # --- tensors and their rows ----------------------------------------------------------------------------------------

    def _make_vectors(self, counts: Mapping[str, int]) -> list[FlatVector]:
        """Return the vectors of the trained tensors; `counts` are the updates that tensors have had."""
        decays, quantized = self._decays(self.tables), self._quantized(self.tables)
        kinds = {
            n: VectorKind(decays[n], counts.get(n, 0), self.delayed.get(n, 0), n in quantized) for n in self.shapes
        }
        return vectors(self.shapes, kinds)

    def _trained_shape(self, name: str, parameter: Parameter) -> tuple[int, ...]:
        shape: tuple[int, ...] = tuple(map(int, parameter.shape))
        return (min(self.frozen_rows[name], shape[0]), *shape[1:]) if name in self.frozen_rows else shape

    def _rows(self, name: str, tensor: Tensor) -> Tensor:
        """Return what of a tensor is trained."""
        return tensor[: self.frozen_rows[name]] if name in self.frozen_rows else tensor

    def _first_rows(self, tensors: Mapping[str, Any], names: Sequence[str]) -> dict[str, Tensor]:
        return {n: self._rows(n, t if isinstance(t := tensors[n], Tensor) else Tensor(t)) for n in names}

    def _whole(self, name: str, rows: Tensor, before: Tensor) -> Tensor:
        """Return trained rows with the frozen ones after them."""
        if name not in self.frozen_rows:
            return rows
        return mint.cat([rows, before[self.frozen_rows[name] :].astype(rows.dtype)], 0)


def freeze(module: Any) -> None:
    """Take a module's parameters out of training."""
    for _, parameter in module.parameters_and_names():
        parameter.requires_grad = False
    module.set_train(False)


@dataclass(frozen=True)
class _Seen:
    """What all micro-batches of all ranks gave; gradients are this rank's slices, by id of their vector."""

    loss: float
    norm: float
    values: dict[str, float]
    bad: tuple[int, ...]
    arrays: dict[str, np.ndarray[Any, Any]]
    gradients: dict[int, Tensor]


def share(module: Any, *, device: str, method: str, layout: tuple[int, int], autocast: str, **how: Any) -> None:
    """Share a module by slices of its weights: here ranks have them whole."""


def whole_bytes(module: Any, *, weights: str, autocast: str, frozen_rows: Any) -> int:
    """Return what a rank has whole at a time of a module whose weights are in slices: there are none."""
    return 0


def check_supported(*, weights: str) -> None:
    """Say now what a training would refuse later.

    Args:
        weights: "fp32" or "bf16", as the job's train.weights.

    Raises:
        DeviceError: bf16 weights without master weights.
    """
    if weights != "fp32":
        raise DeviceError(
            "train.weights = \"bf16\" cannot be trained on MindSpore",
            "master weights are always fp32 there, and ranks share them instead",
            "set train.weights = \"fp32\", and place.dtype = \"bf16\" for products in bf16",
        )  # fmt: skip
