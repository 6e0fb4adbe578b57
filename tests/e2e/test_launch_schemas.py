"""What `sampan launch` writes is what the tools take: SkyPilot's own reader, and the published schemas of Kubernetes.

Both come as packages and go into an environment of their own. Volcano's schema is in no package: it was held against
config/crd/volcano/bases/batch.volcano.sh_jobs.yaml of volcano-sh/volcano by hand.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.command import sampan

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(900)]

PACKAGES = ("skypilot==0.14.1", "kubernetes-validate==1.37.0")
JOB = """
out = "runs/boats"
data.path = "pictures"
[train]
stages = ["decoder"]
[stage.decoder]
num_steps = 100
micro_batch_size = 8
grad_accum_steps = 8
"""
READ = """
import sys, jsonschema, yaml
from sky import task
from sky.utils import schemas
config = yaml.safe_load(open(sys.argv[1]))
jsonschema.validate(config, schemas.get_task_schema())
made = task.Task.from_yaml_config(config)
(wanted,) = made.resources
print(made.name, made.num_nodes, wanted.accelerators, wanted.use_spot, wanted.job_recovery["strategy"])
"""


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tools")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    programs = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    done = subprocess.run(
        [programs / "python", "-m", "pip", "install", "-q", *PACKAGES], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"{' and '.join(PACKAGES)} cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    return programs


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    (folder / "boats.toml").write_text(JOB, "utf-8")
    sampan(
        "plan", "boats.toml", "--chips", "h100_sxm", "--count", "16", "--sites", "sg", "--json", "plan.json", cwd=folder
    )
    return folder


def test_skypilot_reads_the_task(tools: Path, place: Path):
    sampan(
        "launch", "boats.toml", "--from", "plan.json", "--to", "skypilot", "--bucket", "s3://my-runs", "--out", "sky.yaml",
        cwd=place,
    )  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"HOME": str(place)}
    done = subprocess.run(
        [tools / "python", "-c", READ, "sky.yaml"],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "boats 2 {'H100': 8} True EAGER_NEXT_REGION"


def test_skypilot_knows_every_name_that_a_plan_can_give_it(tools: Path):
    import tomllib

    import sampan as package
    from sampan.catalog import load

    names = tomllib.loads((Path(package.__file__).parent / "launch" / "skypilot_names.toml").read_text("utf-8"))[
        "names"
    ]
    assert all(load.chip(name).name == name for name in names)
    script = "from sky.utils.gpu_names import CANONICAL_GPU_NAMES as n; print(*n)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([tools / "python", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert set(names.values()) <= set(done.stdout.split())


def test_kubernetes_takes_the_manifest(tools: Path, place: Path):
    sampan(
        "launch", "boats.toml", "--from", "plan.json", "--to", "kubernetes", "--image", "registry/sampan:1",
        "--volume", "runs", "--out", "k8s.yaml", cwd=place,
    )  # fmt: skip
    command = [tools / "kubernetes-validate", "--strict", "k8s.yaml"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    text = (place / "k8s.yaml").read_text("utf-8").replace("completionMode", "completionMod")
    (place / "k8s.yaml").write_text(text, "utf-8")  # the check can fail
    assert subprocess.run(command, cwd=place, capture_output=True, check=False).returncode
