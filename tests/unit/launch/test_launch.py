"""`sampan launch` as its users meet it: what is written for each target, and what is refused in which words."""

import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from sampan import job as jobs
from sampan.cli import main
from sampan.launch.render import launch_name
from sampan.plan import verb as plan_verb
from sampan.plan.arguments import PlanArguments

JOB = """
out = "runs/boats"
[data]
path = "pictures"
[train]
stages = ["ar", "decoder"]
[model]
start = "base"
[stage.ar]
num_steps = 100
micro_batch_size = 8
grad_accum_steps = 8
[stage.decoder]
num_steps = 100
micro_batch_size = 8
grad_accum_steps = 8
"""


def write_plan(path: Path, **asked) -> None:
    """Write what `sampan plan` does, of JOB."""
    given = {"sites": ("sg",), "chips": ("h100_sxm",), "count": (16, 16)} | asked
    plan = plan_verb.plan(jobs.parse(JOB), PlanArguments(**given), name="boats.toml")
    path.write_text(plan_verb.as_text(plan.as_dict()), "utf-8")


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plans")
    write_plan(folder / "plan.json")
    write_plan(folder / "ascend.json", chips=("ascend_910b2",), frameworks=("mindspore",))
    write_plan(folder / "decoder.json", stages=("decoder",))
    write_plan(folder / "preparation.json", stages=("preparation",))
    write_plan(folder / "all.json", chips=("ascend_910b2",), frameworks=("mindspeed", "torch"), all=True)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch, plans):
    monkeypatch.chdir(tmp_path)
    Path("boats.toml").write_text(JOB, "utf-8")
    for plan in plans.iterdir():
        shutil.copy(plan, plan.name)
    return tmp_path


def launched(capsys, *words: str) -> str:
    assert main(["launch", "boats.toml", *words]) == 0
    return Path(capsys.readouterr().out.split()[0]).read_text("utf-8")


def refused(capsys, *words: str, code: int = 1, job: str = "boats.toml") -> str:
    before = set(Path().rglob("*"))
    assert main(["launch", job, *words]) == code
    assert set(Path().rglob("*")) == before  # nothing is half written
    return capsys.readouterr().err


def test_slurm_has_the_rows_layout_the_queues_rules_and_the_cost(here, capsys):
    text = launched(
        capsys, "--from", "plan.json", "--row", "1", "--to", "slurm", "--sbatch", "partition=gpu", "--hours", "48"
    )
    (row,) = json.loads(Path("plan.json").read_text("utf-8"))["rows"]
    options = [line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH ")]
    assert options == [
        "job-name=boats", "nodes=2", "ntasks-per-node=1", "gpus-per-node=8", "time=48:00:00", "requeue",
        "signal=B:USR1@300", "open-mode=append", "output=launch/boats-%j.log", "partition=gpu",
    ]  # fmt: skip
    words = text.replace("\\\n", " ").split()
    assert words[words.index("torchrun") :][:6] == [
        "torchrun", "--nnodes=2", "--nproc-per-node=8", "--rdzv-id=boats", "--rdzv-backend=c10d",
        '--rdzv-endpoint="$head:29500"',
    ]  # fmt: skip
    assert words[words.index("-m") :][:5] == ["-m", "sampan", "train", "boats.toml", "--resume"]
    settings = dict(word.split("=") for flag, word in pairwise(words) if flag == "--set")
    for stage in row["stages"][1:]:
        layout, name = stage["layout"], stage["name"]
        assert int(settings[f"stage.{name}.micro_batch_size"]) == layout["micro_batch"]
        assert int(settings[f"stage.{name}.grad_accum_steps"]) == layout["dp"] * layout["accum"]
        assert settings[f"stage.{name}.recompute"] == str(layout["recompute"] == "full").lower()
        assert layout["dp"] * layout["accum"] * layout["micro_batch"] == 64  # the job's own batch
    shards = 16 if row["stages"][1]["layout"]["zero_stage"] == 3 else 1
    assert settings["place.device"] == "cuda" and settings["place.framework"] == "torch"
    assert (settings["place.dp_replicate"], settings["place.dp_shard"]) == (str(16 // shards), str(shards))
    assert f"# Money:  {row['money']['usd']['typical']:.3g} (" in text and "# Energy: " in text
    assert f"# Rests on, decoder: {row['stages'][2]['num_measurements']} measurements (" in text


def test_a_plan_of_some_stages_launches_those(here, capsys):
    text = launched(capsys, "--from", "decoder.json", "--to", "slurm")
    assert "--set 'train.stages=[\"decoder\"]'" in text
    assert "stage.decoder.micro_batch_size=" in text and "stage.ar." not in text


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize("target", ["local", "slurm", "msrun"])
def test_scripts_are_bash_and_may_be_run(here, capsys, target):
    more = ["--set", "place.framework=mindspore"] if target == "msrun" else []
    path = Path("launch/boats.sh")
    launched(capsys, "--to", target, *more)
    subprocess.run(["bash", "-n", str(path)], check=True)
    assert os.access(path, os.X_OK)


def test_a_user_setting_stands_once_and_the_rows_wins(here, capsys):
    extra = ("--set", "stage.ar.lr=1e-5")
    plan_words = [
        "plan",
        "boats.toml",
        *extra,
        "--chips",
        "h100_sxm",
        "--count",
        "2",
        "--sites",
        "sg",
        "--json",
        "mine.json",
    ]
    assert main(plan_words) == 0
    capsys.readouterr()
    text = launched(capsys, *extra, "--from", "mine.json", "--to", "local")
    assert text.count("stage.ar.lr=1e-5") == 1 and text.count("stage.ar.micro_batch_size=") == 1
    assert "torchrun \\\n" in text and "--standalone" in text and "--nproc-per-node=2" in text


def test_one_chip_is_started_without_a_launcher_and_odd_names_are_quoted(here, capsys):
    Path("a b").mkdir()
    shutil.copy("boats.toml", "a b/it's.toml")
    assert main(["launch", "a b/it's.toml", "--to", "local", "--set", "data.trigger=sks dog"]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path.name == "it-s.sh"
    text = path.read_text("utf-8")
    assert "torchrun" not in text
    assert "python -m sampan train 'a b/it'\"'\"'s.toml' --resume" in text
    assert "--set 'data.trigger=sks dog'" in text


def test_msrun_has_a_script_for_each_machine(here, capsys):
    assert main(["launch", "boats.toml", "--from", "ascend.json", "--to", "msrun", "--address", "10.0.0.1"]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.split()]
    assert [path.name for path in paths] == ["boats-node0.sh", "boats-node1.sh"]
    for node, path in enumerate(paths):
        words = path.read_text("utf-8").replace("\\\n", " ").split()
        assert words[words.index("--worker_num=16") - 1 :][:6] == [
            "msrun", "--worker_num=16", "--local_worker_num=8", '--master_addr="10.0.0.1"', "--master_port=29500",
            f'--node_rank="{node}"',
        ]  # fmt: skip
        assert "place.device=npu" in words and "place.framework=mindspore" in words
        assert not any(word.startswith("place.dp_") for word in words)


def test_kubernetes_has_an_indexed_job_behind_a_headless_service(here, capsys):
    text = launched(capsys, "--from", "plan.json", "--to", "kubernetes", "--image", "r/sampan:1", "--volume", "claim")
    service, job = yaml.safe_load_all(text)
    assert service["spec"]["clusterIP"] == "None" and service["metadata"]["name"] == "boats"
    spec = job["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    pod = spec["template"]["spec"]
    assert pod["subdomain"] == "boats"
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    assert container["image"] == "r/sampan:1"
    assert '--rdzv-endpoint="boats-0.boats:29500"' in container["command"][2]
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "claim"


def test_volcano_starts_msrun_on_ascend(here, capsys):
    text = launched(capsys, "--from", "ascend.json", "--to", "volcano", "--image", "r/sampan:1", "--volume", "claim")
    job = yaml.safe_load(text)
    assert (job["apiVersion"], job["kind"]) == ("batch.volcano.sh/v1alpha1", "Job")
    assert job["spec"]["minAvailable"] == 2 and set(job["spec"]["plugins"]) == {"svc", "env"}
    (task,) = job["spec"]["tasks"]
    (container,) = task["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"huawei.com/Ascend910": 8}
    assert '--node_rank="$VC_TASK_INDEX"' in container["command"][2]
    assert '--master_addr="boats-node-0.boats"' in container["command"][2]


def test_skypilot_has_accelerators_spot_and_a_bucket(here, capsys):
    text = launched(capsys, "--from", "plan.json", "--to", "skypilot", "--bucket", "s3://my-runs")
    task = yaml.safe_load(text)
    assert task["num_nodes"] == 2
    assert task["resources"]["accelerators"] == "H100:8" and task["resources"]["use_spot"] is True
    assert task["file_mounts"] == {"/runs": {"source": "s3://my-runs", "mode": "MOUNT_CACHED"}}
    assert "--set out=/runs/boats" in task["run"] and '--rdzv-endpoint="$head:29500"' in task["run"]


def test_a_file_that_is_there_stays_unless_it_is_to_be_replaced(here, capsys):
    launched(capsys, "--to", "local")
    Path("launch/boats.sh").write_text("mine", "utf-8")
    said = refused(capsys, "--to", "local")
    assert "`launch/boats.sh` is there already" in said and "--force replaces it" in said
    assert Path("launch/boats.sh").read_text("utf-8") == "mine"
    assert "sampan train" in launched(capsys, "--to", "local", "--force")


def test_a_folder_is_not_said_to_be_replaced(here, capsys):
    Path("place").mkdir()
    for force in ((), ("--force",)):
        said = refused(capsys, "--to", "local", "--out", "place", *force)
        assert said == "error: `place` is a folder\n\nhint: --out names a file\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--from plan.json --row 9 --to slurm", "the plan `plan.json` has no row 9\n  because it has rows 1 to 1"),
        ("--from no.json --to slurm", "there is no plan `no.json`"),
        ("--from boats.toml --to slurm", "the plan `boats.toml` cannot be read"),
        ("--from plan.json --to slurm --set seed=5", "the plan `plan.json` was made for another job"),
        ("--from preparation.json --to slurm", "the plan trains nothing"),
        ("--to slurm --nodes 3", "a step of stage ar cannot be shared by 24 chips"),
        ("--from plan.json --to slurm --nodes 3", "16 x h100_sxm cannot lie on 3 machines"),
        ("--from plan.json --to msrun", "msrun starts MindSpore, and the job is for torch"),
        ("--from ascend.json --to msrun", "the machines have to find the first one"),
        ("--from ascend.json --to skypilot --bucket s3://b", "skypilot has no name for `ascend_910b2`"),
        ("--to skypilot --bucket s3://b", "skypilot is told a kind of chip, and no plan names one"),
        ("--to local --nodes 2 --chips-per-node 1", "--to local is one machine"),
    ],
)
def test_what_cannot_be_launched_is_refused_in_words(here, capsys, words, says):
    assert says in refused(capsys, *words.split())


def test_a_row_that_train_cannot_run_is_refused_with_the_reason_and_one_that_it_can(here, capsys):
    rows = json.loads(Path("all.json").read_text("utf-8"))["rows"]
    beyond = next(row for row in rows if row["not_runnable"])
    said = refused(capsys, "--from", "all.json", "--row", str(beyond["rank"]), "--to", "slurm")
    assert f"row {beyond['rank']} of `all.json` cannot be trained\n  because not runnable by sampan train: " in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--row 1 --to slurm", "--row is a row of a plan, and none is given: --from PLAN.json names it"),
        ("--to kubernetes --volume v", "--to kubernetes needs --image"),
        ("--to skypilot", "--to skypilot needs --bucket"),
        ("--to local --image i", "--image is for --to kubernetes and volcano"),
        ("--to slurm --sbatch 'a;b'", "is not KEY=VALUE"),
        ("--to mars", "--to"),
        ("", "--to"),
    ],
)
def test_wrong_usage_ends_with_2(here, capsys, words, says):
    assert says in refused(capsys, *words.split(), code=2)


def test_no_job(here, capsys):
    assert "there is no job file `no.toml`" in refused(capsys, "--to", "slurm", job="no.toml")


def test_a_tool_that_is_not_installed_is_said_before_anything_is_written(here, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(here / "empty"))
    said = refused(capsys, "--to", "slurm", "--chips-per-node", "1", "--submit")
    assert "`sbatch` is not installed here" in said


@pytest.mark.skipif(sys.platform == "win32", reason="shell scripts")
def test_submit_hands_the_file_over_and_says_when_it_is_not_taken(here, capsys, monkeypatch):
    tools = here / "tools"
    tools.mkdir()
    fake = tools / "sbatch"
    fake.write_text('#!/bin/sh\necho "$@" > handed\nexit "$(cat status)"\n', "utf-8")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    Path("status").write_text("0", "utf-8")
    launched(capsys, "--to", "slurm", "--chips-per-node", "1", "--submit")
    assert Path("handed").read_text("utf-8").strip() == "launch/boats.sh"
    Path("status").write_text("3", "utf-8")
    assert main(["launch", "boats.toml", "--to", "slurm", "--chips-per-node", "1", "--submit", "--force"]) == 1
    assert "`sbatch launch/boats.sh` ended with 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "name"),
    [("jobs/GLM_image.toml", "glm-image"), ("8.toml", "job-8"), ("é.toml", "job"), (f"{'a' * 80}.toml", "a" * 52)],
)
def test_names_are_those_that_a_cluster_takes(path, name):
    assert launch_name(Path(path)) == name
