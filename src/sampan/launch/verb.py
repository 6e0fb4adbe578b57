"""What `sampan launch` does: settle how a job lies on machines, write the script or manifest, and hand it over if asked."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampan.catalog.records import Chip
from sampan.errors import LaunchError, UsageError
from sampan.files import write_text
from sampan.job import Job, read
from sampan.launch.arguments import LaunchArguments
from sampan.launch.layout import LaunchLayout, layout_of
from sampan.launch.render import command, launch_name, render, train_words

_LEAD_S = 300  # before a queue ends a job: what a checkpoint may take
_MOUNT = "/runs"  # of a bucket or a volume, in the cloud
_RESOURCES: Mapping[str, str] = {"NVIDIA": "nvidia.com/gpu", "AMD": "amd.com/gpu", "Huawei": "huawei.com/Ascend910"}
"""By a chip's maker, what Kubernetes counts them as: the names of the makers' device plugins."""
_SKY_NAMES = Path(__file__).parent / "skypilot_names.toml"


@dataclass(frozen=True, kw_only=True)
class _Launch:
    """What every target's template is filled from."""

    options: LaunchArguments
    job: Job
    layout: LaunchLayout
    path: Path

    @property
    def name(self) -> str:
        return launch_name(self.options.job)

    @property
    def settings(self) -> tuple[str, ...]:
        """What is put over the job: the layout's settings, and before them those of the user's that it does not set."""
        keys = {setting.partition("=")[0] for setting in self.layout.settings}
        own = (one for one in self.options.overrides if one.partition("=")[0].strip() not in keys)
        return (*own, *self.layout.settings)

    def starts(self, head: str, node: str, indent: str = "", settings: tuple[str, ...] = ()) -> str:
        """Return the command that starts one machine's ranks."""
        words = train_words(self.options.job, (*self.settings, *settings))
        logs = f"{self.path.parent.as_posix()}/{self.name}-ranks"
        return command(
            self.layout, words, head=head, node=node, port=self.options.port, name=self.name, logs=logs, indent=indent
        )

    def fill(self, template: str, **more: Any) -> str:
        """Return a template's text with what all of them name."""
        layout, options = self.layout, self.options
        return render(
            template, name=self.name, job=options.job.as_posix(), title=f"{options.job.as_posix()} on {_size(layout)}",
            planned=layout.planned, num_nodes=layout.num_nodes, ranks_per_node=layout.ranks_per_node,
            num_ranks=layout.num_ranks, framework=layout.framework, port=options.port, here=str(Path.cwd()),
            programs=str(Path(sys.executable).parent), again=self._again(), **more,
        )  # fmt: skip

    def _again(self) -> str:
        plan = f" --from {self.options.plan.as_posix()} --row {self.options.row or 1}" if self.options.plan else ""
        return f"sampan launch {self.options.job.as_posix()}{plan} --to {self.options.to}"


def launch(options: LaunchArguments, tell: Callable[[str], object] = lambda words: None) -> list[Path]:
    """Write what launches a job, hand it over if asked, and return the files.

    Args:
        tell: Is called with what to do next, and with what the tool that it was handed to says.

    Raises:
        JobError: The job cannot be used.
        LaunchError: It cannot be launched so; nothing is written.
        UsageError: An option is missing, or is for another target.
    """
    _check(options)
    job = read(options.job, options.overrides)
    layout = layout_of(job, options)
    path = options.out or Path("launch") / f"{launch_name(options.job)}{_SUFFIXES[options.to]}"
    files, submit = _TARGETS[options.to](_Launch(options=options, job=job, layout=layout, path=path))
    if options.submit and submit and shutil.which(submit[0]) is None:
        raise LaunchError(
            f"`{submit[0]}` is not installed here, and --submit hands the job to it",
            (),
            "leave --submit out, or install it",
        )
    if options.submit and not submit:
        raise LaunchError(
            f"--submit runs on this machine, and the job is for {layout.num_nodes} machines", (),
            "leave --submit out, and start each script on its machine",
        )  # fmt: skip
    if folders := [one for one in files if one.is_dir()]:
        raise LaunchError(f"`{folders[0]}` is a folder", (), "--out names a file")
    there = [one for one in files if one.exists()]
    if there and not options.force:
        raise LaunchError(f"`{there[0]}` is there already", (), "--force replaces it, --out names another file")
    _write(files)
    if not options.submit:
        tell(f"start it: {' '.join(submit) if submit else 'each script on its machine'}")
        return list(files)
    done = subprocess.run(submit, check=False)
    if done.returncode:
        raise LaunchError(
            f"`{' '.join(submit)}` ended with {done.returncode}", (), f"`{path}` is written; look at what it said"
        )
    return list(files)


def _check(options: LaunchArguments) -> None:
    only = {
        "sbatch": ("slurm",),
        "image": ("kubernetes", "volcano"),
        "volume": ("kubernetes", "volcano"),
        "bucket": ("skypilot",),
    }
    for name, targets in only.items():
        if getattr(options, name) and options.to not in targets:
            raise UsageError(f"--{name} is for --to {' and '.join(targets)}")
        if name != "sbatch" and options.to in targets and not getattr(options, name):
            raise UsageError(f"--to {options.to} needs --{name}")
    for word in options.sbatch:
        if not re.fullmatch(r"[a-z][a-z-]*(=\S+)?", word):
            raise UsageError(f"--sbatch: `{word}` is not KEY=VALUE, as in partition=gpu")


def _write(files: Mapping[Path, str]) -> None:
    for path, text in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text)
            if path.suffix == ".sh":
                path.chmod(0o755)
        except OSError as error:
            raise LaunchError(f"`{path}` cannot be written", error.strerror or str(error)) from error


def _size(layout: LaunchLayout) -> str:
    chip = layout.chip.title if layout.chip else "chip"
    machines = "1 machine" if layout.num_nodes == 1 else f"{layout.num_nodes} machines"
    return f"{machines}, {layout.ranks_per_node} x {chip} each"


def _device(launch: _Launch) -> str:
    return next(
        (s.partition("=")[2] for s in launch.layout.settings if s.startswith("place.device=")), launch.job.place.device
    )


_Files = tuple[dict[Path, str], list[str]]
"""Files to write, and the command that hands the first over; empty where nothing on this machine can."""


def _local(launch: _Launch) -> _Files:
    if launch.layout.num_nodes > 1:
        raise LaunchError(
            "--to local is one machine, and the job is for " + _size(launch.layout), (), "--to slurm, or --nodes 1"
        )
    text = launch.fill("local.sh.j2", start=launch.starts("127.0.0.1", "0"))
    return {launch.path: text}, ["bash", str(launch.path)]


def _slurm(launch: _Launch) -> _Files:
    device, ranks = _device(launch), launch.layout.ranks_per_node
    chips = {"npu": f"gres=npu:{ranks}", "cpu": None}.get(device.partition(":")[0], f"gpus-per-node={ranks}")
    limit_s = round(launch.options.hours * 3600)
    text = launch.fill(
        "slurm.sh.j2", start=launch.starts("$head", "$SLURM_NODEID", indent="    "), chips=chips,
        limit=f"{limit_s // 3600:02d}:{limit_s % 3600 // 60:02d}:{limit_s % 60:02d}",
        address=launch.options.address, lead_s=min(_LEAD_S, limit_s // 2), more=launch.options.sbatch,
        log=f"{launch.path.parent.as_posix()}/{launch.name}-%j.log",
    )  # fmt: skip
    return {launch.path: text}, ["sbatch", str(launch.path)]


def _skypilot(launch: _Launch) -> _Files:
    layout = launch.layout
    if layout.chip is None:
        raise LaunchError("skypilot is told a kind of chip, and no plan names one", (), "--from PLAN.json --row K")
    known = tomllib.loads(_SKY_NAMES.read_text(encoding="utf-8"))["names"]
    if layout.chip.name not in known:
        raise LaunchError(
            f"skypilot has no name for `{layout.chip.label}`", f"those that are known: {', '.join(known)}",
            "choose another row, or another --to",
        )  # fmt: skip
    out = f"out={_MOUNT}/{launch.name}"
    text = launch.fill(
        "skypilot.yaml.j2", start=launch.starts("$head", "$SKYPILOT_NODE_RANK", "  ", (out,)), mount=_MOUNT,
        accelerators=f"{known[layout.chip.name]}:{layout.ranks_per_node}", bucket=launch.options.bucket,
    )  # fmt: skip
    return {launch.path: text}, ["sky", "jobs", "launch", "--yes", str(launch.path)]


def _kubernetes(launch: _Launch) -> _Files:
    return _on_cluster(launch, "kubernetes.yaml.j2", f"{launch.name}-0.{launch.name}", "$JOB_COMPLETION_INDEX")


def _volcano(launch: _Launch) -> _Files:
    return _on_cluster(launch, "volcano.yaml.j2", f"{launch.name}-node-0.{launch.name}", "$VC_TASK_INDEX")


def _on_cluster(launch: _Launch, template: str, head: str, node: str) -> _Files:
    job, out = launch.options.job, launch.job.out
    for what, one in (("the job file", job), ("`out`", out), ("`data.path`", launch.job.data.path)):
        if one.is_absolute() or ".." in one.parts:
            raise LaunchError(
                f"{what}, `{one}`, is not in the volume", "paths of the job are looked for in the volume's own folder",
                "give it relative to the current directory, and copy it into the volume at the same place",
            )  # fmt: skip
    chip: Chip | None = launch.layout.chip
    vendor = chip.vendor if chip else {"npu": "Huawei"}.get(_device(launch), "NVIDIA")
    start = launch.starts(head, node, "  " + " " * 14)
    text = launch.fill(
        template, start=start, image=launch.options.image, volume=launch.options.volume, mount=_MOUNT,
        resource=_RESOURCES[vendor], lead_s=_LEAD_S,
    )  # fmt: skip
    return {launch.path: text}, ["kubectl", "create", "-f", str(launch.path)]


def _msrun(launch: _Launch) -> _Files:
    layout = launch.layout
    if layout.framework != "mindspore":
        raise LaunchError(
            f"msrun starts MindSpore, and the job is for {layout.framework}",
            (),
            "--set place.framework=mindspore, or --to local",
        )
    address = launch.options.address or "127.0.0.1"
    if layout.num_nodes > 1 and address in ("127.0.0.1", "localhost"):
        raise LaunchError("the machines have to find the first one", (), "--address HOST, of the first machine")
    files = {}
    for node in range(layout.num_nodes):
        path = launch.path.with_stem(f"{launch.path.stem}-node{node}") if layout.num_nodes > 1 else launch.path
        start = launch.starts(address, str(node))
        files[path] = launch.fill("msrun.sh.j2", start=start, node=node)
    return files, ["bash", str(launch.path)] if layout.num_nodes == 1 else []


_TARGETS: Mapping[str, Callable[[_Launch], _Files]] = {
    "local": _local,
    "slurm": _slurm,
    "skypilot": _skypilot,
    "kubernetes": _kubernetes,
    "volcano": _volcano,
    "msrun": _msrun,
}
_SUFFIXES = {name: ".sh" if name in ("local", "slurm", "msrun") else ".yaml" for name in _TARGETS}
