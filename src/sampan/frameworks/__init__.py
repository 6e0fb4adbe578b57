"""The framework interface, between the mathematics and a framework: which `nn` and `ops` exist, chosen once per process.

Model code says `from sampan.frameworks import nn, ops`. The first such import fixes the framework of the process: the one
given to `use()`, else the environment variable SAMPAN_FRAMEWORK, else the first of DEFAULTS that is installed. Each
framework is one folder with the same module names:

    nn      layer classes whose parameters carry the released names
    ops     pure functions on the framework's arrays
    device  which devices there are, host arrays in and out, memory
    train_step  loss, gradients, optimizer step, EMA
    parallel  the processes that share a step
    meter   what a step costs, counted before it is run
    io      weights from and to safetensors files

`shapes` is a framework without values, in which passes are counted; it has nn, ops, device and meter, and stands beside the
one of the process.

The names every folder offers are NN_NAMES and OPS_NAMES below; a contract test holds each folder to them. An adapter that
lies elsewhere, as that of `sampan bench` for TensorFlow, is chosen by naming its package.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import TYPE_CHECKING, Any

from sampan.errors import DeviceError, did_you_mean

if TYPE_CHECKING:  # type checkers see one framework; at run time the names are resolved below
    from sampan.frameworks.torch import device, io, meter, nn, ops, parallel, train_step

__all__ = [
    "NN_NAMES",
    "OPS_NAMES",
    "chosen",
    "device",
    "io",
    "meter",
    "nn",
    "ops",
    "parallel",
    "train_step",
    "use",
    "use_shapes",
]

FRAMEWORKS = {
    "torch": "pip install 'sampan[torch]'",
    "mindspore": "pip install 'sampan[mindspore]'",
}
COMPARED_ONLY = ("tensorflow",)  # has an adapter in sampan.bench, and nothing else
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
_MODULES = ("nn", "ops", "device", "train_step", "parallel", "meter", "io")
_chosen: str | None = None
_package = ""


def use(name: str, *, package: str | None = None) -> None:
    """Choose the framework of this process, before the first model module is imported.

    Args:
        package: Package of an adapter that lies outside this one.

    Raises:
        DeviceError: The name is unknown, the framework is not installed, it is there for the comparison only, or another
            one was chosen before.
    """
    global _chosen, _package
    if package is None and name in COMPARED_ONLY:
        raise DeviceError(
            f"sampan neither trains nor generates on {name}",
            "it is there to compare a training step of generator and decoder, and has nothing else",
            "use --framework torch or mindspore; `sampan bench` compares all three",
        )
    if package is None and name not in FRAMEWORKS:
        raise DeviceError(f"`{name}` is not a framework that sampan knows", (), did_you_mean(name, FRAMEWORKS))
    if _chosen not in (None, name):
        raise DeviceError(
            f"this process runs on {_chosen} and cannot change to {name}", (), "start a new process with --framework"
        )
    package = package or f"{__name__}.{name}"
    try:
        importlib.import_module(f"{package}.ops")
    except ModuleNotFoundError as error:
        here = [other for other in DEFAULTS if other != name and importlib.util.find_spec(other)]
        raise DeviceError(
            f"the framework {name} is not installed",
            f"importing it failed: {error}",
            " or ".join([f"pip install 'sampan[{name}]'", *(f"--framework {other}, which is here" for other in here)]),
        ) from error
    _chosen, _package = name, package


def use_shapes() -> None:
    """Let model code compute on shapes where no framework was chosen: for a process that plans and computes nothing.

    In a process that computes, the shapes stand beside its framework while a pass is counted.
    """
    global _chosen, _package
    if _chosen is None:
        _chosen, _package = "shapes", f"{__name__}.shapes"


def chosen() -> str:
    """Return the name of this process's framework, choosing the default if none was chosen yet."""
    if _chosen is None:
        installed = (name for name in DEFAULTS if importlib.util.find_spec(name))
        use(os.environ.get("SAMPAN_FRAMEWORK") or next(installed, DEFAULTS[0]))
    assert _chosen is not None, "use() sets the framework or raises"
    return _chosen


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        chosen()
        return importlib.import_module(f"{_package}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
