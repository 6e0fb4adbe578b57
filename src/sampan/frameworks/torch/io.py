"""Weights from and to safetensors files, on PyTorch.

Read one tensor at a time out of a memory-mapped file, straight to its device and dtype, so that a folder of 35 GB needs
no second copy of itself; written beside, synced and renamed, so that a file is whole or absent. No pickle is ever read.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from sampan.errors import CheckpointError, DeviceError
from sampan.files import replacing
from sampan.frameworks import stored
from sampan.frameworks.torch.device import DTYPES

Tensors = dict[str, torch.Tensor]


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
        prefix: Beginning of the module's names that the files do not have.
        name: What errors call the module.

    Raises:
        CheckpointError: A tensor is missing, unexpected, of another shape or quantized, or a file cannot be read.
        DeviceError: The weights do not fit on the device.
    """
    grouped: dict[Path, list[str]] = defaultdict(list)
    for tensor_name, path in files.items():
        grouped[path].append(tensor_name)
    arrays = arrays or {}
    wanted_shapes = shapes(module)
    stored.check(wanted_shapes, grouped, {*files, *arrays}, name, prefix)

    def cast_to(tensor_name: str) -> torch.dtype | None:
        kind = "fp32" if tensor_name.startswith(keep_fp32) else dtype if isinstance(dtype, str) else dtype(tensor_name)
        return None if kind == "stored" else DTYPES[kind]

    loaded: Tensors = {}
    try:
        for path, tensor_names in grouped.items():
            with stored.opened(path, "pt") as file:
                for tensor_name in tensor_names:
                    found = file.get_tensor(tensor_name.removeprefix(prefix))
                    loaded[tensor_name] = _placed(found, device, cast_to(tensor_name))
        for tensor_name in arrays:
            made = torch.from_numpy(arrays[tensor_name])
            if tuple(made.shape) != wanted_shapes[tensor_name]:
                raise ValueError(f"`{tensor_name}` is {tuple(made.shape)}, not {wanted_shapes[tensor_name]}")
            loaded[tensor_name] = _placed(made, device, cast_to(tensor_name))
    except torch.OutOfMemoryError as error:
        loaded.clear()
        raise DeviceError(
            f"{name} does not fit on `{device}`",
            str(error).split(". ", maxsplit=1)[0],
            "use --offload, --dtype bf16, or --device cpu",
        ) from error
    module.load_state_dict(loaded, strict=True, assign=True)


def read_tensors(path: Path, device: str, names: Collection[str] | None = None) -> Tensors:
    """Return the named tensors of a safetensors file, or all of them, as stored, on a device.

    Raises:
        CheckpointError: The file is missing or cannot be read.
    """
    with stored.opened(path, "pt") as file:
        wanted = file.keys() if names is None else names
        return {name: _placed(file.get_tensor(name), device, None) for name in wanted}


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
        self.path, self.name = path, name
        self.like = torch.empty(shape, dtype=getattr(torch, stored.FLOATING[dtype]), device="meta")
        self._change: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor

    @property
    def shape(self) -> torch.Size:
        return self.like.shape

    def changed(self, change: Callable[[torch.Tensor], torch.Tensor], dtype: str | None = None) -> LazyTensor:
        """Return the same, with `change` applied to it when it is read.

        Args:
            change: Keeps the shape.
            dtype: What it casts to, "fp32" or "bf16"; None where it keeps the dtype too.
        """
        after = copy.copy(self)
        after.like = self.like.to(_written(self, dtype))
        after._change = lambda tensor: change(self._change(tensor))
        return after

    def read(self) -> torch.Tensor:
        """Return the tensor, on the CPU."""
        return self._change(read_tensors(self.path, "cpu", (self.name,))[self.name])


def num_bytes(tensor: torch.Tensor | LazyTensor, dtype: str | None = None) -> int:
    """Return the bytes that `save_tensors` writes for a tensor."""
    return tensor.shape.numel() * _written(tensor, dtype).itemsize


def dtype_name(tensor: torch.Tensor | LazyTensor, dtype: str | None = None) -> str:
    """Return the name that config files have for the dtype `save_tensors` writes: "float32", "bfloat16" …"""
    return str(_written(tensor, dtype)).removeprefix("torch.")


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
        .to(device="cpu", dtype=_written(tensor, dtype))
        .contiguous()
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


def _placed(tensor: torch.Tensor, device: str, dtype: torch.dtype | None) -> torch.Tensor:
    moved = tensor.to(device)  # first to the device: it casts faster than the host, and less travels
    # on the CPU a copy too: weights that stay mapped would change or crash with the file below them
    return moved.to(dtype or moved.dtype, copy=moved.device.type == "cpu")


def _written(tensor: torch.Tensor | LazyTensor, dtype: str | None) -> torch.dtype:
    like = tensor.like if isinstance(tensor, LazyTensor) else tensor
    return DTYPES[dtype] if dtype is not None and like.is_floating_point() else like.dtype
