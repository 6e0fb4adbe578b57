"""Outputs and gradients of a case, on each framework by its own means, and on the reference by differences.

What is differentiated is one number: every output, times a random array of its shape, averaged, and these added up. Each
function returns the outputs and, by name, the gradients of inputs and weights (`weight:NAME`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.case import Case
from sampan.frameworks import device as dev
from sampan.frameworks import ops

Arrays = dict[str, NDArray[Any]]
Result = tuple[tuple[Any, ...], Arrays]
WEIGHT = "weight:"
_STEP = 1e-5  # of a difference, in float64: its square and 1e-16 over it are both far below the tolerance


def outputs(case: Case, module: Any, given: dict[str, Any]) -> tuple[Any, ...]:
    """Return what a case computes, as a tuple."""
    found = case.compute(module, given)
    return tuple(found) if isinstance(found, tuple | list) else (found,)


def total(case: Case, found: tuple[Any, ...]) -> Any:
    """Return the number that is differentiated."""
    parts = [ops.mean(one * dev.array(case.probe(index, tuple(one.shape)), "cpu")) for index, one in enumerate(found)]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole + part
    return whole


def on_device(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the inputs with arrays brought to the device."""
    return {name: dev.array(v, "cpu") if isinstance(v, np.ndarray) else v for name, v in inputs.items()}


def of_torch(case: Case, module: Any, inputs: dict[str, Any]) -> Result:
    """Differentiate by autograd."""
    import torch

    given = on_device(inputs)
    leaves = {name: given[name].requires_grad_() for name in case.differentiated(inputs)}
    leaves |= {WEIGHT + name: p for name, p in module.named_parameters()} if module is not None else {}
    found = outputs(case, module, given)
    total(case, found).backward()
    gradients = {n: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for n, leaf in leaves.items()}
    return found, {name: dev.to_numpy(gradient) for name, gradient in gradients.items()}


def of_mindspore(case: Case, module: Any, inputs: dict[str, Any]) -> Result:
    """Differentiate by value_and_grad, PyNative."""
    import mindspore as ms

    given, names = on_device(inputs), case.differentiated(inputs)
    weights = dict(module.parameters_and_names()) if module is not None else {}

    def forward(*leaves: Any) -> tuple[Any, ...]:
        found = outputs(case, module, {**given, **dict(zip(names, leaves, strict=True))})
        return total(case, found), *found

    places = tuple(range(len(names))) or None
    differentiate = ms.value_and_grad(forward, places, list(weights.values()) or None, has_aux=True)
    (_, *found), gradients = differentiate(*(given[name] for name in names))
    of_inputs, of_weights = gradients if names and weights else (gradients, gradients)
    result: Arrays = {}
    for labels, values in ((names, of_inputs), ([WEIGHT + name for name in weights], of_weights)):
        if labels:
            each = values if isinstance(values, tuple) else (values,)
            result |= {name: dev.to_numpy(value) for name, value in zip(labels, each, strict=True)}
    return tuple(found), result


def of_tensorflow(case: Case, module: Any, inputs: dict[str, Any]) -> Result:
    """Differentiate by a tape."""
    import tensorflow as tf

    given = on_device(inputs)
    leaves = {name: given[name] for name in case.differentiated(inputs)}
    leaves |= {WEIGHT + name: p for name, p in module.named_parameters()} if module is not None else {}
    with tf.GradientTape() as tape:
        tape.watch(list(leaves.values()))
        found = outputs(case, module, given)
        whole = total(case, found)
    gradients = tape.gradient(whole, leaves, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return found, {name: np.array(tf.convert_to_tensor(gradient)) for name, gradient in gradients.items()}


def of_reference(case: Case, module: Any, inputs: dict[str, Any]) -> Result:
    """Differentiate by central differences: each number of an operation, a layer or a loss; of a block, whose numbers are
    too many, each input and weight as a whole along one random direction, and the slope is returned."""
    from contract.numpy_framework.ops import holding_constants

    given = on_device(inputs)
    leaves = {name: given[name] for name in case.differentiated(inputs)}
    if module is not None:
        leaves |= {WEIGHT + name: place.values for name, place in module.named_parameters()}
    with holding_constants() as rewind:

        def value() -> float:
            rewind()
            return float(total(case, outputs(case, module, given)))

        rewind()
        found = outputs(case, module, given)
        if case.kind == "block":
            slopes = {
                name: np.asarray(_slope(leaf, case.direction(name, leaf.shape), value)) for name, leaf in leaves.items()
            }
        else:
            slopes = {name: _each(leaf, value) for name, leaf in leaves.items()}
    return found, slopes


def _each(leaf: NDArray[Any], value: Callable[[], float]) -> NDArray[Any]:
    """Return the slope along every single number of an array, which is changed in its place and put back."""
    return np.array([_slope(leaf, unit, value) for unit in _units(leaf.shape)]).reshape(leaf.shape)


def _units(shape: tuple[int, ...]) -> Iterator[NDArray[Any]]:
    for index in np.ndindex(shape):
        unit = np.zeros(shape)
        unit[index] = 1
        yield unit


def _slope(leaf: NDArray[Any], direction: NDArray[Any], value: Callable[[], float]) -> float:
    before = leaf.copy()
    ends = []
    for sign in (1, -1):
        leaf[...] = before + sign * _STEP * direction
        ends.append(value())
    leaf[...] = before
    return (ends[0] - ends[1]) / (2 * _STEP)


BY_FRAMEWORK = {
    "reference": of_reference,
    "torch": of_torch,
    "mindspore": of_mindspore,
    "tensorflow": of_tensorflow,
}
