"""The options of `sampan launch`."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import ClassVar

from sampan.options import VerbArguments, argument, flag, number, option, overrides, repeated, whole

TARGETS = ("local", "slurm", "skypilot", "kubernetes", "volcano", "msrun")
DEFAULT_HOURS = 24.0
USUAL_CHIPS_PER_NODE = 8


@dataclass(frozen=True, kw_only=True)
class LaunchArguments(VerbArguments):
    """The options of `sampan launch`."""

    examples: ClassVar = (
        "sampan launch job.toml --to slurm --nodes 4",
        "sampan launch job.toml --from plan.json --row 1 --to slurm --submit",
        "sampan launch job.toml --from plan.json --to skypilot --bucket s3://my-runs --out sky.yaml",
        "sampan launch job.toml --to kubernetes --nodes 2 --image registry/sampan:1 --volume runs",
    )
    job: Path = argument("job file; `sampan init` writes one", "JOB")
    overrides: tuple[str, ...] = overrides()
    to: str = option("%(choices)s", "TARGET", default=MISSING, choices=TARGETS, group="where, and on how much")
    plan: Path | None = option(
        "a plan of this job: what `sampan plan JOB --json FILE` wrote", "PLAN", Path, name="--from"
    )
    row: int | None = option("row of the plan, by its rank; default: 1", "K", whole(1))
    nodes: int | None = option("machines; default: as many as the row needs, else 1", "N", whole(1))
    chips_per_node: int | None = option(
        f"chips of a machine; default: what its server has, else {USUAL_CHIPS_PER_NODE}; on this machine 1",
        "N",
        whole(1),
    )
    hours: float = option("time that a queue grants before it stops the job, which is then resumed", "H", number(0.05),
                          DEFAULT_HOURS)  # fmt: skip
    sbatch: tuple[str, ...] = repeated("further option of sbatch, as in partition=gpu", "KEY=VALUE", str)
    image: str | None = option(
        "container image with sampan, for kubernetes and volcano", "IMAGE", group="what it needs there"
    )
    volume: str | None = option(
        "claim of a volume that all nodes write, with job, pictures and runs; for kubernetes and volcano", "CLAIM"
    )
    bucket: str | None = option("bucket that keeps the run when a spot machine is taken away, for skypilot", "URL")
    address: str | None = option(
        "how machines reach the first one; for msrun over several, and for slurm where its own name is not reached",
        "HOST",
    )
    port: int = option("where ranks meet on the first machine", "PORT", whole(1024, 65535), 29500)
    out: Path | None = option("default: launch/NAME.sh or .yaml", "FILE", Path, group="what is done")
    force: bool = flag("replace a file that is there")
    submit: bool = flag("also hand it over: sbatch, sky, kubectl, or run it here")
