"""What this machine has, what a framework sees of it, whether a model folder loads, and what of it fits where.

Nothing here needs a framework to be installed: one that is absent is reported, with how to get it. An amount that
cannot be found out is None, and is never guessed.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

from sampan import __version__, host
from sampan.errors import CheckpointError
from sampan.frameworks import FRAMEWORKS
from sampan.units import format_bytes, format_count

# package on the index, and how to get it; sampan runs on those that are in FRAMEWORKS too
_PACKAGES = {
    "torch": FRAMEWORKS["torch"],
    "torch_npu": "for Ascend: pip install torch_npu, in the version that goes with your PyTorch and CANN",
    "mindspore": "not needed: this version of sampan does not run on it",
    "tensorflow": "not needed: this version of sampan does not run on it",
}
_BYTES_PER_NUMBER = {"bf16": 2, "fp32": 4}
# words of /proc/cpuinfo that say how fast matrices are multiplied, on x86-64 and Arm
_INSTRUCTIONS = (
    "sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_bf16", "avx_vnni", "amx_tile", "amx_bf16",
    "asimd", "bf16", "i8mm", "sve", "sve2", "svebf16",
)  # fmt: skip


def report(model: Path | None) -> dict[str, Any]:
    """Return what was found, as plain values: `sampan`, `python`, `platform`, `cpu`, `memory`, `disk`, `drivers`,
    `frameworks`, `advice`, and `model` (None where none was named).

    Raises:
        CheckpointError: A model was named and cannot be loaded.
    """
    memory = dict(zip(("memory_bytes", "free_bytes"), host.memory_bytes(), strict=True))
    frameworks = {name: _framework(name) for name in _PACKAGES}
    drivers = {"nvidia": _nvidia_driver(), "ascend": _ascend_driver()}
    devices = []
    for facts in frameworks.values():
        for device in facts.get("devices", []):
            if device["device"] == "cpu":
                device |= {"name": cpu_name(), **memory}
            devices.append(device)
    return {
        "sampan": __version__,
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "platform": platform.platform(),
        "cpu": {"name": cpu_name(), "cores": os.cpu_count(), "usable_cores": usable_cores(), **_instructions()},
        "memory": memory,
        "disk": _disk(model if model is not None and model.exists() else Path.cwd()),
        "drivers": drivers,
        "frameworks": frameworks,
        "advice": _advice(frameworks, drivers),
        "model": None if model is None else _model(model, devices, frameworks["torch"]["problem"] is None),
    }


# ----------------------------------------------------------------------------------------------------------- frameworks


def _framework(name: str) -> dict[str, Any]:
    """Return `version` (None when it is not installed), `problem` in words or None, and what its probe says."""
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return {"version": None, "problem": f"not installed ({_PACKAGES[name]})"}
    if name not in FRAMEWORKS:
        return {"version": version, "problem": None}
    try:
        probe = importlib.import_module(f"sampan.frameworks.{name}.probe").probe
    except (ImportError, OSError) as error:  # a library of it is missing, or is for another system
        return {"version": version, "problem": f"installed, but importing it failed: {error}"}
    return {"problem": None, **probe()}


def _advice(frameworks: dict[str, Any], drivers: dict[str, str | None]) -> list[str]:
    torch = frameworks["torch"]
    advice = []
    if torch["problem"]:
        advice.append(f"install a framework: {FRAMEWORKS['torch']}")
        return advice
    seen = {device["device"].partition(":")[0] for device in torch["devices"]}
    if drivers["nvidia"] and "cuda" not in seen and not torch["cuda"]:
        advice.append("an NVIDIA driver is here, but this PyTorch is a build without CUDA: install one with CUDA")
    if drivers["ascend"] and "npu" not in seen:
        advice.append("an Ascend driver is here, but PyTorch sees no npu: install torch_npu")
    return advice + torch["notes"]


def _nvidia_driver() -> str | None:
    program = shutil.which("nvidia-smi")
    answer = host.answer([program, "--query-gpu=driver_version", "--format=csv,noheader"]) if program else None
    return answer.splitlines()[0].strip() if answer else None


def _ascend_driver() -> str | None:
    for line in host.lines(Path("/usr/local/Ascend/driver/version.info")):
        if line.lower().startswith("version="):
            return line.partition("=")[2].strip()
    return None


# -------------------------------------------------------------------------------------------------------------- machine


def cpu_name() -> str | None:
    """Return what the processor calls itself."""
    for line in host.lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        return host.answer(["sysctl", "-n", "machdep.cpu.brand_string"])
    return platform.processor() or platform.machine() or None


def usable_cores() -> int | None:
    """Return the cores this process may run on, which a container or a job scheduler can limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _instructions() -> dict[str, list[str] | None]:
    for line in host.lines(Path("/proc/cpuinfo")):
        key, _, words = line.partition(":")
        if key.strip() in ("flags", "Features"):
            there = set(words.split())
            return {"instructions": [word for word in _INSTRUCTIONS if word in there]}
    return {"instructions": None}


def _disk(path: Path) -> dict[str, Any]:
    usage = shutil.disk_usage(path)
    return {"path": str(path.resolve()), "disk_bytes": usage.total, "free_bytes": usage.free}


# ---------------------------------------------------------------------------------------------------------------- model


def _model(path: Path, devices: list[dict[str, Any]], framework_there: bool) -> dict[str, Any]:
    from sampan.checkpoint.folder import open_folder
    from sampan.models.build import PARTS

    folder = open_folder(path)
    folder.check()
    parts = {}
    for part in PARTS:
        found = folder.stored(part)
        if framework_there:  # the model itself says what should be there
            from sampan.checkpoint.expected import differences, expected_shapes

            different = differences(expected_shapes(part, folder.config), found)
            if different:
                raise CheckpointError(
                    f"`{part}` in `{folder.path / PARTS[part].folder}` does not load",
                    f"{len(different.missing)} tensors are missing, {len(different.unexpected)} unexpected, "
                    f"{len(different.wrong_shape)} of another shape",
                    f"sampan checkpoint inspect {path}",
                )
        count = sum(stored.num_elements for stored in found.values())
        stored_bytes = sum(stored.num_bytes or 0 for stored in found.values())
        parts[part] = {
            "num_parameters": count,
            "stored_bytes": stored_bytes,
            "dtypes": sorted({stored.dtype for stored in found.values()}),
            **{f"{dtype}_bytes": count * size for dtype, size in _BYTES_PER_NUMBER.items()},
        }
    return {
        "folder": str(folder.path),
        "num_parameters": sum(part["num_parameters"] for part in parts.values()),
        "stored_bytes": sum(part["stored_bytes"] for part in parts.values()),
        "parts": parts,
        "fits": [_fit(device, dtype, parts) for device in devices for dtype in _BYTES_PER_NUMBER],
    }


def _fit(device: dict[str, Any], dtype: str, parts: dict[str, Any]) -> dict[str, Any]:
    """Say whether all weights, or the largest part's, are less than what is free. A picture needs some beside them."""
    sizes = {name: part[f"{dtype}_bytes"] for name, part in parts.items()}
    whole_bytes, largest = sum(sizes.values()), max(sizes, key=lambda name: sizes[name])
    free_bytes = device["free_bytes"]
    if free_bytes is None:
        verdict = None
    elif whole_bytes < free_bytes:
        verdict = "whole"
    else:
        verdict = "offload" if sizes[largest] < free_bytes else "no"
    held_bytes = {"whole": whole_bytes, "offload": sizes[largest]}.get(verdict or "")
    return {
        "device": device["device"],
        "dtype": dtype,
        "is_default": device["dtype"] == dtype,
        "fits": verdict,
        "whole_bytes": whole_bytes,
        "largest_part": largest,
        "largest_part_bytes": sizes[largest],
        "left_bytes": None if held_bytes is None else free_bytes - held_bytes,
    }


# -------------------------------------------------------------------------------------------------------------- printed


def show(report: dict[str, Any], console: Any) -> None:
    """Print a report for people."""
    from rich.markup import escape
    from rich.table import Table

    def say(text: str) -> None:
        console.print(escape(text), soft_wrap=True, highlight=False)

    cpu, memory, disk = report["cpu"], report["memory"], report["disk"]
    say(f"sampan     {report['sampan']}, Python {report['python']['version']} ({report['python']['executable']})")
    say(f"platform   {report['platform']}")
    say(f"cpu        {cpu['name'] or 'unknown'}, {cpu['usable_cores']} of {cpu['cores']} cores")
    if cpu["instructions"]:
        say(f"           {' '.join(cpu['instructions'])}")
    say(f"memory     {_free_of(memory['free_bytes'], memory['memory_bytes'])}")
    say(f"disk       {_free_of(disk['free_bytes'], disk['disk_bytes'])} at {disk['path']}")
    for name, version in report["drivers"].items():
        say(f"driver     {name}: {version or 'none found'}")
    for name, facts in report["frameworks"].items():
        say(f"framework  {name} {facts['problem'] or facts['version']}{_build(facts)}")
    table = Table("device", "name", "capability", "memory", "free", "bf16", "dtype auto")
    for facts in report["frameworks"].values():
        for device in facts.get("devices", []):
            sizes = format_bytes(device["memory_bytes"]), format_bytes(device["free_bytes"])
            name, capability = device["name"] or "unknown", device["capability"] or "-"
            table.add_row(device["device"], name, capability, *sizes, device["bf16"] or "unknown", device["dtype"])
    if table.row_count:
        console.print(table)
    for line in report["advice"]:
        say(f"note: {line}")
    if report["model"]:
        _show_model(report["model"], console, say)


def _show_model(model: dict[str, Any], console: Any, say: Any) -> None:
    from rich.table import Table

    say(f"model      {model['folder']} loads")
    table = Table("part", "parameters", "stored", "as", "in bf16", "in fp32")
    for name, part in model["parts"].items():
        sizes = format_bytes(part["bf16_bytes"]), format_bytes(part["fp32_bytes"])
        stored = format_bytes(part["stored_bytes"]), ", ".join(part["dtypes"])
        table.add_row(name, format_count(part["num_parameters"]), *stored, *sizes)
    console.print(table)
    if not model["fits"]:
        return
    table = Table("device", "dtype", "weights", "largest part", "fits", "left for the picture")
    for fit in model["fits"]:
        words = {"whole": "whole", "offload": "with --offload", "no": "no", None: "unknown"}[fit["fits"]]
        largest = f"{fit['largest_part']}, {format_bytes(fit['largest_part_bytes'])}"
        left = "-" if fit["left_bytes"] is None else format_bytes(fit["left_bytes"])
        dtype = f"{fit['dtype']} (auto)" if fit["is_default"] else fit["dtype"]
        table.add_row(fit["device"], dtype, format_bytes(fit["whole_bytes"]), largest, words, left)
    console.print(table)


def _build(facts: dict[str, Any]) -> str:
    if "devices" not in facts:
        return ""
    built = f"CUDA {facts['cuda']}" if facts["cuda"] else f"ROCm {facts['rocm']}" if facts["rocm"] else "no CUDA"
    return f" ({built}, {facts['cpu_kernels']} kernels, {facts['threads']} threads)"


def _free_of(free_bytes: int | None, total_bytes: int | None) -> str:
    return f"{format_bytes(free_bytes)} free of {format_bytes(total_bytes)}"
