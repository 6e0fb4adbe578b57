"""What MindSpore sees of this machine: its version, its devices, their memory and the dtypes they multiply."""

from __future__ import annotations

import warnings
from typing import Any

import mindspore as ms

from sampan.frameworks.mindspore import device as dev


def probe() -> dict[str, Any]:
    """Return plain values: `version`, `ascend` (whether this build can use Ascend chips here), `threads`, `devices`, and
    `notes` (what MindSpore complained about while it looked).

    A device has the keys of the other frameworks' probes: `device` (as --device takes it), `name`, `capability`,
    `memory_bytes`, `free_bytes`, `bf16` ("fast", or "no" where there are no products in it) and `dtype` (what --dtype auto
    takes there); None is what the device does not tell. The CPU's memory is the machine's and is left to the caller.
    """
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kinds = dev.available()
        devices = [facts for kind in kinds for facts in _LOOK[kind](notes)]
    notes += [str(warning.message).strip().splitlines()[0] for warning in caught]
    return {
        "version": ms.__version__,
        "ascend": "npu" in kinds,
        "threads": dev.set_threads(None),
        "devices": devices,
        "notes": list(dict.fromkeys(notes)),
    }


def _npu(notes: list[str]) -> list[dict[str, Any]]:
    name = total_bytes = None
    try:
        properties = ms.hal.get_device_properties(0, "Ascend")  # MindSpore tells of one chip, whichever is asked for
    except (RuntimeError, ValueError) as error:  # another process holds it for itself, or it failed
        notes.append(f"npu: {str(error).strip().splitlines()[0]}")
    else:
        # before a process has begun to use the chip its memory is told as 0
        name, total_bytes = properties.name or None, int(properties.total_memory) or None
    chips: Any = ms.device_context
    count = chips.ascend.device_count()
    return [_facts(f"npu:{index}", name, "fast", memory_bytes=total_bytes) for index in range(count)]


def _cpu(notes: list[str]) -> list[dict[str, Any]]:
    return [_facts("cpu", None, "no")]


_LOOK = {"npu": _npu, "cpu": _cpu}


def _facts(device: str, name: str | None, bf16: str, *, memory_bytes: int | None = None) -> dict[str, Any]:
    return {
        "device": device,
        "name": name,
        "capability": None,
        "memory_bytes": memory_bytes,
        "free_bytes": None,
        "bf16": bf16,
        "dtype": dev.resolve_dtype("auto", device),
    }
