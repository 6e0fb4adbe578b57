"""What the training steps of the frameworks share: their arguments, what they promise, and the host's side of a checkpoint.

Loads no framework. Each framework's `train_step.TrainStep` does the arithmetic.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from math import prod
from typing import Any

from numpy.typing import NDArray

from sampan.frameworks.quantized import is_quantized
from sampan.frameworks.records import MicroShare, StepReport
from sampan.frameworks.weight_files import check_shapes, dtype_name

EPS = 1e-8  # AdamW's
MOMENTS = {"exp_avg": True, "exp_avg_sq": False}  # name, and whether it has a sign
Shape = tuple[int, ...]


class BaseTrainStep(ABC):
    """One step of training: loss, gradients, clipping, AdamW, and an exponential moving average (EMA) of the weights.

    Args:
        module: Its parameters that require gradients are trained.
        lr, beta1, beta2, weight_decay: AdamW's. Decay acts on matrices only, and not on embedding tables.
        clip_norm: Gradients longer than this are shortened to it.
        ema_decay: s ← d·s + (1-d)·w in fp32, with d ramped up as (1 + n)/(10 + n) over the first steps n. With 0 there is no
            average, and the weights stand for it.
        autocast: "fp32", "bf16" or "fp16": the dtype in which the framework computes matrix products.
        moments: "fp32", or "8bit" for those of large tensors that are not embedding tables.
        master: Trained weights are fp32. Without it they are bf16, and there is no other copy of them.
        trained_only: The state's weights are those that are trained, and no other.
        frozen_rows: Parameter name to its first row that is never changed; this row and all after it have neither moments
            nor an average.
        delayed: Parameter name to the number of updates before its training begins. Until then it has no gradient.
        seed: Key of the random numbers that round bf16 weights.
        compiled: Compile loss and gradient, once for each set of shapes.
        shared: How ranks share the module, as `parallel.share` returned it.

    Raises:
        DeviceError: The framework cannot train weights like these.
        ValueError: No parameter is trained, or weights are of another dtype than `master` says.
    """

    def __init__(
        self,
        module: Any,
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
        shared: Any = None,
    ):
        self.shared = shared
        self.module, self.lr, self.betas, self.weight_decay = module, lr, (beta1, beta2), weight_decay
        self.clip_norm, self.ema_decay, self.trained_only = clip_norm, ema_decay, trained_only
        self.frozen_rows, self.delayed = dict(frozen_rows or {}), dict(delayed or {})
        self.moments, self.master, self.seed, self.is_compiled = moments, master, seed, compiled
        self.num_updates = 0
        self._prepare(autocast)

    @abstractmethod
    def _prepare(self, autocast: str) -> None:
        """Take over the module's parameters, and make moments and average."""

    @abstractmethod
    def step(
        self,
        loss: Callable[..., Any],
        batches: Sequence[Sequence[Any]],
        lr: float | None = None,
        share: MicroShare | None = None,
    ) -> StepReport:
        """Take one step over micro-batches: those of this rank, as many as every other rank has.

        Args:
            loss: `loss(module, *batch)` returns a scalar, or a scalar and a dict: scalars in it are averaged over the
                micro-batches; arrays are returned of the last one.
            lr: Learning rate of this step; None for the one given at the beginning.
            share: Which of the step's micro-batches these are; those beyond its `count` are computed for nothing. None
                where this rank is alone, or all have the same number.
        """

    @abstractmethod
    def evaluate(self, loss: Callable[..., Any], batch: Sequence[Any]) -> float:
        """Return the loss of a batch under the weights as they are now; inside `averaged`, under the average."""

    @abstractmethod
    def averaged(self) -> AbstractContextManager[Any]:
        """Put the average into the module while the block runs, in which no step may be taken.

        The block gets a module to look at: this one, or where ranks hold slices of it, one that is whole on every rank.
        """

    @abstractmethod
    def averages(self) -> dict[str, Any]:
        """Return the averaged weights by name, whole on every rank."""

    @abstractmethod
    def assign_rows(self, name: str, rows: NDArray[Any], values: NDArray[Any]) -> None:
        """Overwrite rows of a trained table; moments and average stay."""

    @abstractmethod
    def state(self) -> dict[str, dict[str, Any]]:
        """Return what a checkpoint keeps: `weights`, `ema`, and `optimizer`: moments and numbers of updates.

        `NAME.step` stands there where a tensor had fewer updates than the whole. Without an average, `ema` is the same
        dict as `weights`. Nothing in it says how many ranks there were; where they hold slices, each
        has its own. Tensors may be those in use, which change with the next step.
        """

    def load_state(self, state: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
        """Take over what `state` returned, tensor by tensor; return in words what had to be converted.

        Where there is no `ema`, or an empty one, the weights are its beginning. The tensors may lie on the host.

        Raises:
            CheckpointError: It is the state of other parameters.
        """
        weights, optimizer = state["weights"], state["optimizer"]
        check_shapes("weights", self._state_shapes(), {name: tensor.shape for name, tensor in weights.items()})
        self.num_updates = int(optimizer["num_updates"])
        trained = self._trained_shapes()
        counts, saved = {}, {}
        for name in trained:
            moment = next(
                (optimizer[key] for key in (f"{name}.exp_avg.codes", f"{name}.exp_avg") if key in optimizer), None
            )
            if moment is not None:
                counts[name] = int(optimizer.get(f"{name}.step", optimizer["num_updates"]))
                saved[name] = moment.shape
        check_shapes("moments", {name: trained[name] for name in counts}, saved)
        now = {name: self._trained_dtype(name) for name in trained}
        converted = [name for name in trained if dtype_name(weights[name]) != now[name]]
        before = dtype_name(weights[converted[0]]) if converted else ""
        note = self._load(weights, state.get("ema") or weights, optimizer, counts)
        notes = (note,) if note else ()
        if converted:
            notes = (f"{len(converted)} weights were saved in {before} and go on in {now[converted[0]]}", *notes)
        return notes

    @abstractmethod
    def _state_shapes(self) -> Mapping[str, Shape]:
        """Return the shapes of the state's weights."""

    @abstractmethod
    def _trained_shapes(self) -> Mapping[str, Shape]:
        """Return what is trained of each parameter by its shape: all of it, or its first rows."""

    @abstractmethod
    def _trained_dtype(self, name: str) -> str:
        """Return the name of the dtype in which a trained weight is saved."""

    @abstractmethod
    def _load(
        self,
        weights: Mapping[str, Any],
        averages: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        counts: Mapping[str, int],
    ) -> str | None:
        """Take over tensors whose names and shapes are right; return in words which moments were converted."""

    def _check_trained(self, dtypes: Mapping[str, str]) -> None:
        """Check the parameters that are to be trained, given their dtypes as the framework prints them."""
        unknown = [name for name in (*self.frozen_rows, *self.delayed) if name not in dtypes]
        if not dtypes or unknown:
            raise ValueError(f"`{unknown[0]}` is not trained" if unknown else "nothing in the module is trained")
        low = [name for name, dtype in dtypes.items() if not dtype.lower().endswith("float32")]
        if self.master and low:
            raise ValueError(f"`{low[0]}` is {dtypes[low[0]]}, and is to be trained as fp32")

    def _decays(self, tables: set[str]) -> dict[str, float]:
        """Return the weight decay of each trained tensor; `tables` are the names of embedding tables."""
        shapes = self._trained_shapes()
        return {n: self.weight_decay if len(s) >= 2 and n not in tables else 0.0 for n, s in shapes.items()}

    def _quantized(self, tables: set[str]) -> set[str]:
        """Return the names of the tensors whose moments are held in 8 bits."""
        shapes = self._trained_shapes()
        return {n for n, s in shapes.items() if self.moments == "8bit" and is_quantized(prod(s), n in tables)}

    def _average_decay(self) -> float:
        """Return the decay of the average in this update."""
        return min(self.ema_decay, (1 + self.num_updates) / (10 + self.num_updates))


def conversion_note(converted: Mapping[str, int]) -> str | None:
    """Return in words how many moments go on as something else than they were saved as; None where none does.

    Args:
        converted: "8 bits" or "fp32" to the number of moments that become it.
    """
    return " and ".join(f"{count} moments go on in {kind}" for kind, count in converted.items() if count) or None
