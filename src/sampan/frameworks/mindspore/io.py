"""Weights from and to safetensors files, on MindSpore.

Read one tensor at a time out of a memory-mapped file, so that a folder of 35 GB needs no second copy of itself; written
beside, synced and renamed, so that a file is whole or absent. The files are those of the other frameworks. No pickle is
ever read.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from math import prod
from pathlib import Path
from typing import Any

import mindspore as ms
import ml_dtypes
import numpy as np
from mindspore import Parameter, Tensor
from safetensors import SafetensorError
from safetensors.numpy import save_file

from sampan.errors import CheckpointError
from sampan.files import replacing
from sampan.frameworks import stored
from sampan.frameworks.mindspore.device import DTYPES
from sampan.frameworks.mindspore.nn import put_parameter

Tensors = dict[str, Tensor]
_WRITTEN = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def shapes(module: Any) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of a module's weights. The module may have no memory for them yet."""
    return {name: tuple(parameter.shape) for name, parameter in module.parameters_and_names()}


def load_weights(
    module: Any,
    files: Mapping[str, Path],
    *,
    device: str,
    dtype: str | Callable[[str], str] = "stored",
    keep_fp32: tuple[str, ...] = (),
    arrays: Mapping[str, Any] | None = None,
    prefix: str = "",
    name: str = "the model",
) -> None:
    """Give a module that was built without memory its weights.

    Nothing is read before names, shapes and stored dtypes of all tensors are found to be right.

    Args:
        files: Tensor name to the safetensors file that holds it. With `arrays`, all the module's, and no other.
        dtype: "fp32", "bf16", "fp16", or "stored" for the dtype of the file; or what returns one of these for a name.
        keep_fp32: Beginnings of names that become fp32 whatever `dtype` says.
        arrays: Tensor name to an array of the host, for those that no file has. They are asked for one at a time.
        prefix: Beginning of the module's names that the files do not have.
        name: What errors call the module.

    Raises:
        CheckpointError: A tensor is missing, unexpected, of another shape or quantized, or a file cannot be read.
    """
    grouped: dict[Path, list[str]] = defaultdict(list)
    for tensor_name, path in files.items():
        grouped[path].append(tensor_name)
    arrays = arrays or {}
    wanted_shapes = shapes(module)
    stored.check(wanted_shapes, grouped, {*files, *arrays}, name, prefix)

    def put(tensor_name: str, values: Any) -> None:
        kind = "fp32" if tensor_name.startswith(keep_fp32) else dtype if isinstance(dtype, str) else dtype(tensor_name)
        tensor = Tensor(np.ascontiguousarray(values))
        wanted = tensor.dtype if kind == "stored" else DTYPES[kind]
        put_parameter(module, tensor_name, tensor.astype(wanted), wanted)

    for path, tensor_names in grouped.items():
        with stored.opened(path, "np") as file:
            for tensor_name in tensor_names:
                put(tensor_name, file.get_tensor(tensor_name.removeprefix(prefix)))
    for tensor_name in arrays:
        made = arrays[tensor_name]
        if tuple(made.shape) != wanted_shapes[tensor_name]:
            raise ValueError(f"`{tensor_name}` is {tuple(made.shape)}, not {wanted_shapes[tensor_name]}")
        put(tensor_name, made)


def read_tensors(path: Path, device: str, names: Collection[str] | None = None) -> Tensors:
    """Return the named tensors of a safetensors file, or all of them, as stored.

    Raises:
        CheckpointError: The file is missing or cannot be read.
    """
    with stored.opened(path, "np") as file:
        return {name: Tensor(file.get_tensor(name)) for name in (file.keys() if names is None else names)}


def put_weights(module: Any, values: Mapping[str, Any]) -> None:
    """Copy values, arrays of the host or of the framework, into some of a module's weights.

    Raises:
        ValueError: The module has no such weight, or one of another shape.
    """
    weights = dict(module.parameters_and_names())
    for name, value in values.items():
        if name not in weights or tuple(weights[name].shape) != tuple(value.shape):
            raise ValueError(f"the module has no weight `{name}` of shape {tuple(value.shape)}")
        value = value if isinstance(value, Tensor) else Tensor(np.ascontiguousarray(value))
        weights[name].set_data(value.astype(weights[name].dtype))


class LazyTensor:
    """A tensor that is still in its file: its shape and dtype are known, and `read` returns it.

    `save_tensors` takes these as it takes tensors, and holds those of one file only.

    Args:
        shape, dtype: As the file's header has them; the dtype in its words, as "BF16".

    Raises:
        CheckpointError: It is stored quantized.
    """

    def __init__(self, path: Path, name: str, shape: tuple[int, ...], dtype: str):
        if dtype not in stored.FLOATING:
            raise CheckpointError(f"`{name}` in `{path}` cannot be used", f"it is quantized: {dtype}")
        self.path, self.name, self.shape = path, name, tuple(shape)
        self.kind = stored.FLOATING[dtype]
        self._change: Callable[[Tensor], Tensor] = lambda tensor: tensor

    def changed(self, change: Callable[[Tensor], Tensor], dtype: str | None = None) -> LazyTensor:
        """Return the same, with `change` applied to it when it is read.

        Args:
            change: Keeps the shape.
            dtype: What it casts to, "fp32", "bf16" or "fp16"; None where it keeps the dtype too.
        """
        after = copy.copy(self)
        after.kind = dtype_name(self, dtype)
        after._change = lambda tensor: change(self._change(tensor))
        return after

    def read(self) -> Tensor:
        """Return the tensor."""
        return self._change(read_tensors(self.path, "cpu", (self.name,))[self.name])


def num_bytes(tensor: Tensor | LazyTensor, dtype: str | None = None) -> int:
    """Return the bytes that `save_tensors` writes for a tensor."""
    return prod(tensor.shape) * np.dtype(_numpy_dtype(dtype_name(tensor, dtype))).itemsize


def dtype_name(tensor: Tensor | LazyTensor, dtype: str | None = None) -> str:
    """Return the name that config files have for the dtype `save_tensors` writes: "float32", "bfloat16" …"""
    kind = tensor.kind if isinstance(tensor, LazyTensor) else str(tensor.dtype).lower()
    return _WRITTEN[dtype] if dtype is not None and "float" in kind else kind


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor | LazyTensor], metadata: Mapping[str, str], *, dtype: str | None = None
) -> None:
    """Write tensors into a safetensors file, which is whole or absent afterwards whatever happens in between.

    Args:
        dtype: Floating tensors are written as this, "fp32", "bf16" or "fp16"; None writes each as it is.

    Raises:
        CheckpointError: The file cannot be written.
    """
    ready = {
        name: _on_host(tensor.read() if isinstance(tensor, LazyTensor) else tensor, dtype_name(tensor, dtype))
        for name, tensor in tensors.items()
    }
    try:
        with replacing(path) as beside:
            beside.touch()
            mode = beside.stat().st_mode  # what this user's files are open to; safetensors makes a private file
            save_file(ready, beside, dict(metadata))
            beside.chmod(mode)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"`{path}` cannot be written", str(error)) from error


def _numpy_dtype(kind: str) -> Any:
    return ml_dtypes.bfloat16 if kind == "bfloat16" else kind


def _on_host(tensor: Any, kind: str) -> np.ndarray[Any, Any]:
    """Return a tensor's values on the host as a dtype of that name."""
    if isinstance(tensor, np.ndarray):
        return np.ascontiguousarray(tensor.astype(_numpy_dtype(kind)))
    if isinstance(tensor, Parameter):
        tensor = tensor.value()
    if str(tensor.dtype).lower() != kind:
        tensor = tensor.astype(getattr(ms, kind))
    values = tensor.contiguous().asnumpy()
    return values.view(ml_dtypes.bfloat16) if kind == "bfloat16" else values
