"""The seam between the mathematics and a framework: which `nn` and `ops` exist, chosen once per process.

Model code says `from sampan.frameworks import nn, ops`. The first such import fixes the framework of the process: the one
given to `use()`, else the environment variable SAMPAN_FRAMEWORK, else the first of DEFAULTS that is installed. Each
framework is one folder with the same module names:

    nn      layer classes whose parameters carry the released names
    ops     pure functions on the framework's arrays
    device  which devices there are, host arrays in and out, memory
    update  loss, gradients, optimizer step, EMA
    parallel  the processes that share a step
    meter   what a step costs, counted before it is run
    io      weights from and to safetensors files

`shapes` is a framework without values, in which passes are counted; it has nn, ops, device and meter, and stands beside the
one of the process.

The names every folder offers are NN_NAMES and OPS_NAMES below, less what LEFT_OUT says; a contract test holds each folder
to them. A framework that leaves something out is there for the comparison only, and is refused for everything else.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import TYPE_CHECKING, Any

from sampan.errors import DeviceError, did_you_mean

if TYPE_CHECKING:  # type checkers see one framework; at run time the names are resolved below
    from sampan.frameworks.torch import device, io, meter, nn, ops, parallel, update

__all__ = [
    "LEFT_OUT",
    "NN_NAMES",
    "OPS_NAMES",
    "chosen",
    "device",
    "io",
    "meter",
    "nn",
    "ops",
    "parallel",
    "update",
    "use",
    "use_shapes",
]

FRAMEWORKS = {
    "torch": "pip install 'sampan[torch]'",
    "mindspore": "pip install 'sampan[mindspore]'",
    "tensorflow": "pip install 'sampan[tensorflow]'",
}
DEFAULTS = ("torch", "mindspore")
NN_NAMES = (
    "Module",
    "ModuleList",
    "Linear",
    "Embedding",
    "Conv2d",
    "GroupNorm",
    "Identity",
    "ones_param",
    "zeros_param",
    "linear_layers",
    "add_low_rank",
)
OPS_NAMES = (
    "float32", "int32",
    "cast", "permute", "concat", "chunk", "split", "where", "mean", "sum", "exp", "abs", "sqrt", "clip",
    "linear", "take", "argmin", "softmax", "silu", "gelu", "rms_norm", "layer_norm", "normalize",
    "attention", "cross_entropy", "upsample_nearest", "pad_right_bottom", "cache_write", "stop_gradient", "checkpoint",
)  # fmt: skip
# what a framework does not offer that is there to compare the training step of generator and decoder, and for nothing else
LEFT_OUT = {
    "tensorflow": frozenset((
        "Conv2d", "GroupNorm", "linear_layers", "add_low_rank",
        "int32", "where", "sum", "exp", "abs", "sqrt", "clip", "argmin", "softmax", "normalize", "upsample_nearest",
        "pad_right_bottom", "stop_gradient", "meter",
    )),
}  # fmt: skip
_PACKAGES = {"tensorflow": "sampan.bench.tensorflow"}  # what does not lie beside this file
_MODULES = ("nn", "ops", "device", "update", "parallel", "meter", "io")
_chosen: str | None = None


def use(name: str, *, comparing: bool = False) -> None:
    """Choose the framework of this process, before the first model module is imported.

    Args:
        comparing: Nothing but a training step of generator or decoder is asked for, so that a framework in LEFT_OUT will do.

    Raises:
        DeviceError: The name is unknown, the framework is not installed, it is there for the comparison only, or another
            one was chosen before.
    """
    global _chosen
    if name not in FRAMEWORKS:
        raise DeviceError(f"`{name}` is not a framework that sampan knows", (), did_you_mean(name, FRAMEWORKS))
    if name in LEFT_OUT and not comparing:
        raise DeviceError(
            f"sampan neither trains nor generates on {name}",
            "it is there to compare a training step of generator and decoder, and has nothing else",
            "use --framework torch or mindspore; `sampan bench` compares all three",
        )
    if _chosen not in (None, name):
        raise DeviceError(
            f"this process runs on {_chosen} and cannot change to {name}", (), "start a new process with --framework"
        )
    try:
        importlib.import_module(f"{package(name)}.ops")
    except ModuleNotFoundError as error:
        here = [other for other in DEFAULTS if other != name and importlib.util.find_spec(other)]
        raise DeviceError(
            f"the framework {name} is not installed",
            f"importing it failed: {error}",
            " or ".join([FRAMEWORKS[name], *(f"--framework {other}, which is here" for other in here)]),
        ) from error
    _chosen = name


def use_shapes() -> None:
    """Let model code compute on shapes where no framework was chosen: for a process that plans and computes nothing.

    In a process that computes, the shapes stand beside its framework while a pass is counted.
    """
    global _chosen
    if _chosen is None:
        _chosen = "shapes"


def chosen() -> str:
    """Return the name of this process's framework, choosing the default if none was chosen yet."""
    if _chosen is None:
        installed = (name for name in DEFAULTS if importlib.util.find_spec(name))
        use(os.environ.get("SAMPAN_FRAMEWORK") or next(installed, DEFAULTS[0]))
    assert _chosen is not None, "use() sets the framework or raises"
    return _chosen


def package(name: str) -> str:
    """Return the package in which a framework's modules are."""
    return _PACKAGES.get(name, f"sampan.frameworks.{name}")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{package(chosen())}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
