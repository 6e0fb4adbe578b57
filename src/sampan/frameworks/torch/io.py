"""Weights from and to safetensors files, on PyTorch.

Read one tensor at a time out of a memory-mapped file, straight to its device and dtype, so that a folder of 35 GB needs
no second copy of itself; written beside, synced and renamed, so that a file is whole or absent. No pickle is ever read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from sampan.errors import DeviceError
from sampan.frameworks import weight_files
from sampan.frameworks.ranges import HostRange
from sampan.frameworks.torch.device import DTYPES
from sampan.frameworks.weight_files import dtype_name, num_bytes

__all__ = [
    "LazyTensor",
    "dtype_name",
    "host_ranges",
    "load_weights",
    "num_bytes",
    "put_weights",
    "read_lazily",
    "read_tensors",
    "rows_of",
    "save_tensors",
    "shapes",
    "whole_of",
]

Tensors = dict[str, torch.Tensor]
_STORED = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "U8": torch.uint8, "I64": torch.int64,
           "F64": torch.float64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
           "BOOL": torch.bool}  # fmt: skip
_WORDS = {dtype: word for word, dtype in _STORED.items()}


def shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of a module's weights. The module may be on the meta device."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def load_weights(
    module: torch.nn.Module,
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
    """Give a module that was built on the meta device its weights.

    Nothing is read before names, shapes and stored dtypes of all tensors are found to be right.

    Args:
        files: Tensor name to the safetensors file that holds it. With `arrays`, all the module's, and no other.
        dtype: "fp32", "bf16", or "stored" for the dtype of the file; or what returns one of these for a tensor's name.
        keep_fp32: Beginnings of names that become fp32 whatever `dtype` says.
        arrays: Tensor name to an array of the host, for those that no file has. They are asked for one at a time.
        trainable: Says of a parameter's name whether it is trained; None leaves that as it is.
        prefix: Beginning of the module's names that the files do not have.
        name: What errors call the module.

    Raises:
        CheckpointError: A tensor is missing, unexpected, of another shape or quantized, or a file cannot be read.
        DeviceError: The weights do not fit on the device.
    """
    loaded: Tensors = {}
    try:
        for tensor_name, value in weight_files.read_weights(
            shapes(module), files, arrays or {}, framework="pt", name=name, prefix=prefix
        ):
            kind = weight_files.choose_dtype(tensor_name, dtype, keep_fp32)
            tensor = value if isinstance(value, torch.Tensor) else torch.from_numpy(value)
            loaded[tensor_name] = _place(tensor, device, None if kind == "stored" else DTYPES[kind])
    except torch.OutOfMemoryError as error:
        loaded.clear()
        raise DeviceError(
            f"{name} does not fit on `{device}`",
            str(error).split(". ", maxsplit=1)[0],
            "use dtype bf16 or device cpu; `sampan generate` and `sampan eval` also have --offload",
        ) from error
    module.load_state_dict(loaded, strict=True, assign=True)
    if trainable is not None:
        for parameter_name, parameter in module.named_parameters():
            parameter.requires_grad_(trainable(parameter_name))


def read_tensors(path: Path, device: str, names: Collection[str] | None = None) -> Tensors:
    """Return the named tensors of a safetensors file, or all of them, as stored, on a device.

    Raises:
        CheckpointError: The file is missing or cannot be read.
    """
    with weight_files.open_safetensors(path, "pt") as file:
        wanted = file.keys() if names is None else names
        return {name: _place(file.get_tensor(name), device, None) for name in wanted}


@dataclass(frozen=True)
class HeldRows:
    """What a rank holds of a tensor: some of its rows, one after another, or all of it.

    Args:
        tensor: The rows held; a view of what is in use.
        shape: Of the whole tensor.
        first: Number of the first row held.
        is_writer: This rank puts these rows into a checkpoint; others may hold them too.
    """

    tensor: torch.Tensor
    shape: tuple[int, ...]
    first: int = 0
    is_writer: bool = True

    @property
    def first_value(self) -> int:
        """Place of the first value held in the flat tensor."""
        return self.first * prod(self.shape[1:])


class StoredTensor:
    """A tensor in its file, of any kind of numbers, of which some rows can be read.

    Args:
        shape: Of all of it.
        dtype: Of its numbers.
    """

    def __init__(self, path: Path, name: str, shape: tuple[int, ...], dtype: torch.dtype):
        self.path, self.name, self.shape, self.dtype = path, name, shape, dtype

    def rows(self, first: int, count: int) -> torch.Tensor:
        """Return some rows, on the CPU."""
        with weight_files.open_safetensors(self.path, "pt") as file:
            return file.get_slice(self.name)[first : first + count].clone()

    def whole(self) -> torch.Tensor:
        """Return all of it, on the CPU."""
        return read_tensors(self.path, "cpu", (self.name,))[self.name]

    def __int__(self) -> int:
        return int(self.whole())


def read_lazily(path: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a safetensors file, unread.

    Raises:
        CheckpointError: The file is missing or cannot be read.
    """
    header = weight_files.read_places(path)
    return {name: StoredTensor(path, name, place.shape, _STORED[place.dtype]) for name, place in header.items()}


def rows_of(value: torch.Tensor | StoredTensor, first: int, like: torch.Tensor) -> torch.Tensor:
    """Return as many rows of a tensor as `like` has, from the first on; all of one without rows."""
    if not like.ndim:
        return whole_of(value)
    if isinstance(value, StoredTensor):
        return value.rows(first, len(like)) if len(like) else torch.empty(like.shape, dtype=value.dtype)
    return value[first : first + len(like)]


def whole_of(value: torch.Tensor | StoredTensor) -> torch.Tensor:
    """Return all of a tensor."""
    return value.whole() if isinstance(value, StoredTensor) else value


def put_weights(module: torch.nn.Module, values: Mapping[str, Any]) -> None:
    """Copy values, arrays of the host or of the framework, into some of a module's weights.

    Raises:
        ValueError: The module has no such weight, or one of another shape.
    """
    weights = module.state_dict()
    with torch.no_grad():
        for name, value in values.items():
            if name not in weights or weights[name].shape != tuple(value.shape):
                raise ValueError(f"the module has no weight `{name}` of shape {tuple(value.shape)}")
            weights[name].copy_(torch.as_tensor(value))


class LazyTensor(weight_files.BaseLazyTensor):
    """A tensor that is still in its file."""

    def _read(self) -> torch.Tensor:
        return read_tensors(self.path, "cpu", (self.name,))[self.name]


def save_tensors(
    path: Path,
    tensors: Mapping[str, torch.Tensor | LazyTensor],
    metadata: Mapping[str, str],
    *,
    dtype: str | None = None,
) -> None:
    """Write tensors into a safetensors file, which is whole or absent afterwards whatever happens in between.

    Args:
        dtype: Floating tensors are written as this, "fp32" or "bf16"; None writes each as it is.

    Raises:
        CheckpointError: The file cannot be written.
    """
    ready = {
        name: (tensor.read() if isinstance(tensor, LazyTensor) else tensor.detach())
        .to(device="cpu", dtype=getattr(torch, dtype_name(tensor, dtype)))
        .contiguous()
        for name, tensor in tensors.items()
    }
    with weight_files.write_safetensors(path) as beside:
        save_file(ready, beside, dict(metadata))


def host_ranges(tensors: Mapping[str, torch.Tensor | tuple[HeldRows, ...]], *, copied: bool) -> list[HostRange]:
    """Return what this rank writes of tensors, on the host.

    Args:
        tensors: Whole ones, all of them this rank's, or the rows that it holds.
        copied: Make sure that nothing of it changes any more.
    """
    found = []
    for name, given in tensors.items():
        for rows in (HeldRows(given, tuple(given.shape)),) if isinstance(given, torch.Tensor) else given:
            held = rows.tensor.detach()
            content = torch.empty(0, dtype=torch.uint8)
            if rows.is_writer and held.numel():
                content = held.to("cpu", copy=copied).contiguous().view(-1).view(torch.uint8)
            word = _WORDS[held.dtype]
            found.append(HostRange(name, word, rows.shape, rows.first_value, content.numpy().data))
    return found


def _place(tensor: torch.Tensor, device: str, dtype: torch.dtype | None) -> torch.Tensor:
    moved = tensor.to(device)  # first to the device: it casts faster than the host, and less travels
    # on the CPU a copy too: weights that stay mapped would change or crash with the file below them
    return moved.to(dtype or moved.dtype, copy=moved.device.type == "cpu")
