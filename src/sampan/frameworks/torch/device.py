"""Devices on PyTorch: which there are, which dtype suits them, host arrays in and out, memory."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

from sampan import host
from sampan.errors import DeviceError
from sampan.frameworks import devices

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# in a RuntimeError of a full device: of CUDA, Ascend and Metal; of cuBLAS; of the CPU on Linux, and on Windows
_NO_MEMORY = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "can't allocate memory", "not enough memory")


def available() -> list[str]:
    """Return the kinds of device this process can use, best first; "cpu" is always the last."""
    found = []
    if torch.cuda.is_available():
        found.append("cuda")
    if _npu_available():
        found.append("npu")
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


def resolve(name: str) -> str:
    """Return a device that is there: the best one for "auto", else the one named.

    Raises:
        DeviceError: The named device is not there.
    """
    found = available()
    if name == "auto":
        return found[0]
    kind = name.split(":", maxsplit=1)[0]
    if kind not in found:
        why = {
            "cuda": f"this PyTorch is {torch.__version__}"
            + (" (a build without CUDA)" if torch.version.cuda is None else " and finds no NVIDIA driver or GPU"),
            "npu": "torch_npu is not installed, or it finds no Ascend device",
            "mps": "Metal is only there on Apple machines with macOS 12.3 or later",
        }.get(kind, f"PyTorch knows no such device; here are: {', '.join(found)}")
        raise DeviceError(f"there is no `{name}` device", why, f"use device {found[0]}, or auto")
    if kind == "cuda" and ":" in name and int(name.split(":")[1]) >= torch.cuda.device_count():
        raise DeviceError(f"there is no `{name}` device", f"this machine has {torch.cuda.device_count()} GPUs")
    if kind == "npu" and ":" in name:
        count = torch.npu.device_count()  # type: ignore[attr-defined]  # torch_npu adds it
        if int(name.split(":")[1]) >= count:
            raise DeviceError(f"there is no `{name}` device", f"this machine has {count} NPUs")
    return name


def resolve_dtype(name: str, device: str) -> str:
    """Return "fp32" or "bf16": the named one, or for "auto" bf16 where the device multiplies it fast.

    Raises:
        DeviceError: fp16, which is MindSpore's alone: its training scales the loss.
    """
    if name == "fp16":
        raise DeviceError(
            "there is no fp16 on PyTorch",
            "every device that it is good for there has bf16, or does well with fp32",
            "use dtype bf16 or fp32, or MindSpore",
        )
    if name != "auto":
        return name
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.startswith("npu"):
        return "bf16"
    return "bf16" if device == "cpu" and cpu_multiplies_bf16() else "fp32"


def cpu_multiplies_bf16() -> bool:
    """Say whether this CPU has bf16 matrix instructions; without them bf16 is several times slower than fp32."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe)() for probe in probes if hasattr(torch.cpu, probe))


def dtype(name: str) -> torch.dtype:
    """Return the framework's dtype of "fp32" or "bf16"."""
    return DTYPES[name]


def on_meta() -> AbstractContextManager[Any]:
    """Return a context in which modules are built without memory."""
    return torch.device("meta")


def array(values: Any, device: str, dtype: str | None = None) -> torch.Tensor:
    """Return a host array on a device; floating values in the named dtype where one is given."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    wanted = DTYPES[dtype] if dtype is not None and tensor.is_floating_point() else tensor.dtype
    return tensor.to(device=device, dtype=wanted)


def zeros(shape: tuple[int, ...], device: str, dtype: str) -> torch.Tensor:
    """Return zeros on a device."""
    return torch.zeros(shape, device=device, dtype=DTYPES[dtype])


def to_numpy(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """Return a tensor's values on the host; bf16 becomes fp32."""
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()


def no_grad() -> AbstractContextManager[Any]:
    """Return a context that records nothing for gradients."""
    return torch.inference_mode()


def compiled(module: Any) -> Callable[..., Any]:
    """Return a module as a function that is compiled, once for each set of shapes; its arguments are tensors and tuples."""
    return torch.compile(module, dynamic=False)


def seed(value: int) -> None:
    """Seed the framework's own generator, which draws initial weights only."""
    torch.manual_seed(value)


def set_threads(count: int | None) -> int:
    """Use `count` CPU threads where given; return how many are used."""
    if count is not None:
        torch.set_num_threads(count)
    return torch.get_num_threads()


def default_threads(choice: host.ThreadChoice) -> int:
    """Use as many CPU threads as were chosen where nobody named a number; return how many are used."""
    return set_threads(choice.count)


def out_of_memory(error: Exception) -> str | None:
    """Return PyTorch's words where an error says that there is no memory left, or None."""
    return devices.no_memory(error, _NO_MEMORY) if isinstance(error, RuntimeError | MemoryError) else None


def move(module: torch.nn.Module, device: str) -> None:
    """Move a module's weights."""
    module.to(device)


def release(device: str) -> None:
    """Give memory of freed parts back to the device."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    elif device.startswith("mps"):
        torch.mps.empty_cache()
    elif device.startswith("npu"):
        torch.npu.empty_cache()  # type: ignore[attr-defined]


def synchronize(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    elif device.startswith("mps"):
        torch.mps.synchronize()
    elif device.startswith("npu"):
        torch.npu.synchronize(device)  # type: ignore[attr-defined]  # without a name it waits for the current one


def memory_bytes(device: str) -> tuple[int | None, int | None]:
    """Return a device's memory and what of it this process can still have; None is what the device does not tell.

    What PyTorch holds of freed tensors counts as free. The CPU's is the machine's, or the container's share of it.
    """
    if device.startswith("cuda"):
        free, total = torch.cuda.mem_get_info(device)
        return total, free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.startswith("npu"):
        npu: Any = torch.npu  # type: ignore[attr-defined]  # torch_npu adds it
        free, total = npu.mem_get_info(device)
        return total, free + npu.memory_reserved(device) - npu.memory_allocated(device)
    if device.startswith("mps"):  # shared with the host; this much of it is the GPU's to use
        total = torch.mps.recommended_max_memory()
        return total, max(0, total - torch.mps.current_allocated_memory())
    return host.memory_bytes()


def peak_memory_bytes(device: str) -> int | None:
    """Return the most memory that was taken so far, or None where it is not counted.

    On CUDA and Ascend it is that of tensors on the device; on a CPU that of the whole process, the program included.
    """
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    if device.startswith("npu"):
        return int(torch.npu.max_memory_allocated(device))  # type: ignore[attr-defined]
    return host.peak_memory_bytes() if device == "cpu" else None


def matmul_flops_per_s(device: str, dtype: str) -> float:
    """Return the rate at which a device multiplies square matrices of "fp32" or "bf16": the best of a short probe."""
    matrices: dict[int, torch.Tensor] = {}

    def seconds(side: int, count: int) -> float:
        matrix = matrices.setdefault(side, torch.ones((side, side), device=device, dtype=DTYPES[dtype]))
        product = torch.empty_like(matrix)
        synchronize(device)
        start = time.perf_counter()
        for _ in range(count):
            torch.mm(matrix, matrix, out=product)
        synchronize(device)
        return time.perf_counter() - start

    return devices.matmul_flops_per_s(device, seconds)


def _npu_available() -> bool:
    try:
        import torch_npu  # noqa: F401  # type: ignore[import-not-found]  # registers the device
    except ImportError:
        return False
    return bool(torch.npu.is_available())  # type: ignore[attr-defined]
