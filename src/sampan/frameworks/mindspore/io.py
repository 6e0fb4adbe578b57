"""Weights from and to safetensors files, on MindSpore.

Read one tensor at a time out of a memory-mapped file, so that a folder of 35 GB needs no second copy of itself; written
beside, synced and renamed, so that a file is whole or absent. The files are those of the other frameworks. No pickle is
ever read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import mindspore as ms
import ml_dtypes
import numpy as np
from mindspore import Parameter, Tensor
from safetensors.numpy import save_file

from sampan.frameworks import weight_files
from sampan.frameworks.mindspore import parallel
from sampan.frameworks.mindspore.device import DTYPES
from sampan.frameworks.mindspore.nn import put_parameter
from sampan.frameworks.ranges import HostRange
from sampan.frameworks.weight_files import dtype_name, num_bytes

__all__ = [
    "LazyTensor",
    "dtype_name",
    "load_weights",
    "num_bytes",
    "put_weights",
    "read_tensors",
    "save_tensors",
    "shapes",
]

Tensors = dict[str, Tensor]


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
    trainable: Callable[[str], bool] | None = None,
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
        trainable: Says of a parameter's name whether it is trained; None leaves that as it is.
        prefix: Beginning of the module's names that the files do not have.
        name: What errors call the module.

    Raises:
        CheckpointError: A tensor is missing, unexpected, of another shape or quantized, or a file cannot be read.
    """
    for tensor_name, value in weight_files.read_weights(
        shapes(module), files, arrays or {}, framework="np", name=name, prefix=prefix
    ):
        kind = weight_files.choose_dtype(tensor_name, dtype, keep_fp32)
        tensor = Tensor(np.ascontiguousarray(value))
        wanted = tensor.dtype if kind == "stored" else DTYPES[kind]
        put_parameter(module, tensor_name, tensor.astype(wanted), wanted)
    if trainable is not None:
        for parameter_name, parameter in module.parameters_and_names():
            parameter.requires_grad = trainable(parameter_name)


def read_tensors(path: Path, device: str, names: Collection[str] | None = None) -> Tensors:
    """Return the named tensors of a safetensors file, or all of them, as stored.

    Raises:
        CheckpointError: The file is missing or cannot be read.
    """
    with weight_files.open_safetensors(path, "np") as file:
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


class LazyTensor(weight_files.BaseLazyTensor):
    """A tensor that is still in its file."""

    def _read(self) -> Tensor:
        return read_tensors(self.path, "cpu", (self.name,))[self.name]


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
    with weight_files.write_safetensors(path) as beside:
        save_file(ready, beside, dict(metadata))


_WORDS = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
          "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL"}  # fmt: skip


def host_ranges(tensors: Mapping[str, Any], *, copied: bool) -> list[HostRange]:
    """Return what this rank writes of tensors, on the host: every rank has them whole, and the first one writes them.

    Args:
        copied: Make sure that nothing of it changes any more.
    """
    found = []
    for name, tensor in tensors.items():
        values = _on_host(tensor, dtype_name(tensor))
        content = np.empty(0, np.uint8)
        if parallel.rank() == 0 and values.size:
            content = np.ascontiguousarray(values.copy() if copied else values).reshape(-1).view(np.uint8)
        word = _WORDS[str(values.dtype)]
        found.append(HostRange(name, word, tuple(values.shape), 0, content.data))
    return found


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
