"""Safetensors files of weights, opened and checked against what a module wants. Loads no framework."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from sampan.errors import CheckpointError

_SHOWN = 5  # names of each kind that an error lists
FLOATING = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # what a weight may be stored as


@contextmanager
def opened(path: Path, framework: str) -> Iterator[Any]:
    """Open a file for reading.

    Args:
        framework: What its tensors become, in the library's words: "pt" or "np".

    Raises:
        CheckpointError: The file is missing or cannot be read.
    """
    try:
        with safe_open(path, framework=framework, device="cpu") as file:
            yield file
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file `{path}`") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"`{path}` cannot be read", f"it is no whole safetensors file: {error}") from error


def check(
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
        with opened(path, "np") as file:
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


def check_same(what: str, mine: Mapping[str, Sequence[int]], saved: Mapping[str, Sequence[int]]) -> None:
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


def _listed(kind: str, names: Iterable[str]) -> list[str]:
    every = list(names)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return [f"{len(every)} {kind}: {', '.join(every[:_SHOWN])}{more}"] if every else []
