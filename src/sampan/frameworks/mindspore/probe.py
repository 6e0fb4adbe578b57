"""What MindSpore sees of this machine: its version, its devices, their memory and the dtypes they multiply."""

from __future__ import annotations

from typing import Any

import mindspore as ms

from sampan.frameworks.devices import Device, describe, first_line, probe_devices
from sampan.frameworks.mindspore import device as dev


def probe() -> dict[str, Any]:
    """Return plain values: `version`, `ascend` (whether this build can use Ascend chips here), `threads`, `devices`, and
    `notes` (what MindSpore complained about while it looked).

    A device is what `describe` returns. The CPU's memory is the machine's and is left to the caller.
    """
    devices, notes = probe_devices(dev.available, _LOOK)
    return {
        "version": ms.__version__,
        "ascend": "npu" in dev.available(),
        "threads": dev.set_threads(None),
        "devices": devices,
        "notes": notes,
    }


def _npu(notes: list[str]) -> list[Device]:
    name = total_bytes = None
    try:
        properties = ms.hal.get_device_properties(0, "Ascend")  # MindSpore tells of one chip, whichever is asked for
    except (RuntimeError, ValueError) as error:  # another process holds it for itself, or it failed
        notes.append(f"npu: {first_line(error)}")
    else:
        # before a process has begun to use the chip its memory is told as 0
        name, total_bytes = properties.name or None, int(properties.total_memory) or None
    chips: Any = ms.device_context
    facts = {"name": name, "memory_bytes": total_bytes, "bf16": "fast"}
    return [_describe(f"npu:{index}", **facts) for index in range(chips.ascend.device_count())]


def _cpu(notes: list[str]) -> list[Device]:
    return [_describe("cpu", bf16="no")]


_LOOK = {"npu": _npu, "cpu": _cpu}


def _describe(device: str, **facts: Any) -> Device:
    return describe(device, dev.resolve_dtype("auto", device), **facts)
