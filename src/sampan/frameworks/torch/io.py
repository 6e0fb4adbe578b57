"""Weights from and to safetensors files, on PyTorch.

Read one tensor at a time out of a memory-mapped file, straight to its device and dtype, so that a folder of 35 GB needs
no second copy of itself; written beside, synced and renamed, so that a file is whole or absent. No pickle is ever read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sampan.errors import CheckpointError, DeviceError
from sampan.files import replacing
from sampan.frameworks.torch.device import DTYPES

Tensors = dict[str, torch.Tensor]
SHOWN = 5  # names of each kind that an error lists
_STORED = ("F64", "F32", "F16", "BF16")  # what a weight may be stored as; anything else is quantized, and needs scales


def shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of a module's weights. The module may be on the meta device."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def load_weights(
    module: torch.nn.Module,
    files: Mapping[str, Path],
    *,
    device: str,
    dtype: str = "stored",
    keep_fp32: tuple[str, ...] = (),
    name: str = "the model",
) -> None:
    """Give a module that was built on the meta device its weights.

    Nothing is read before names, shapes and stored dtypes of all tensors are found to be right.

    Args:
        files: Tensor name to the safetensors file that holds it: all the module's, and no other.
        dtype: "fp32", "bf16", or "stored" for the dtype of the file.
        keep_fp32: Beginnings of names that become fp32 whatever `dtype` says.
        name: What errors call the module.

    Raises:
        CheckpointError: A tensor is missing, unexpected, of another shape or quantized, or a file cannot be read.
        DeviceError: The weights do not fit on the device.
    """
    grouped: dict[Path, list[str]] = defaultdict(list)
    for tensor_name, path in files.items():
        grouped[path].append(tensor_name)
    _check(shapes(module), grouped, set(files), name)
    cast_to = None if dtype == "stored" else DTYPES[dtype]
    loaded: Tensors = {}
    try:
        for path, tensor_names in grouped.items():
            with _opened(path) as file:
                for tensor_name in tensor_names:
                    wanted = torch.float32 if tensor_name.startswith(keep_fp32) else cast_to
                    loaded[tensor_name] = _placed(file.get_tensor(tensor_name), device, wanted)
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
    with _opened(path) as file:
        wanted = file.keys() if names is None else names
        return {name: _placed(file.get_tensor(name), device, None) for name in wanted}


def num_bytes(tensor: torch.Tensor, dtype: str | None = None) -> int:
    """Return the bytes that `save_tensors` writes for a tensor."""
    return tensor.numel() * _written(tensor, dtype).itemsize


def dtype_name(tensor: torch.Tensor, dtype: str | None = None) -> str:
    """Return the name that config files have for the dtype `save_tensors` writes: "float32", "bfloat16" …"""
    return str(_written(tensor, dtype)).removeprefix("torch.")


def save_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], *, dtype: str | None = None
) -> None:
    """Write tensors into a safetensors file, which is whole or absent afterwards whatever happens in between.

    Args:
        dtype: Floating tensors are written as this, "fp32" or "bf16"; None writes each as it is.

    Raises:
        CheckpointError: The file cannot be written.
    """
    ready = {
        name: tensor.detach().to(device="cpu", dtype=_written(tensor, dtype)).contiguous()
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


def _written(tensor: torch.Tensor, dtype: str | None) -> torch.dtype:
    return DTYPES[dtype] if dtype is not None and tensor.is_floating_point() else tensor.dtype


def _check(
    wanted: Mapping[str, tuple[int, ...]], grouped: Mapping[Path, list[str]], found: set[str], name: str
) -> None:
    problems = [
        *_listed("missing", (f"`{n}`" for n in wanted if n not in found)),
        *_listed("not part of it", (f"`{n}`" for n in sorted(found) if n not in wanted)),
    ]
    wrong_shape, quantized = [], []
    for path, tensor_names in grouped.items():
        with _opened(path) as file:
            for tensor_name in tensor_names:
                stored = file.get_slice(tensor_name)
                shape, kind = tuple(stored.get_shape()), stored.get_dtype()
                if tensor_name in wanted and shape != wanted[tensor_name]:
                    wrong_shape.append(f"`{tensor_name}` is {shape}, the config says {wanted[tensor_name]}")
                if kind not in _STORED:
                    quantized.append(f"`{tensor_name}` is {kind}")
    problems += _listed("of another shape", wrong_shape)
    problems += _listed("quantized", quantized)
    if problems:
        raise CheckpointError(
            f"the weights of {name} are not those of its config",
            problems,
            "`sampan checkpoint inspect` lists every difference",
        )


def _listed(kind: str, names: Iterable[str]) -> list[str]:
    every = list(names)
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return [f"{len(every)} {kind}: {', '.join(every[:SHOWN])}{more}"] if every else []


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file `{path}`") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"`{path}` cannot be read", f"it is no whole safetensors file: {error}") from error
