"""What PyTorch sees of this machine: its build, its devices, their memory and the dtypes they multiply fast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from sampan.frameworks.devices import Device, describe, first_line, probe_devices
from sampan.frameworks.torch import device as dev


def probe() -> dict[str, Any]:
    """Return plain values: `version`, `cuda` and `rocm` (versions it was built for, or None), `cpu_kernels`, `threads`,
    `devices`, and `notes` (what PyTorch complained about while it looked).

    A device is what `describe` returns. The CPU's memory is the machine's and is left to the caller.
    """
    devices, notes = probe_devices(dev.available, _LOOK)
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "rocm": torch.version.hip,
        "cpu_kernels": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "devices": devices,
        "notes": notes,
    }


def _cuda(notes: list[str]) -> list[Device]:
    devices = []
    for index in range(torch.cuda.device_count()):
        name, properties = f"cuda:{index}", torch.cuda.get_device_properties(index)
        with torch.cuda.device(index):
            is_fast = torch.cuda.is_bf16_supported(including_emulation=False)
        devices.append(
            _describe(
                name,
                name=properties.name,
                capability=f"{properties.major}.{properties.minor}",
                memory_bytes=properties.total_memory,
                free_bytes=_free(notes, name, lambda index=index: torch.cuda.mem_get_info(index)[0]),
                bf16="fast" if is_fast else "slow",
            )
        )
    return devices


def _npu(notes: list[str]) -> list[Device]:
    npu: Any = torch.npu  # type: ignore[attr-defined]  # torch_npu adds it
    return [
        _describe(
            f"npu:{index}",
            name=npu.get_device_name(index),
            memory_bytes=npu.get_device_properties(index).total_memory,
            free_bytes=_free(notes, f"npu:{index}", lambda index=index: npu.mem_get_info(index)[0]),
            bf16="fast",
        )
        for index in range(npu.device_count())
    ]


def _mps(notes: list[str]) -> list[Device]:
    # memory is shared with the host; this much of it is the GPU's to use
    total_bytes = torch.mps.recommended_max_memory()
    free_bytes = total_bytes - torch.mps.driver_allocated_memory()
    return [_describe("mps", name="Apple GPU", memory_bytes=total_bytes, free_bytes=free_bytes)]


def _cpu(notes: list[str]) -> list[Device]:
    return [_describe("cpu", bf16="fast" if dev.cpu_multiplies_bf16() else "slow")]


_LOOK = {"cuda": _cuda, "npu": _npu, "mps": _mps, "cpu": _cpu}


def _describe(device: str, **facts: Any) -> Device:
    return describe(device, dev.resolve_dtype("auto", device), **facts)


def _free(notes: list[str], device: str, look: Callable[[], int]) -> int | None:
    try:
        return int(look())
    except RuntimeError as error:  # a device that another process holds for itself, or that failed
        notes.append(f"{device}: {first_line(error)}")
        return None
