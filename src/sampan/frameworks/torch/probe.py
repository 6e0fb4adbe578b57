"""What PyTorch sees of this machine: its build, its devices, their memory and the dtypes they multiply fast."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from sampan.frameworks.torch import device as dev


def probe() -> dict[str, Any]:
    """Return plain values: `version`, `cuda` and `rocm` (versions it was built for, or None), `cpu_kernels`, `threads`,
    `devices`, and `notes` (what PyTorch complained about while it looked).

    A device has `device` (as --device takes it), `name`, `capability`, `memory_bytes`, `free_bytes`, `bf16` ("fast"
    or "slow") and `dtype` (what --dtype auto takes there); None is what the device does not tell. The CPU's memory is
    the machine's and is left to the caller.
    """
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kinds = dev.available()
        devices = [facts for kind in kinds for facts in _LOOK[kind](notes)]
    notes += [str(warning.message).strip().splitlines()[0] for warning in caught]
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "rocm": torch.version.hip,
        "cpu_kernels": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "devices": devices,
        "notes": list(dict.fromkeys(notes)),
    }


def _cuda(notes: list[str]) -> list[dict[str, Any]]:
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        with torch.cuda.device(index):
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        facts = {"capability": f"{properties.major}.{properties.minor}", "memory_bytes": properties.total_memory}
        free_bytes = _free(notes, f"cuda:{index}", lambda index=index: torch.cuda.mem_get_info(index)[0])
        found.append(_facts(f"cuda:{index}", properties.name, fast, free_bytes=free_bytes, **facts))
    return found


def _npu(notes: list[str]) -> list[dict[str, Any]]:
    npu: Any = torch.npu  # type: ignore[attr-defined]  # torch_npu adds it
    found = []
    for index in range(npu.device_count()):
        total_bytes = npu.get_device_properties(index).total_memory
        free_bytes = _free(notes, f"npu:{index}", lambda index=index: npu.mem_get_info(index)[0])
        name = npu.get_device_name(index)
        found.append(_facts(f"npu:{index}", name, True, memory_bytes=total_bytes, free_bytes=free_bytes))
    return found


def _mps(notes: list[str]) -> list[dict[str, Any]]:
    # memory is shared with the host; this much of it is the GPU's to use
    total_bytes = torch.mps.recommended_max_memory()
    free_bytes = total_bytes - torch.mps.driver_allocated_memory()
    return [_facts("mps", "Apple GPU", None, memory_bytes=total_bytes, free_bytes=free_bytes)]


def _cpu(notes: list[str]) -> list[dict[str, Any]]:
    return [_facts("cpu", None, dev.cpu_multiplies_bf16())]


_LOOK = {"cuda": _cuda, "npu": _npu, "mps": _mps, "cpu": _cpu}


def _free(notes: list[str], device: str, look: Any) -> int | None:
    try:
        return int(look())
    except RuntimeError as error:  # a device that another process holds for itself, or that failed
        notes.append(f"{device}: {str(error).strip().splitlines()[0]}")
        return None


def _facts(
    device: str,
    name: str | None,
    fast_bf16: bool | None,
    *,
    capability: str | None = None,
    memory_bytes: int | None = None,
    free_bytes: int | None = None,
) -> dict[str, Any]:
    return {
        "device": device,
        "name": name,
        "capability": capability,
        "memory_bytes": memory_bytes,
        "free_bytes": free_bytes,
        "bf16": None if fast_bf16 is None else "fast" if fast_bf16 else "slow",
        "dtype": dev.resolve_dtype("auto", device),
    }
