"""Bad arguments, each with the error that says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from contract import subset
from sampan import frameworks
from sampan.frameworks import device as dev
from sampan.frameworks import io, nn, ops

OTHER_DTYPE = {"torch": "fp16", "mindspore": "bf16", "tensorflow": "bf16"}  # what each does not compute in on a CPU
SETTINGS = {
    "lr": 1e-2, "beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1, "clip_norm": 1.0, "ema_decay": 0.9, "autocast": "fp32",
}  # fmt: skip
"""Of the optimizer, in the contract's steps."""


def refusals(framework: str, folder: Path) -> dict[str, tuple[str, Callable[[], Any]]]:
    """Return, by what is wrong, the name of the error that it has to be and a function that does it."""
    from sampan.frameworks import train_step  # here, because the reference has none

    left_out = subset.left_out(framework)
    other = "mindspore" if framework == "torch" else "torch"
    x = dev.array(np.ones((1, 1, 3, 4), np.float32), "cpu")
    is_open = dev.array(np.ones((1, 1, 3, 3), bool), "cpu")
    right = {"weight": np.ones((4, 6), np.float32), "bias": np.ones(4, np.float32)}

    def load(**arguments: Any) -> None:
        with dev.on_meta():
            module = nn.Linear(6, 4)
        io.load_weights(module, **{"files": {}, "device": "cpu", **arguments})

    found: dict[str, tuple[str, Callable[[], Any]]] = {
        "another framework in the same process": ("DeviceError", lambda: frameworks.use(other)),
        "an unknown device": ("DeviceError", lambda: dev.resolve("abacus")),
        "a dtype that it does not compute in": (
            "DeviceError", lambda: dev.resolve_dtype(OTHER_DTYPE[framework], "cpu")
        ),
        "causal and a mask": ("AssertionError", lambda: ops.attention(x, x, x, mask=is_open, causal=True)),
        "segments and a mask": ("AssertionError", lambda: ops.attention(x, x, x, mask=is_open, segments=(1, 2))),
        "put: an unknown weight": ("ValueError", lambda: io.put_weights(nn.Linear(6, 4), {"wait": right["weight"]})),
        "put: another shape": ("ValueError", lambda: io.put_weights(nn.Linear(6, 4), {"weight": np.ones((6, 4))})),
        "load: a tensor is missing": ("CheckpointError", lambda: load(arrays={"bias": right["bias"]})),
        "load: one too many": ("CheckpointError", lambda: load(arrays={**right, "scale": np.ones(1, np.float32)})),
        "load: an array of another shape": (
            "ValueError", lambda: load(arrays={**right, "bias": np.ones(5, np.float32)})
        ),
        "load: quantized": (
            "CheckpointError",
            lambda: load(files={"weight": folder / "quantized.safetensors"}, arrays={"bias": right["bias"]}),
        ),
        "load: no such file": (
            "CheckpointError", lambda: load(files=dict.fromkeys(right, folder / "absent.safetensors"))
        ),
        "an optimizer of nothing": ("ValueError", lambda: train_step.TrainStep(nn.Identity(), **SETTINGS)),
    }  # fmt: skip
    if "weight files" not in left_out:
        found |= {
            "load: quantized": (
                "CheckpointError",
                lambda: load(files={"weight": folder / "quantized.safetensors"}, arrays={"bias": right["bias"]}),
            ),
            "load: no such file": (
                "CheckpointError",
                lambda: load(files=dict.fromkeys(right, folder / "absent.safetensors")),
            ),
        }
    if hasattr(io, "read_tensors"):
        found |= {
            "read: no such file": ("CheckpointError", lambda: io.read_tensors(folder / "absent.safetensors", "cpu")),
            "read: half a file": ("CheckpointError", lambda: io.read_tensors(folder / "half.safetensors", "cpu")),
            "a quantized tensor in its file": (
                "CheckpointError", lambda: io.LazyTensor(folder / "quantized.safetensors", "weight", (4, 6), "I8")
            ),
            "save: the folder is a file": (
                "CheckpointError", lambda: io.save_tensors(folder / "half.safetensors" / "x.safetensors", {"x": x}, {})
            ),
        }  # fmt: skip
    if "add_low_rank" not in left_out:
        found |= {
            "an addition to no layer": ("ValueError", lambda: nn.add_low_rank(_pair(), {"2": (2, 1.0)})),
            "an addition to a table": ("ValueError", lambda: nn.add_low_rank(_pair(), {"1": (2, 1.0)})),
            "an addition twice": ("ValueError", _twice),
            "frozen rows of no parameter": (
                "ValueError", lambda: train_step.TrainStep(nn.Linear(6, 4), **SETTINGS, frozen_rows={"wait": 2})
            ),
            "the state of other parameters": ("CheckpointError", _other_state),
        }  # fmt: skip
    return found


def _pair() -> Any:
    return nn.ModuleList([nn.Linear(6, 4), nn.Embedding(5, 6)])


def _twice() -> None:
    module = _pair()
    nn.add_low_rank(module, {"0": (2, 1.0)})
    nn.add_low_rank(module, {"0": (2, 1.0)})


def _other_state() -> None:
    from sampan.frameworks import train_step

    one, other = (train_step.TrainStep(nn.Linear(6, width), **SETTINGS) for width in (4, 5))
    one.load_state(other.state())
