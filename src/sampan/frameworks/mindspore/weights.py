"""A module's weights on MindSpore: given, frozen, copied, and found by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sampan.frameworks import stored
from sampan.frameworks.mindspore import io
from sampan.frameworks.mindspore.nn import Embedding


def materialize(
    module: Any,
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
    """Give a module that was built without memory its weights, and say which are trained.

    Args:
        files: Parameter name to the safetensors file that holds it.
        arrays: Parameter name to a host array, for all that no file has. They are asked for one at a time, so that a
            mapping may make them then.
        dtype: Of parameters that are not trained.
        trainable: Says of a parameter's name whether it is trained.
        trainable_dtype: Of parameters that are; the updater takes fp32.
        prefix: Beginning of names in `files` that the files themselves do not have.
        name: What errors call the module.

    Raises:
        CheckpointError: A tensor is missing, unexpected, of another shape or quantized, or a file cannot be read.
    """
    io.load_weights(
        module,
        files or {},
        device=device,
        dtype=lambda n: trainable_dtype if trainable(n) else dtype,
        arrays=arrays,
        prefix=prefix,
        name=name,
    )
    for parameter_name, parameter in module.parameters_and_names():
        parameter.requires_grad = trainable(parameter_name)


def freeze(module: Any) -> None:
    """Take a module's parameters out of training."""
    for _, parameter in module.parameters_and_names():
        parameter.requires_grad = False
    module.set_train(False)


def load_weights(module: Any, weights: Mapping[str, Any]) -> None:
    """Copy weights into a module; every name must be there and no other."""
    mine = io.shapes(module)
    stored.check_same("weights", mine, {name: tuple(value.shape) for name, value in weights.items()})
    io.put_weights(module, weights)


def token_tables(module: Any) -> set[str]:
    """Return the names of a module's embedding tables."""
    return {
        f"{name}.weight" if name else "weight" for name, cell in module.cells_and_names() if isinstance(cell, Embedding)
    }


def cell_of(module: Any, name: str) -> Any:
    """Return the cell that owns a parameter of that dotted name."""
    cell = module
    for step in name.split(".")[:-1]:
        cell = cell._cells[step]
    return cell
