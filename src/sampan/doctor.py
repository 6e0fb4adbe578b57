"""What this machine has, what a framework sees of it, whether a model folder loads, and what of it fits where.

Nothing here needs a framework to be installed: one that is absent is reported, with how to get it. An amount that
cannot be found out is None, and is never guessed.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sampan import __version__, extras, frameworks, host
from sampan.bench.backends import FRAMEWORKS as COMPARED
from sampan.bench.backends import PACKAGES
from sampan.errors import CheckpointError
from sampan.frameworks import FRAMEWORKS
from sampan.units import format_bytes, format_count

_INSTALL = {
    "torch": FRAMEWORKS["torch"],
    "torch_npu": "for Ascend: pip install torch_npu, in the version that goes with your PyTorch and CANN",
    "mindspore": FRAMEWORKS["mindspore"],
} | {name: f"for sampan bench: {command}" for name, command in COMPARED.items() if name not in FRAMEWORKS}
"""By name of the package: how to get it."""
# what a framework sees is asked in a process of its own: two in one can disturb each other, and one can die
_PROBE_PROGRAM = "import sys; from sampan.frameworks.self_check import main; main(*sys.argv[1:])"
_EXTRA_PROGRAM = "import json, sys; from sampan.extras import problem_of; print(json.dumps(problem_of(sys.argv[1])))"
_PROBED_WITHIN_S = 120
_BYTES_PER_NUMBER = {"bf16": 2, "fp32": 4}
# words of /proc/cpuinfo that say how fast matrices are multiplied, on x86-64 and Arm
_INSTRUCTIONS = (
    "sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_bf16", "avx_vnni", "amx_tile", "amx_bf16",
    "asimd", "bf16", "i8mm", "sve", "sve2", "svebf16",
)  # fmt: skip


_INDENT = " " * 11  # of what a line says, behind what it is about


def report(model: Path | None) -> dict[str, Any]:
    """Return what is here, as plain values: `sampan`, `python`, `platform`, `cpu`, `threads`, `memory`, `disk`,
    `drivers`, `frameworks`, `extras`, `advice`, and `model` (None where none was named).

    Raises:
        CheckpointError: A model was named and cannot be loaded.
    """
    load = host.CpuLoad()
    memory = dict(zip(("memory_bytes", "free_bytes"), host.memory_bytes(), strict=True))
    with ThreadPoolExecutor() as pool:
        others = [name for name in extras.EXTRAS if name not in COMPARED]
        packages, optional = (
            dict(zip(names, pool.map(probe, names), strict=True))
            for probe, names in ((_probe, _INSTALL), (_probe_extra, others))
        )
    drivers = {"nvidia": _nvidia_driver(), "ascend": _ascend_driver()}
    for facts in packages.values():
        for device in facts.get("devices", []):
            if device["device"] == "cpu":
                device |= {"name": host.cpu_name(), **memory}
    return {
        "sampan": __version__,
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "platform": platform.platform(),
        "cpu": {
            "name": host.cpu_name(),
            "cores": os.cpu_count(),
            "usable_cores": host.usable_cores(),
            **_instructions(),
        },
        "threads": _threads(model, load),
        "memory": memory,
        "disk": _disk(model if model is not None and model.exists() else Path.cwd()),
        "drivers": drivers,
        "frameworks": packages,
        "extras": optional,
        "advice": _advice(packages, drivers),
        "model": None if model is None else _model(model, packages),
    }


# ----------------------------------------------------------------------------------------------------------- frameworks


def _probe(name: str) -> dict[str, Any]:
    """Return `version` (None when it is not installed), `problem` in words or None, and what its probe says."""
    version = extras.version(name)
    if version is None:
        return {"version": None, "problem": f"not installed ({_INSTALL[name]})"}
    if name not in PACKAGES:
        return {"version": version, "problem": None}
    try:
        answer = _ask(_PROBE_PROGRAM, name, PACKAGES[name])
    except subprocess.TimeoutExpired:
        return {"version": version, "problem": f"installed, but did not answer within {_PROBED_WITHIN_S} s"}
    facts: dict[str, Any] = {"problem": None}
    for line in answer.stdout.splitlines():
        if line.startswith("{"):  # a framework may print too
            facts |= json.loads(line)
    if facts["problem"]:  # a library of it is missing, or is for another system
        return {"version": version, "problem": f"installed, but {facts['problem']}"}
    if answer.returncode:
        did = "computing with it" if "devices" in facts else "importing it"
        return {"version": version, "problem": f"installed, but {did} failed: {_last_line(answer)}"}
    return facts


def _probe_extra(name: str) -> dict[str, Any]:
    """Return the `versions` of an extra's packages (None where one is not installed) and `problem` in words or None."""
    versions = {package: extras.version(package) for package in extras.EXTRAS[name]}
    if not any(versions.values()):
        return {"versions": versions, "problem": f"not installed ({extras.install(name)})"}
    try:
        answer = _ask(_EXTRA_PROGRAM, name)
    except subprocess.TimeoutExpired:
        return {"versions": versions, "problem": f"installed, but did not answer within {_PROBED_WITHIN_S} s"}
    if answer.returncode:
        return {"versions": versions, "problem": f"installed, but importing it failed: {_last_line(answer)}"}
    problem = json.loads(answer.stdout.splitlines()[-1])
    return {"versions": versions, "problem": problem and f"installed, but {problem}"}


def _ask(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True, text=True, encoding="utf-8", errors="replace", timeout=_PROBED_WITHIN_S, check=False,
    )  # fmt: skip


def _last_line(answer: subprocess.CompletedProcess[str]) -> str:
    lines = answer.stderr.strip().splitlines()
    return lines[-1] if lines else f"its process ended with {answer.returncode}"


def _usable(packages: Mapping[str, Any]) -> list[str]:
    """Return the frameworks that are there and train and generate, the one that is taken by default first."""
    return [name for name in FRAMEWORKS if name in packages and packages[name]["problem"] is None]


def _advice(packages: Mapping[str, Any], drivers: dict[str, str | None]) -> list[str]:
    usable, advice = _usable(packages), []
    if not usable:
        return [f"install a framework: {' or '.join(FRAMEWORKS.values())}"]
    seen = {device["device"].partition(":")[0] for name in usable for device in packages[name]["devices"]}
    if drivers["nvidia"] and "cuda" not in seen:
        if "torch" not in usable:
            advice.append(f"an NVIDIA driver is here, and PyTorch would use it: {FRAMEWORKS['torch']}")
        elif not packages["torch"]["cuda"]:
            advice.append("an NVIDIA driver is here, but this PyTorch is a build without CUDA: install one with CUDA")
    if drivers["ascend"] and "npu" not in seen:
        if "torch" in usable:
            advice.append("an Ascend driver is here, but PyTorch sees no npu: install torch_npu")
        if "mindspore" in usable:
            advice.append(
                "an Ascend driver is here, but MindSpore sees no npu: install the CANN that goes with this MindSpore"
            )
    return advice + [note for facts in packages.values() for note in facts.get("notes", [])]


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


def _instructions() -> dict[str, list[str] | None]:
    for line in host.lines(Path("/proc/cpuinfo")):
        key, _, words = line.partition(":")
        if key.strip() in ("flags", "Features"):
            there = set(words.split())
            return {"instructions": [word for word in _INSTRUCTIONS if word in there]}
    return {"instructions": None}


def _threads(model: Path | None, load: host.CpuLoad) -> dict[str, Any]:
    """Return on how many CPU threads a picture of a model, or of the one that comes with sampan, would be made now."""
    from sampan.checkpoint.folder import open_folder
    from sampan.models.build import PARTS

    folder = open_folder(model or Path("nano"))
    largest = max(sum(tensor.num_elements for tensor in folder.stored(part).values()) for part in PARTS)
    choice = host.choose_threads(largest, load)
    return {"model": str(model or "nano"), "count": choice.count, "why": choice.why, "waiting": host.waiting()}


def _disk(path: Path) -> dict[str, Any]:
    usage = shutil.disk_usage(path)
    return {"path": str(path.resolve()), "disk_bytes": usage.total, "free_bytes": usage.free}


# ---------------------------------------------------------------------------------------------------------------- model


def _model(path: Path, packages: Mapping[str, Any]) -> dict[str, Any]:
    from sampan.checkpoint.folder import open_folder
    from sampan.models.build import PARTS

    usable = _usable(packages)
    if usable:
        wanted = os.environ.get("SAMPAN_FRAMEWORK")
        frameworks.use(wanted if wanted in usable else usable[0])
    folder = open_folder(path)
    folder.check()
    folder.check_written()
    parts = {}
    for part in PARTS:
        stored_here = folder.stored(part)
        if usable:  # the model itself says what should be there
            from sampan.checkpoint.expected import differences, expected_shapes

            different = differences(expected_shapes(part, folder.config), stored_here)
            if different:
                raise CheckpointError(
                    f"`{part}` in `{folder.path / PARTS[part].folder}` does not load",
                    f"{len(different.missing)} tensors are missing, {len(different.unexpected)} unexpected, "
                    f"{len(different.wrong_shape)} of another shape",
                    f"sampan checkpoint inspect {path}",
                )
        count = sum(stored.num_elements for stored in stored_here.values())
        stored_bytes = sum(stored.num_bytes or 0 for stored in stored_here.values())
        parts[part] = {
            "num_parameters": count,
            "stored_bytes": stored_bytes,
            "dtypes": sorted({stored.dtype for stored in stored_here.values()}),
            **{f"{dtype}_bytes": count * size for dtype, size in _BYTES_PER_NUMBER.items()},
        }
    return {
        "folder": str(folder.path),
        "num_parameters": sum(part["num_parameters"] for part in parts.values()),
        "stored_bytes": sum(part["stored_bytes"] for part in parts.values()),
        "parts": parts,
        "fits": [
            {"framework": name, **_fit(device, dtype, parts)}
            for name in usable
            for device in packages[name]["devices"]
            for dtype in _BYTES_PER_NUMBER
            if device.get(dtype) != "no"
        ],
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

    def say(text: str) -> None:
        # a path or a command stays in one piece
        wrapper = textwrap.TextWrapper(
            console.width, subsequent_indent=_INDENT, break_long_words=False, break_on_hyphens=False
        )
        for line in wrapper.wrap(text):
            console.print(escape(line), soft_wrap=True, highlight=False)

    cpu, memory, disk = report["cpu"], report["memory"], report["disk"]
    say(f"sampan     {report['sampan']}, Python {report['python']['version']} ({report['python']['executable']})")
    say(f"platform   {report['platform']}")
    say(f"cpu        {cpu['name'] or 'unknown'}, {cpu['usable_cores']} of {cpu['cores']} cores")
    if cpu["instructions"]:
        say(f"cpu        has {' '.join(cpu['instructions'])}")
    threads = report["threads"]
    say(f"threads    {threads['count']} for a picture of {threads['model']} on the CPU ({threads['why']})")
    say(f"threads    waiting for each other, {threads['waiting']}")
    say(f"memory     {_free_of(memory['free_bytes'], memory['memory_bytes'])}")
    say(f"disk       {_free_of(disk['free_bytes'], disk['disk_bytes'])} at {disk['path']}")
    for name, version in report["drivers"].items():
        say(f"driver     {name}: {version or 'none found'}")
    for name, facts in report["frameworks"].items():
        say(f"framework  {name} {facts['problem'] or facts['version']}{_build(name, facts)}")
    for name, facts in report["extras"].items():
        there = ", ".join(f"{package} {version}" for package, version in facts["versions"].items() if version)
        say(f"extra      {name} {facts['problem'] or there}")
    for framework, facts in report["frameworks"].items():
        for device in facts.get("devices", []):
            capability = f", capability {device['capability']}" if device["capability"] else ""
            say(
                f"device     {framework} {device['device']}: {device['name'] or 'unknown'}{capability}, "
                f"{_free_of(device['free_bytes'], device['memory_bytes'])}, bf16 {device['bf16'] or 'unknown'}, "
                f"dtype auto is {device['dtype']}"
            )
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
    table = Table("framework", "device", "dtype", "weights", "fits", "left over")
    for fit in model["fits"]:
        words = {"whole": "whole", "offload": "with --offload", "no": "no", None: "unknown"}[fit["fits"]]
        left = "-" if fit["left_bytes"] is None else format_bytes(fit["left_bytes"])
        dtype = f"{fit['dtype']} (auto)" if fit["is_default"] else fit["dtype"]
        table.add_row(fit["framework"], fit["device"], dtype, format_bytes(fit["whole_bytes"]), words, left)
    console.print(table)


def _build(name: str, facts: dict[str, Any]) -> str:
    if "devices" not in facts:
        return ""
    built = [f"{label} {facts[key]}" for key, label in (("cuda", "CUDA"), ("rocm", "ROCm")) if facts.get(key)]
    if "cuda" in facts and not built:
        built = ["no CUDA"]
    if "ascend" in facts:
        built.append("Ascend" if facts["ascend"] else "no Ascend")
    if "cpu_kernels" in facts:
        built.append(f"{facts['cpu_kernels']} kernels")
    words = [*([] if name in FRAMEWORKS else ["for sampan bench"]), *built, f"{facts['threads']} threads"]
    return f" ({', '.join(words)})"


def _free_of(free_bytes: int | None, total_bytes: int | None) -> str:
    return f"{format_bytes(free_bytes)} free of {format_bytes(total_bytes)}"
