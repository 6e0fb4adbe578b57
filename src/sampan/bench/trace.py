"""Sees every operation of a step: a framework's functions and layers are put inside ones that write their outputs to files.

Models call `ops.NAME` through the module, and layers by calling them, so that both can be exchanged from outside. What an
operation calls inside is the framework's own affair and is not recorded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sampan.bench.shapes import output_file
from sampan.frameworks import NN_NAMES, OPS_NAMES, nn, ops
from sampan.frameworks import device as dev

_NOT_WATCHED = ("float32", "int32", "checkpoint")  # dtypes; and a call of what is itself watched
_CONTAINERS = ("Module", "ModuleList")
OUTSIDE = "the loss"  # the layer of an operation that no layer called


class Recorder:
    """Watches a module from now on; the process is not used for anything else afterwards.

    Attributes:
        into: Folder that outputs are written to, one file each; None writes nothing.
        calls: Is given (operation, path of the layer, number of arrays) for each call, in order.
    """

    def __init__(self, module: Any):
        self.into: Path | None = None
        self.calls: list[tuple[str, str, int]] = []
        self._layers: list[str] = []
        self._inside = False  # of an operation
        for name in OPS_NAMES:
            if name not in _NOT_WATCHED and hasattr(ops, name):  # one that is there for the comparison has not all
                setattr(ops, name, self._operation(name, getattr(ops, name)))
        paths = {id(part): path for path, part in walk(module)}
        kinds = {type(part) for _, part in walk(module)}
        own = tuple(
            kind
            for name in NN_NAMES
            if name not in _CONTAINERS and isinstance(kind := getattr(nn, name, None), type)
        )  # fmt: skip
        calls = {kind: kind.__call__ for kind in kinds}  # all of them first: one kind may inherit another's
        for kind, call in calls.items():
            kind.__call__ = self._layer(call, paths, kind.__name__ if issubclass(kind, own) else None)

    def watched(self, loss: Callable[..., Any]) -> Callable[..., Any]:
        """Return a loss whose last call in a step is the one that is kept: a framework may compute it more than once."""

        @functools.wraps(loss)
        def begun(*arguments: Any) -> Any:
            self.calls.clear()
            return loss(*arguments)

        return begun

    def _operation(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def recorded(*arguments: Any, **named: Any) -> Any:
            return self._record(name, lambda: function(*arguments, **named))

        return recorded

    def _layer(self, call: Callable[..., Any], paths: Mapping[int, str], operation: str | None) -> Callable[..., Any]:
        """Return what is called for a layer: a framework's own counts as an operation, of the model's it is entered."""

        @functools.wraps(call)
        def entered(layer: Any, *arguments: Any, **named: Any) -> Any:
            self._layers.append(paths.get(id(layer), type(layer).__name__))
            try:
                if operation is None:
                    return call(layer, *arguments, **named)
                return self._record(operation, lambda: call(layer, *arguments, **named))
            finally:
                self._layers.pop()

        return entered

    def _record(self, name: str, call: Callable[[], Any]) -> Any:
        if self._inside:
            return call()
        self._inside = True
        try:
            result = call()
        finally:
            self._inside = False
        if self.into is not None:
            outputs = result if isinstance(result, tuple | list) else (result,)
            for place, output in enumerate(outputs):
                np.save(output_file(self.into, len(self.calls), place), dev.to_numpy(output))
            self.calls.append((name, self._layers[-1] if self._layers else OUTSIDE, len(outputs)))
        return result


def walk(module: Any, path: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Yield a module and all below it with their paths, each once. Frameworks hold them as attributes or in dicts."""
    seen = set() if seen is None else seen
    if id(module) in seen:
        return
    seen.add(id(module))
    yield path or type(module).__name__, module
    for name, value in list(vars(module).items()):
        if isinstance(value, Mapping):
            below = {str(key): part for key, part in value.items()}
        elif isinstance(value, list | tuple):
            below = {str(index): part for index, part in enumerate(value)}
        else:
            below = {name: value}
        for key, part in below.items():
            if isinstance(part, nn.Module | nn.ModuleList):
                yield from walk(part, f"{path}.{key}" if path else key, seen)
