"""Safetensors files of weights: opened, checked against what a module wants, read tensor by tensor, and written whole.

Loads no framework; each framework's `io` brings in its own arrays. No pickle is ever read.
"""

from __future__ import annotations

import copy
import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from sampan.errors import CheckpointError, DamagedFileError
from sampan.files import replacing
from sampan.frameworks.safetensors_header import TensorPlace, read_header

_SHOWN = 5  # names of each kind that an error lists
FLOATING = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # what a weight may be stored as
DTYPE_NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}  # a job's word to the name of the dtype


@contextmanager
def open_safetensors(path: Path, framework: str) -> Iterator[Any]:
    """Open a file for reading.

    Args:
        framework: What its tensors become, in the library's words: "pt" or "np".

    Raises:
        CheckpointError: The file is missing or cannot be read.
    """
    try:
        read_header(path)  # the library believes more of what a header says
        with safe_open(path, framework=framework, device="cpu") as file:
            yield file
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file `{path}`") from error
    except (SafetensorError, DamagedFileError, OSError) as error:
        raise CheckpointError(f"`{path}` cannot be read", f"it is no whole safetensors file: {error}") from error


def read_places(path: Path) -> dict[str, TensorPlace]:
    """Return where in a file its tensors are, by name.

    Raises:
        CheckpointError: The file is missing or cannot be read.
    """
    with open_safetensors(path, "np"):
        return read_header(path).tensors


def read_weights(
    wanted: Mapping[str, tuple[int, ...]],
    files: Mapping[str, Path],
    arrays: Mapping[str, Any],
    *,
    framework: str,
    name: str,
    prefix: str = "",
) -> Iterator[tuple[str, Any]]:
    """Yield a module's weights one at a time, by name: those of files as the library's tensors, then the host arrays.

    Nothing is read before names, shapes and stored dtypes of all tensors are found to be right.

    Args:
        wanted: The module's names and shapes.
        files: Tensor name to the safetensors file that holds it.
        arrays: Tensor name to an array of the host, for those that no file has. They are asked for one at a time.
        framework: As `open_safetensors` takes it.
        name: What errors call the module.
        prefix: Beginning of the module's names that the files do not have.

    Raises:
        CheckpointError: A tensor is missing, unexpected, of another shape or quantized; it lists some of each kind.
        ValueError: An array of the host has another shape.
    """
    grouped: dict[Path, list[str]] = defaultdict(list)
    for tensor_name, path in files.items():
        grouped[path].append(tensor_name)
    _check_headers(wanted, grouped, {*files, *arrays}, name, prefix)
    for path, tensor_names in grouped.items():
        with open_safetensors(path, framework) as file:
            for tensor_name in tensor_names:
                yield tensor_name, file.get_tensor(tensor_name.removeprefix(prefix))
    for tensor_name in arrays:
        array = arrays[tensor_name]
        if tuple(array.shape) != wanted[tensor_name]:
            raise ValueError(f"`{tensor_name}` is {tuple(array.shape)}, not {wanted[tensor_name]}")
        yield tensor_name, array


def choose_dtype(name: str, dtype: str | Callable[[str], str], keep_fp32: tuple[str, ...]) -> str:
    """Return the word for a tensor's dtype: "fp32" for names that begin as `keep_fp32` says, else what `dtype` is."""
    return "fp32" if name.startswith(keep_fp32) else dtype if isinstance(dtype, str) else dtype(name)


@contextmanager
def write_safetensors(path: Path) -> Iterator[Path]:
    """Yield the path to write a file to; it is renamed to `path` afterwards, so that the file is whole or absent.

    Raises:
        CheckpointError: The file cannot be written.
    """
    try:
        with replacing(path) as beside:
            beside.touch()
            mode = beside.stat().st_mode  # what this user's files are open to; safetensors makes a private file
            yield beside
            beside.chmod(mode)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"`{path}` cannot be written", str(error)) from error


class BaseLazyTensor(ABC):
    """A tensor that is still in its file: its shape and dtype are known, and `read` returns it.

    `save_tensors` takes these as it takes tensors, and holds those of one file only.

    Args:
        shape, dtype: As the file's header has them; the dtype in its words, as "BF16".

    Raises:
        CheckpointError: It is stored quantized.
    """

    def __init__(self, path: Path, name: str, shape: tuple[int, ...], dtype: str):
        if dtype not in FLOATING:
            raise CheckpointError(f"`{name}` in `{path}` cannot be used", f"it is quantized: {dtype}")
        self.path, self.name, self.shape, self.dtype = path, name, tuple(shape), FLOATING[dtype]
        self._change: Callable[[Any], Any] = lambda tensor: tensor

    def changed(self, change: Callable[[Any], Any], dtype: str | None = None) -> BaseLazyTensor:
        """Return the same, with `change` applied to it when it is read.

        Args:
            change: Keeps the shape.
            dtype: What it casts to, "fp32", "bf16" or "fp16"; None where it keeps the dtype too.
        """
        after = copy.copy(self)
        after.dtype = dtype_name(self, dtype)
        after._change = lambda tensor: change(self._change(tensor))
        return after

    def read(self) -> Any:
        """Return the tensor, on the CPU."""
        return self._change(self._read())

    @abstractmethod
    def _read(self) -> Any:
        """Return the tensor as it is stored."""


def num_bytes(tensor: Any, dtype: str | None = None) -> int:
    """Return the bytes that `save_tensors` writes for a tensor, or a lazy one."""
    bits = re.search(r"\d+", dtype_name(tensor, dtype))
    return prod(tensor.shape) * (int(bits[0]) // 8 if bits else 1)  # a truth value takes a byte


def dtype_name(tensor: Any, dtype: str | None = None) -> str:
    """Return the name that config files have for the dtype `save_tensors` writes: "float32", "bfloat16" …

    Args:
        tensor: An array of any framework or of NumPy, or a lazy tensor.
        dtype: "fp32", "bf16" or "fp16" to which floating tensors are converted; None for what the tensor has.
    """
    stored = str(tensor.dtype).lower().removeprefix("torch.")
    return DTYPE_NAMES[dtype] if dtype is not None and "float" in stored else stored


def check_shapes(what: str, mine: Mapping[str, Sequence[int]], saved: Mapping[str, Sequence[int]]) -> None:
    """Check that saved tensors have the names and shapes of those here.

    Args:
        what: What errors call them: "weights", "moments".
        mine, saved: Shapes by name.

    Raises:
        CheckpointError: Names the first difference, and counts the others.
    """
    differences = [
        f"`{name}` is {tuple(saved[name]) if name in saved else 'missing'} there and "
        f"{tuple(mine[name]) if name in mine else 'not part of it'} here"
        for name in sorted({*mine, *saved})
        if name not in mine or name not in saved or tuple(mine[name]) != tuple(saved[name])
    ]
    if differences:
        more = f", and {len(differences) - 1} more" if len(differences) > 1 else ""
        raise CheckpointError(f"the saved {what} are not those of what is trained", f"{differences[0]}{more}")


def _check_headers(
    wanted: Mapping[str, tuple[int, ...]],
    grouped: Mapping[Path, list[str]],
    found: set[str],
    name: str,
    prefix: str = "",
) -> None:
    """Check that tensors are those of a module, by their files' headers.

    Args:
        wanted: The module's names and shapes.
        grouped: File to the names that are taken from it.
        found: All names that there are, of files and other sources.
        name: What errors call the module.
        prefix: Beginning of the module's names that the files do not have.

    Raises:
        CheckpointError: A tensor is missing, unexpected, of another shape or quantized; it lists some of each kind.
    """
    problems = [
        *_listed("missing", (f"`{n}`" for n in wanted if n not in found)),
        *_listed("not part of it", (f"`{n}`" for n in sorted(found) if n not in wanted)),
    ]
    wrong_shape, quantized = [], []
    for path, tensor_names in grouped.items():
        with open_safetensors(path, "np") as file:
            for tensor_name in tensor_names:
                stored = file.get_slice(tensor_name.removeprefix(prefix))
                shape, kind = tuple(stored.get_shape()), stored.get_dtype()
                if tensor_name in wanted and shape != wanted[tensor_name]:
                    wrong_shape.append(f"`{tensor_name}` is {shape}, the config says {wanted[tensor_name]}")
                if kind not in FLOATING:
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
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return [f"{len(every)} {kind}: {', '.join(every[:_SHOWN])}{more}"] if every else []
