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
import os
from typing import TYPE_CHECKING, Any

from sampan import extras
from sampan.errors import DeviceError, did_you_mean

if TYPE_CHECKING:  # type checkers see one framework; at run time the names are resolved below
    from sampan.frameworks.torch import device, io, meter, nn, ops, parallel, train_step

__all__ = [
    "NN_NAMES",
    "OPS_NAMES",
    "chosen",
    "default",
    "device",
    "device_name",
    "installed",
    "io",
    "meter",
    "nn",
    "ops",
    "parallel",
    "train_step",
    "use",
    "use_shapes",
]

FRAMEWORKS = {name: extras.install(name) for name in ("torch", "mindspore")}
"""By name: how to get it."""
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


def use(name: str, *, package: str | None = None, switch: str = "the framework {}") -> None:
    """Choose the framework of this process, before the first model module is imported.

    Args:
        package: Package of an adapter that lies outside this one.
        switch: How the caller's user names another framework, with {} in the place of its name; for what errors suggest.

    Raises:
        DeviceError: The name is unknown, the framework is not installed or cannot be imported, it is there for the
            comparison only, or another one was chosen before.
    """
    global _chosen, _package
    if package is None and name in COMPARED_ONLY:
        raise DeviceError(
            f"sampan neither trains nor generates on {name}",
            "it is there to compare a training step of generator and decoder, and has nothing else",
            f"use {switch.format(' or '.join(DEFAULTS))}; `sampan bench` compares all three",
        )
    if package is None and name not in FRAMEWORKS:
        raise DeviceError(f"`{name}` is not a framework that sampan knows", (), did_you_mean(name, FRAMEWORKS))
    if _chosen not in (None, name):
        raise DeviceError(
            f"this process runs on {_chosen} and cannot change to {name}", (), "start a new process for another one"
        )
    package = package or f"{__name__}.{name}"
    here = [f"{switch.format(other)}, which is here" for other in installed() if other != name]
    if name in extras.EXTRAS and not extras.is_installed(name):
        raise DeviceError(
            f"the framework {name} is not installed",
            f"Python finds no package `{name}`",
            " or ".join([extras.install(name), *here]),
        )
    if name in extras.EXTRAS:
        # the adapter first: it sets what the framework reads at its own import
        wanted, failed = (package, *extras.EXTRAS[name]), f"the framework {name} cannot be used"
        extras.require(name, *wanted, failed=failed, error=DeviceError, otherwise=here)
    importlib.import_module(f"{package}.ops")
    _chosen, _package = name, package


def use_shapes() -> None:
    """Let model code compute on shapes where no framework was chosen: for a process that plans and computes nothing.

    In a process that computes, the shapes stand beside its framework while a pass is counted.
    """
    global _chosen, _package
    if _chosen is None:
        _chosen, _package = "shapes", f"{__name__}.shapes"


def installed() -> list[str]:
    """Return the frameworks that are installed and train and generate, the one that is taken by default first."""
    return [name for name in DEFAULTS if extras.is_installed(name)]


def default() -> str | None:
    """Return what a process uses that chooses no framework: what SAMPAN_FRAMEWORK names, else the first that is
    installed, else None.
    """
    return os.environ.get("SAMPAN_FRAMEWORK") or next(iter(installed()), None)


def chosen() -> str:
    """Return the name of this process's framework, choosing the default if none was chosen yet.

    Raises:
        DeviceError: As `use` does, or no framework is installed.
    """
    if _chosen is None:
        name = default()
        if name is None:
            raise DeviceError(
                "no framework is installed",
                f"Python finds none of the packages {', '.join(DEFAULTS)}",
                " or ".join(FRAMEWORKS.values()),
            )
        use(name, switch="SAMPAN_FRAMEWORK={}")
    assert _chosen is not None, "use() sets the framework or raises"
    return _chosen


def device_name(device: str) -> str | None:
    """Return what a device calls itself, as its driver says it; None for a CPU, whose name is the machine's."""
    chosen()
    try:
        probe = importlib.import_module(f"{_package}.probe")
    except ModuleNotFoundError:
        return None
    names = [facts["name"] for facts in probe.probe()["devices"] if facts["device"].startswith(device)]
    return names[0] if names else None


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        chosen()
        return importlib.import_module(f"{_package}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
