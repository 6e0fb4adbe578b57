"""One training step on TensorFlow: loss, gradients, clipping, AdamW and EMA, operation by operation or as one graph.

Only what the comparison of a step needs is here: weights and moments are fp32, all that is trained is reached by the loss,
and no state is taken over from a checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from sampan.bench.tensorflow import device as dev
from sampan.bench.tensorflow.nn import Embedding, Module
from sampan.frameworks.records import StepReport

Tensors = dict[str, Any]
EPS = 1e-8


class TrainStep:
    """AdamW with clipping and an exponential moving average of the weights.

    Args:
        module: Its trainable parameters are trained.
        lr, beta1, beta2, weight_decay: AdamW's. Decay acts on matrices only, and not on embedding tables.
        clip_norm: Gradients longer than this are shortened to it.
        ema_decay: s ← d·s + (1-d)·w, with d ramped up as (1 + n)/(10 + n) over the first steps n. With 0 there is no
            average, and the weights stand for it.
        autocast: "fp32".
        compiled: The whole step is one graph (`tf.function`), traced anew for every set of shapes, of numbers and tuples in
            a batch, and for every loss function.

    Raises:
        ValueError: No parameter is trained.
        DeviceError: Another `autocast` than "fp32".
    """

    def __init__(
        self,
        module: Module,
        *,
        lr: float,
        beta1: float,
        beta2: float,
        weight_decay: float,
        clip_norm: float,
        ema_decay: float,
        autocast: str = "fp32",
        compiled: bool = False,
    ):
        dev.resolve_dtype(autocast, "cpu")
        self.module, self.lr, self.weight_decay = module, lr, weight_decay
        self.clip_norm, self.ema_decay = clip_norm, ema_decay
        # the operation takes 1 - beta in fp32, which is beta's fp32 value from 1: what corrects the bias has to be of the
        # same beta, or the first steps would be off by 5e-5
        self.beta1, self.beta2 = (float(np.float32(beta)) for beta in (beta1, beta2))
        self.trained: Tensors = {name: v for name, v in module.named_parameters() if v.trainable}
        if not self.trained:
            raise ValueError("nothing in the module is trained")
        tables = token_tables(module)
        self.decaying = {name for name, v in self.trained.items() if len(v.shape) >= 2 and name not in tables}
        self.moments = [(_like(v), _like(v)) for v in self.trained.values()]
        self.ema: Tensors = {n: tf.Variable(v, trainable=False) for n, v in self.trained.items()} if ema_decay else {}
        self.num_updates = 0
        # autograph would rewrite the source of whatever is called, for the sake of loops over tensors: there are none
        compile_ = (
            (lambda function: tf.function(function, autograph=False)) if compiled else (lambda function: function)
        )
        self._step, self._loss, self._gradients_of = (
            compile_(function) for function in (self._whole_step, self._only_loss, self._backward)
        )

    def step(self, loss: Callable[..., Any], batches: Sequence[Sequence[Any]], lr: float | None = None) -> StepReport:
        """Take one step over micro-batches.

        Args:
            loss: `loss(module, *batch)` returns a scalar, or a scalar and a dict: scalars in it are averaged over the
                micro-batches, arrays are handed on of the last one.

        Raises:
            ValueError: The loss does not depend on a parameter that is trained.
        """
        total, norm, losses, means, arrays = self._step(loss, _as_tuples(batches), self._factors(lr))
        on_host = {name: dev.to_numpy(array) for name, array in arrays.items()}
        values = {name: float(mean) for name, mean in means.items()}
        if not (math.isfinite(float(norm)) and math.isfinite(float(total))):
            bad = tuple(i for i, value in enumerate(losses) if not math.isfinite(float(value)))
            bad = bad or tuple(i for i, batch in enumerate(batches) if not self._is_finite(loss, batch))
            return StepReport(float(total), float(norm), values, True, bad, on_host)
        self.num_updates += 1
        return StepReport(float(total), float(norm), values, skipped=False, arrays=on_host)

    def evaluate(self, loss: Callable[..., Any], batch: Sequence[Any]) -> float:
        """Return the loss of a batch under the weights as they are now."""
        return float(self._loss(loss, tuple(batch)))

    def gradients(self, loss: Callable[..., Any], batch: Sequence[Any]) -> dict[str, np.ndarray[Any, Any]]:
        """Return the gradient of each trained parameter on the host, unclipped; nothing is changed.

        Raises:
            ValueError: The loss does not depend on a parameter that is trained.
        """
        _, _, found = self._gradients_of(loss, tuple(batch))
        return {name: dev.to_numpy(gradient) for name, gradient in zip(self.trained, found, strict=True)}

    def state(self) -> dict[str, Tensors]:
        """Return `weights`, `ema` and `optimizer` (moments and `num_updates`) under the names of the other frameworks.

        Without an average, `ema` is the same dict as `weights`. Tensors are those in use, and change with the next step.
        """
        optimizer: Tensors = {"num_updates": tf.constant(self.num_updates, tf.int64)}
        for name, (first, second) in zip(self.trained, self.moments, strict=True):
            optimizer |= {f"{name}.exp_avg": first, f"{name}.exp_avg_sq": second}
        weights = dict(self.module.named_parameters())
        return {"weights": weights, "ema": {**weights, **self.ema} if self.ema else weights, "optimizer": optimizer}

    # --- parts of a step; the first three are what is compiled -----------------------------------------------------------

    def _whole_step(
        self, loss: Callable[..., Any], batches: Sequence[Sequence[Any]], factors: Mapping[str, Any]
    ) -> tuple[Any, Any, list[Any], Tensors, Tensors]:
        """Return mean loss, gradient's length, each micro-batch's loss, means of further scalars, and further arrays."""
        losses: list[Any] = []
        gradients: list[Any] = []
        means: Tensors = {}
        arrays: Tensors = {}
        for batch in batches:
            with tf.control_dependencies(gradients):  # in a graph too, one after another: activations of one at a time
                value, more, found = self._backward(loss, batch)
                parts = [gradient / len(batches) for gradient in found] if len(batches) > 1 else found
                gradients = [a + b for a, b in zip(gradients, parts, strict=True)] if gradients else parts
            losses.append(value)
            arrays = {name: given for name, given in more.items() if len(given.shape)}
            for name in more.keys() - arrays.keys():
                means[name] = means.get(name, 0.0) + more[name] / len(batches)
        total, norm = tf.add_n(losses) / len(losses), tf.linalg.global_norm(gradients)
        finite = tf.math.is_finite(total) & tf.math.is_finite(norm)
        tf.cond(finite, lambda: self._update(gradients, norm, factors), lambda: tf.constant(False))
        return total, norm, losses, means, arrays

    def _only_loss(self, loss: Callable[..., Any], batch: Sequence[Any]) -> Any:
        return _value_and_more(loss(self.module, *batch))[0]

    def _backward(self, loss: Callable[..., Any], batch: Sequence[Any]) -> tuple[Any, Tensors, list[Any]]:
        """Return loss, further arrays by name, and the gradients of what is trained, in its order."""
        variables = list(self.trained.values())
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            value, more = _value_and_more(loss(self.module, *batch))
        found = tape.gradient(value, variables)
        missed = [name for name, gradient in zip(self.trained, found, strict=True) if gradient is None]
        if missed:
            raise ValueError(f"`{missed[0]}` is trained, and the loss does not depend on it")
        return value, more, [_dense(*pair) for pair in zip(found, variables, strict=True)]

    def _update(self, gradients: Sequence[Any], norm: Any, factors: Mapping[str, Any]) -> Any:
        scale = tf.minimum(self.clip_norm / (norm + 1e-6), 1.0)
        for (name, weight), gradient, (first, second) in zip(
            self.trained.items(), gradients, self.moments, strict=True
        ):
            if self.weight_decay and name in self.decaying:
                weight.assign(weight * factors["keep"])
            # the powers of beta are 0, so that the operation corrects no bias: `lr` and `eps` do, in fp64 on the host
            tf.raw_ops.ResourceApplyAdam(
                var=weight.handle, m=first.handle, v=second.handle, beta1_power=0.0, beta2_power=0.0,
                lr=factors["lr"], beta1=self.beta1, beta2=self.beta2, epsilon=factors["eps"], grad=gradient * scale,
            )  # fmt: skip
        for name, kept in self.ema.items():
            kept.assign_add((self.trained[name] - kept) * factors["towards"])
        return tf.constant(True)

    def _factors(self, lr: float | None) -> Tensors:
        """Return what changes from step to step, as arrays, so that a graph is not traced anew for it.

        AdamW's step is lr/(1 - β₁ⁿ) · m / (√v/√(1 - β₂ⁿ) + ε), which is lr·c/(1 - β₁ⁿ) · m / (√v + c·ε) with
        c = √(1 - β₂ⁿ).
        """
        rate, count = self.lr if lr is None else lr, self.num_updates + 1
        correction = math.sqrt(1 - self.beta2**count)
        factors = {
            "lr": rate * correction / (1 - self.beta1**count),
            "eps": EPS * correction,
            "keep": 1 - rate * self.weight_decay,
            "towards": 1 - min(self.ema_decay, (1 + self.num_updates) / (10 + self.num_updates)),
        }
        return {name: tf.constant(factor, tf.float32) for name, factor in factors.items()}

    def _is_finite(self, loss: Callable[..., Any], batch: Sequence[Any]) -> bool:
        return math.isfinite(float(tf.linalg.global_norm(self._gradients_of(loss, tuple(batch))[2])))


def token_tables(module: Module) -> set[str]:
    """Return the names of a module's embedding tables."""
    return {
        f"{prefix}.weight" if prefix else "weight"
        for prefix, child in module.named_modules()
        if isinstance(child, Embedding)
    }


def _like(variable: Any) -> tf.Variable:
    return tf.Variable(tf.zeros(variable.shape), trainable=False)


def _dense(gradient: Any, variable: Any) -> Any:
    """Return a gradient as a whole array: that of a table comes as rows and their numbers, some more than once."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.math.unsorted_segment_sum(gradient.values, gradient.indices, variable.shape[0])
    return gradient


def _value_and_more(result: Any) -> tuple[Any, Tensors]:
    return result if isinstance(result, tuple) else (result, {})


def _as_tuples(batches: Sequence[Sequence[Any]]) -> tuple[tuple[Any, ...], ...]:
    return tuple(tuple(batch) for batch in batches)
